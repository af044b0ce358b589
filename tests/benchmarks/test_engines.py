"""The benchmark of engines runs. No test checks a speed."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
LIMIT = 240.0

pytestmark = pytest.mark.interop


def measured(*options: str) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.engines", *options],
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=LIMIT,
    )
    assert done.returncode == 0, done.stderr
    figures: dict[str, Any] = json.loads(done.stdout)
    return figures


def test_engines_one_after_the_other() -> None:
    figures = measured("--starts", "1")
    assert 0 < figures["registered_s"] < figures["usable_s"]
    assert figures["memory_mb"] > 1


def test_engines_together() -> None:
    figures = measured("--together", "2")
    assert figures["engines"] == 2
    assert figures["memory_mb"] > figures["memory_per_engine_mb"]
