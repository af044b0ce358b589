"""The interpreter of a process that serves a hub."""

from __future__ import annotations

import gc
import sys
from collections.abc import Iterator

import pytest

from trio_hub.cli.interpreter import collect_rarely, switch_often

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
    assert gc.get_threshold()[0] > before[0]
    assert gc.isenabled(), "cycles are found all the same"


def test_no_thread_keeps_the_others_waiting() -> None:
    switch_often()
    assert sys.getswitchinterval() <= 0.001
