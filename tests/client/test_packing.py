"""Calls and results are what stock engines read and write: each is tried against their own code."""

from __future__ import annotations

import subprocess
import sys
from datetime import date
from functools import partial
from typing import Any

import numpy
import pytest
from ipyparallel.serialize import serialize_object, unpack_apply_message

from trio_hub.client import packing
from trio_hub.client.packing import pack_call, pack_function, unpack_value_untrusted
from trio_hub.errors import SerializationError

LARGE = b"x" * 5000
VALUES: list[Any] = [
    None,
    7,
    "text",
    b"short",
    LARGE,
    [1, LARGE, b"y"],
    (LARGE, LARGE[:2000]),
    {"b": LARGE, "a": 1},
    {1: "number", "one": LARGE},  # keys without an order
    list(range(100)),
    [LARGE] * 100,
    {"inner": {"inner": [LARGE]}},
    {3, 4},
    [],
    {},
    date(2026, 1, 1),
    bytearray(LARGE),
    ValueError("as a value"),
]


def same(left: object, right: object) -> bool:
    """Exceptions are told apart by their text; and engines put dicts into the order of their keys."""
    return type(left) is type(right) and (left == right or repr(left) == repr(right))


@pytest.mark.parametrize("value", VALUES, ids=lambda value: repr(value)[:20])
def test_an_engine_reads_what_is_sent(value: Any) -> None:
    buffers = pack_call(pack_function(max), [value, 1], {"key": value, "after": LARGE})
    function, args, kwargs = unpack_apply_message(buffers)
    assert function is max
    assert same(args, (value, 1))
    assert same(kwargs["key"], value)
    assert kwargs["after"] == LARGE


def can_be_sent_by_engines(value: Any) -> bool:
    return not (isinstance(value, dict) and 1 in value)  # engines sort keys, and cannot sort these


@pytest.mark.parametrize("value", list(filter(can_be_sent_by_engines, VALUES)), ids=lambda value: repr(value)[:20])
def test_what_an_engine_sends_is_read(value: Any) -> None:
    assert same(unpack_value_untrusted(serialize_object(value)), value)


class RunsWhenLoaded:
    """A value whose pickle calls a function when it is loaded."""

    def __reduce__(self) -> tuple[Any, ...]:
        return sorted, ([3, 1, 2],)


def test_a_client_loads_what_an_engine_sends() -> None:
    assert unpack_value_untrusted(serialize_object(RunsWhenLoaded())) == [1, 2, 3], "so it has to trust the engine"


@pytest.mark.parametrize(
    "array",
    [
        numpy.arange(3),
        numpy.arange(3000.0).reshape(30, 100),
        numpy.arange(3000.0).reshape(30, 100)[:, ::3],
        numpy.zeros((0, 5)),
        numpy.ones(500, dtype=[("a", "i4"), ("b", "f8")]),
        numpy.array(["2026-01-01"] * 500, dtype="M8[D]"),
        numpy.array([object, "x"] * 500, dtype=object),
    ],
    ids=str,
)
def test_arrays_there_and_back(array: Any) -> None:
    _, (there, inner), _ = unpack_apply_message(pack_call(pack_function(max), [array, [array]], {}))
    backs = [there, inner[0]]
    if array.dtype.kind != "M":  # an engine cannot send an array of dates
        backs.append(unpack_value_untrusted(serialize_object(array)))
    for back in backs:
        assert back.dtype == array.dtype
        assert back.shape == array.shape
        assert (back == array).all()


def test_large_data_is_not_copied() -> None:
    array = numpy.arange(10_000.0)
    _, _, _, sent = pack_call(pack_function(max), [array], {})
    assert numpy.shares_memory(numpy.frombuffer(memoryview(sent), dtype=float), array)
    received = [bytes(buffer) for buffer in serialize_object(array)]
    result = unpack_value_untrusted(received)
    assert numpy.shares_memory(result, numpy.frombuffer(received[1]))
    _, _, _, view = pack_call(pack_function(max), [memoryview(LARGE)], {})
    assert numpy.shares_memory(numpy.frombuffer(memoryview(view), "B"), numpy.frombuffer(LARGE, "B"))


@pytest.mark.parametrize("view", [memoryview(LARGE), memoryview(b"short"), memoryview(LARGE)[::2]], ids=len)
def test_memoryviews(view: memoryview) -> None:
    _, (there,), _ = unpack_apply_message(pack_call(pack_function(max), [view], {}))
    assert bytes(there) == view.tobytes()


def test_functions_travel_by_value() -> None:
    number = 3
    function, args, kwargs = unpack_apply_message(pack_call(pack_function(lambda x: x + number), [4], {}))
    assert function(*args, **kwargs) == 7


def test_functions_and_partials_come_back() -> None:
    assert unpack_value_untrusted(serialize_object(partial(pow, 2)))(5) == 32


def test_without_cloudpickle_functions_travel_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    program = """
import sys
sys.modules["cloudpickle"] = None
from trio_hub.client.packing import pack_function, SerializationError, pack_call
import math
assert b"sqrt" in pack_call(pack_function(math.sqrt), [b"x" * 5000], {})[0]
def local(): pass
local.__module__ = "elsewhere"
for function in (lambda: 1, local):
    try:
        pack_function(function)
    except SerializationError as error:
        assert "install cloudpickle" in str(error), error
    else:
        assert False
assert "ipyparallel" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)


def test_what_cannot_be_pickled_is_named() -> None:
    with pytest.raises(SerializationError, match="argument 1 cannot be pickled"):
        pack_call(pack_function(max), [1, (number for number in "x")], {})
    with pytest.raises(SerializationError, match="argument 'key' cannot be pickled"):
        pack_call(pack_function(max), [], {"key": [sys._getframe()]})
    frame = sys._getframe()
    with pytest.raises(SerializationError, match=r"function .*lambda.* cannot be pickled"):
        pack_function(lambda: frame)


@pytest.mark.parametrize("buffers", [[], [b""], [b"nonsense"], serialize_object(LARGE)[:1], [b"cnowhere\nthing\n."]])
def test_what_cannot_be_read_is_told(buffers: list[bytes]) -> None:
    with pytest.raises(SerializationError, match="the result cannot be read here"):
        unpack_value_untrusted(buffers)


def test_the_threshold_is_that_of_engines() -> None:
    assert len(serialize_object(b"x" * packing.LARGE_BUFFER)) == 1
    assert len(serialize_object(b"x" * (packing.LARGE_BUFFER + 1))) == 2
