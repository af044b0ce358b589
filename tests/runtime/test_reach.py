"""Pools whose engines cannot reach the hub."""

from __future__ import annotations

import logging
from typing import Any

import pytest

from trio_hub import HubConfig
from trio_hub.testing import open_hub


@pytest.mark.parametrize(("ip", "is_told"), [("127.0.0.1", True), ("*", False)])
async def test_a_hub_that_its_engines_cannot_reach_is_told(
    caplog: pytest.LogCaptureFixture, ip: str, is_told: bool
) -> None:
    caplog.set_level(logging.WARNING)
    pools: Any = [{"name": "far", "launcher": "slurm", "max": 4}, {"name": "near", "max": 4}]
    async with open_hub(HubConfig(ip=ip, pools=pools)):
        told = [record for record in caplog.records if "cannot reach the hub" in record.getMessage()]
    assert [(vars(record)["pools"], vars(record)["address"]) for record in told] == [("far", ip)] * is_told
