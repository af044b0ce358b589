"""Values that a client or an engine may send, and that some formats cannot represent: for fuzz tests."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import msgspec
from hypothesis import strategies as st

__all__ = ["odd_json_values", "odd_texts", "odd_values"]

HUGE = 10**5000
"""An integer of more digits than Python writes."""


def nested(depth: int) -> list[Any]:
    value: list[Any] = []
    for _ in range(depth):
        value = [value]
    return value


odd_texts = st.text(st.sampled_from('aé日😀\0\x01\x1b"\\\u2028\ud83d\ude00\udcff'), max_size=8)
_scalars = (
    st.none()
    | st.booleans()
    | odd_texts
    | st.integers()
    | st.floats()
    | st.sampled_from([2**63, 2**64, -(2**63) - 1, 1.7e308, 5e-324, -0.0])
    | st.just(0).map(lambda _: HUGE)  # made late, since Python cannot print it, and Hypothesis would
)
_no_json = st.sampled_from(
    [
        msgspec.msgpack.Ext(5, b"ext"),
        datetime(2026, 5, 1, tzinfo=UTC),
        datetime.min,
        UUID(int=0),
        b"\xff",
        memoryview(b"\0"),
        object(),
        {1, 2},
        {(1, 2): 3},
        {None: 1, True: 2, 1.5: 3, b"\xff": 5},
    ]
) | st.sampled_from([500, 5000]).map(nested)
odd_values: st.SearchStrategy[Any] = st.recursive(
    _scalars | _no_json,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(odd_texts, inner, max_size=3),
    max_leaves=8,
)
# What may stand in JSON text, for those who write it with the standard library: no integer is too long there.
odd_json_values: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | odd_texts | st.integers() | st.floats(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(odd_texts, inner, max_size=3),
    max_leaves=8,
)
