"""Names of functions, read from pickles without unpickling them."""

from __future__ import annotations

import functools
import operator
from collections.abc import Callable
from importlib import import_module
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from ipyparallel.serialize import PrePickled, pack_apply_message

from trio_hub.client.packing import pack_call, pack_function
from trio_hub.hub import labels
from trio_hub.hub.labels import MAX_LABEL, Labels, function_name

from .world import World

cloudpickle: Any = import_module("cloudpickle")  # it has no types


def helper(value: int) -> str:
    return str(value)


def make_inner() -> Callable[[int], str]:
    def outer_helper(value: int) -> str:
        return helper.__name__ + str(value)

    def inner(value: int, default: Any = outer_helper) -> str:
        return outer_helper(value) + helper.__name__

    return inner


def _map(function: Callable[[Any], Any], *sequences: Any) -> list[Any]:
    return list(map(function, *sequences))


FUNCTIONS = [
    (helper, "helper"),
    (make_inner(), "inner"),
    (lambda value: value, "<lambda>"),
    (operator.add, "add"),
    (functools.partial(helper, 1), "helper"),
]


@pytest.mark.parametrize(("function", "name"), FUNCTIONS)
def test_the_name_of_a_function_as_stock_clients_send_it(function: Any, name: str) -> None:
    assert Labels().of(None, "apply_request", pack_apply_message(function, (1,), {})) == name


@pytest.mark.parametrize(("function", "name"), FUNCTIONS)
def test_the_name_of_a_function_as_our_client_sends_it(function: Any, name: str) -> None:
    assert Labels().of(None, "apply_request", pack_call(pack_function(function), (1,), {})) == name
    assert function_name(cloudpickle.dumps(function)) == name


def test_a_map_is_called_by_what_it_maps() -> None:
    packed = pack_apply_message(PrePickled(_map), (helper, [1, 2]), {})
    assert Labels().of(None, "apply_request", packed) == "helper"


def test_a_label_counts_most_and_the_kind_of_message_least() -> None:
    known = Labels()
    call = pack_apply_message(helper, (1,), {})
    assert known.of("mine", "apply_request", call) == "mine"
    assert known.of({"run": 1}, "apply_request", call) == '{"run": 1}'
    assert known.of("x" * 1000, "apply_request", call) == "x" * MAX_LABEL
    assert known.of("", "execute_request", [b"?"]) == "execute"
    assert known.of(None, "apply_request", []) == "apply"


def test_nothing_is_called_that_a_pickle_says(tmp_path: Any) -> None:
    class Bomb:
        def __reduce__(self) -> Any:
            return open, (str(tmp_path / "touched"), "w")

    assert Labels().of(None, "apply_request", [cloudpickle.dumps(Bomb())]) == "open"
    assert not (tmp_path / "touched").exists()


@given(
    st.binary(max_size=200) | st.sampled_from([cloudpickle.dumps(helper), pack_apply_message(helper, (), {})[0]]),
    st.data(),
)
@pytest.mark.property
def test_whatever_the_bytes_are_there_is_a_name_of_bounded_length(pickled: bytes, data: st.DataObject) -> None:
    damaged = bytearray(pickled)
    if damaged:
        damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    label = Labels().of(None, "apply_request", [bytes(damaged)])
    assert 0 < len(label) <= MAX_LABEL


def test_pickles_that_are_all_different_are_not_all_read(monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[bytes] = []

    def counted(pickled: bytes) -> str:
        read.append(pickled)
        return "name"

    monkeypatch.setattr(labels, "function_name", counted)
    known = Labels()
    for number in range(10_000):
        known.of(None, "apply_request", [str(number).encode()])
    assert len(read) <= labels.SCANS + 10_000 * labels.SCANS_PER_CALL + 1
    assert len(known._names) <= labels.REMEMBERED
    assert known.of(None, "apply_request", [b"x" * (labels.MAX_PICKLE + 1)]) == "apply"


def test_nobody_looks_for_a_name_if_nobody_listens(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World()
    monkeypatch.setattr(world.hub.parts.announcer, "labels", None)
    world.host.listening = False
    world.engine("a")
    world.submit(label="L")
    world.call("a")
    assert not world.hub.notices.internal_errors
    assert not world.hub.notices.wire_errors
