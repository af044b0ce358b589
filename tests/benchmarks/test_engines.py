"""The benchmark of engines runs. No test checks a speed."""

from __future__ import annotations

import json
from typing import Any

import pytest

from .running import printed_by

pytestmark = pytest.mark.interop


def measured(*options: str) -> dict[str, Any]:
    figures: dict[str, Any] = json.loads(printed_by("benchmarks.engines", *options))
    return figures


def test_engines_one_after_the_other() -> None:
    figures = measured("--starts", "1")
    assert 0 < figures["registered_s"] < figures["usable_s"]
    assert figures["memory_mb"] > 1


def test_engines_together() -> None:
    figures = measured("--together", "2")
    assert figures["engines"] == 2
    assert figures["memory_mb"] > figures["memory_per_engine_mb"]
