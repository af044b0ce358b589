"""The interpreter of a process that serves a hub."""

from __future__ import annotations

import gc
import sys
import time
from collections.abc import Iterator

import pytest
import trio
import trio.testing

from trio_hub.cli import interpreter
from trio_hub.cli.interpreter import collect_rarely, give_memory_back, switch_often, tidy_at_rest
from trio_hub.cli.loading import load_run_hub
from trio_hub.cli.running import run_hub

pytestmark = pytest.mark.usefixtures("own_interpreter")


@pytest.fixture
def own_interpreter() -> Iterator[None]:
    thresholds, interval = gc.get_threshold(), sys.getswitchinterval()
    gc.unfreeze()
    yield
    gc.set_threshold(*thresholds)
    gc.unfreeze()
    sys.setswitchinterval(interval)


def test_what_was_there_at_the_start_is_not_looked_at_again() -> None:
    before = gc.get_threshold()
    assert gc.get_freeze_count() == 0
    collect_rarely()
    assert gc.get_freeze_count() > 10_000
    assert gc.get_threshold()[0] >= before[0], "Python's own is 700, and from 3.13 on 2,000"
    assert gc.get_threshold()[2] > before[2], "what lives long is looked at when there is nothing to do"
    assert gc.isenabled(), "cycles are found all the same"


def test_loading_a_hub_leaves_nothing_to_be_looked_at_and_the_collector_on() -> None:
    assert load_run_hub() is run_hub
    assert gc.get_freeze_count() > 10_000
    assert gc.isenabled()


def test_no_thread_keeps_the_others_waiting() -> None:
    switch_often()
    assert sys.getswitchinterval() <= 0.001


async def test_memory_is_given_back_once_after_work_and_not_during_it(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: trio.testing.MockClock
) -> None:
    used, began = 0.0, trio.current_time()
    tidied: list[float] = []
    monkeypatch.setattr(time, "process_time", lambda: used)
    monkeypatch.setattr(interpreter, "give_memory_back", lambda: tidied.append(trio.current_time() - began))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(tidy_at_rest)
        # CPU in each second: at rest, at work, at rest, as little as many heartbeats take, at work, at rest
        for cpu in (0.0, 0.0, 0.8, 0.9, 0.0, 0.0, *[0.02] * 30, 0.5, 0.0, 0.0):
            await trio.sleep(0.5)
            used += cpu
            await trio.sleep(0.5)
        nursery.cancel_scope.cancel()
    assert tidied == pytest.approx([5.0, 38.0])


def test_freed_objects_that_python_keeps_for_later_are_let_go() -> None:
    give_memory_back()
    assert gc.get_count()[0] < 100
