from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import trio

from trio_hub.runtime.pooling import pools


@pytest.fixture(autouse=True)
def _without_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    """Write files in the task itself: a virtual clock does not wait for threads."""

    async def run_sync(call: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
        await trio.lowlevel.checkpoint()
        return call(*arguments)

    monkeypatch.setattr(trio.to_thread, "run_sync", run_sync)


@pytest.fixture(autouse=True)
def _without_rests(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have no pause depend on how long a decision takes: the real seconds of a busy machine are no virtual ones."""
    monkeypatch.setattr(pools, "SHARE", math.inf)
