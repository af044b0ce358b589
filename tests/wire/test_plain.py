"""The rule for values that JSON cannot represent."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, NamedTuple, NoReturn

import msgspec
import pytest
from hypothesis import given

from trio_hub.wire.plain import MAX_DEPTH, json_bytes, json_text, plain, printable

from .odd import HUGE, nested, odd_texts, odd_values


def strictly(text: bytes | str) -> Any:
    """Read JSON as a browser does: NaN and infinities are refused."""

    def refuse(constant: str) -> NoReturn:
        raise ValueError(constant)

    return json.loads(text, parse_constant=refuse)


@dataclass
class Data:
    inside: Any


class Point(NamedTuple):
    x: Any
    y: Any


class Colour(StrEnum):
    RED = "red"


class Packed(msgspec.Struct):
    inside: Any


SURROGATE = "\udcff"  # keeps msgspec from writing the whole


@pytest.mark.parametrize(
    ("value", "written"),
    [
        (SURROGATE, SURROGATE),
        ("\0", "\0"),
        ([math.nan, math.inf, -math.inf, SURROGATE], [None, None, None, SURROGATE]),
        ([HUGE, 10**4000], ["<an integer of too many digits>", 10**4000]),
        (msgspec.msgpack.Ext(5, b"abc"), "<MessagePack extension 5 of 3 bytes>"),
        (object(), "<a value of type object>"),
        ([datetime(2026, 5, 1, tzinfo=UTC), SURROGATE], ["2026-05-01T00:00:00Z", SURROGATE]),
        ([b"\xff", SURROGATE], ["/w==", SURROGATE]),
        (Data([SURROGATE, object()]), {"inside": [SURROGATE, "<a value of type object>"]}),
        (Packed([SURROGATE, math.nan]), {"inside": [SURROGATE, None]}),
        ([Point(1, SURROGATE), Colour.RED, (1,), frozenset((2,))], [[1, SURROGATE], "red", [1], [2]]),
        ([msgspec.Raw(b'{"a":[1]}'), SURROGATE], [{"a": [1]}, SURROGATE]),
        ({1: 2, 1.5: 3, SURROGATE: 4}, {"1": 2, "1.5": 3, SURROGATE: 4}),
        ({True: 1, None: 2}, {"<a key of type bool>": 1, "<a key of type NoneType>": 2}),
    ],
)
def test_what_is_written_of_odd_values(value: Any, written: Any) -> None:
    assert strictly(json_bytes(value)) == strictly(json_text(value)) == written


def test_what_is_usual_is_written_as_msgspec_writes_it() -> None:
    value = {"a": [1, 2.5, "é", None, True, datetime(2026, 5, 1, tzinfo=UTC)], "b": math.nan}
    assert json_bytes(value) == msgspec.json.encode(value)


def test_nesting_ends_with_a_text() -> None:
    found = strictly(json_bytes([nested(100_000), SURROGATE]))[0]
    depth = 0
    while isinstance(found, list):
        (found,) = found
        depth += 1
    assert found == "<nested too deep>"
    assert depth == MAX_DEPTH


def test_whoever_asks_says_what_is_written_instead() -> None:
    assert json_text({"a": object(), "b": HUGE}, lambda value, why: why) == (
        '{"a": "a value of type object", "b": "an integer of too many digits"}'
    )

    def refuse(value: Any, why: str) -> NoReturn:
        raise TypeError(why)

    with pytest.raises(TypeError, match="a value of type object"):
        plain([[object()]], refuse)


@given(odd_values)
@pytest.mark.property
def test_whatever_it_is_it_is_written_for_every_reader(value: Any) -> None:
    strictly(json_bytes(value))
    text = json_text(value)
    strictly(text)
    assert text.isascii()


@given(odd_texts)
@pytest.mark.property
def test_whatever_the_text_is_it_can_be_printed(text: str) -> None:
    shown = printable(text)
    shown.encode()
    try:
        text.encode()
    except UnicodeEncodeError:
        assert "\\ud" in shown
    else:
        assert shown == text
