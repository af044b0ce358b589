"""The garbage collector of a process that serves a hub."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest

from trio_hub.cli.collecting import collect_rarely


@pytest.fixture
def own_collector() -> Iterator[None]:
    thresholds = gc.get_threshold()
    gc.unfreeze()
    yield
    gc.set_threshold(*thresholds)
    gc.unfreeze()


@pytest.mark.usefixtures("own_collector")
def test_what_was_there_at_the_start_is_not_looked_at_again() -> None:
    before = gc.get_threshold()
    assert gc.get_freeze_count() == 0
    collect_rarely()
    assert gc.get_freeze_count() > 10_000
    assert gc.get_threshold()[0] > before[0]
    assert gc.isenabled(), "cycles are found all the same"
