"""A cluster at which everything goes wrong, for as long as SOAK_MINUTES says."""

from __future__ import annotations

import os
import time
from pathlib import Path
from random import Random

import pytest
import trio

from tests.crash.processes import hub_process

from . import hurried
from .figures import FIGURES
from .soak import CYCLES, OPTIONS, SETTLED_WITHIN, Soak

pytestmark = pytest.mark.soak

MINUTES = float(os.environ.get("SOAK_MINUTES") or 0.3)


async def test_every_request_is_answered_or_accounted_for(tmp_path: Path) -> None:
    seed = int(os.environ.get("SOAK_SEED") or time.time_ns() % 1_000_000)
    print(f"SOAK_SEED={seed}")
    began = trio.current_time()
    with trio.fail_after(MINUTES * 60 + (CYCLES + 2) * (SETTLED_WITHIN + 30)):
        async with hub_process(tmp_path / "profile", *OPTIONS, program=("-P", hurried.__file__)) as hub:
            soak = Soak(hub, Random(seed))
            try:
                await soak.run(MINUTES * 60)
            finally:
                print("\n".join(soak.summary))
            await hub.stop()
    FIGURES.append(f"{trio.current_time() - began:.0f} s, seed {seed}")
    FIGURES.extend(soak.summary)
