"""The lines of JSON between a hub and a launching agent.

The first line that the agent reads describes the pool and the hub, see `setup`. Each further line is a request:
``{"id": 1, "do": "submit", "block": "slurm-1f2e", "engines": 4}``. The agent answers requests in their order, with
``{"id": 1, "answer": …}`` or ``{"id": 1, "error": "text"}``.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from ..config.pools import Pool
from ..pools.settings import PoolSettings
from .commands import Places
from .launcher import JobReport, JobState

__all__ = ["line", "read_setup", "report_from", "report_to", "setup"]


def line(message: Mapping[str, Any]) -> bytes:
    """Return a message as one line."""
    return json.dumps(message, default=str).encode("utf-8") + b"\n"


def setup(pool: Pool, places: Places) -> dict[str, Any]:
    """Return the first message to an agent: the pool, and the places where its blocks find their hub."""
    told = {field.name: getattr(pool, field.name) for field in fields(pool)}
    settings = {field.name: getattr(pool.settings, field.name) for field in fields(pool.settings)}
    return {
        "pool": {**told, "settings": {**settings, "tags": dict(pool.settings.offers)}},
        "directory": str(places.directory),
        "profile_dir": None if places.profile_dir is None else str(places.profile_dir),
        "cluster_id": places.cluster_id,
        "connection_file": None if places.connection_file is None else str(places.connection_file),
    }


def read_setup(message: Mapping[str, Any]) -> tuple[Pool, Places]:
    """Return the pool and the places in a message of `setup`. Names that this version does not know are left out."""
    told, settings = dict(message["pool"]), dict(message["pool"]["settings"])
    told["settings"] = PoolSettings(**_known(PoolSettings, settings))
    told["engine_args"] = tuple(told.get("engine_args", ()))
    profile_dir, connection_file = message["profile_dir"], message["connection_file"]
    places = Places(
        directory=Path(message["directory"]),
        profile_dir=None if profile_dir is None else Path(profile_dir),
        cluster_id=message["cluster_id"],
        connection_file=None if connection_file is None else Path(connection_file),
    )
    return Pool(**_known(Pool, told)), places


def _known(cls: Any, values: Mapping[str, Any]) -> dict[str, Any]:
    names = {field.name for field in fields(cls)}
    return {name: value for name, value in values.items() if name in names}


def report_to(report: JobReport) -> dict[str, Any]:
    """Return a report as JSON values."""
    return {"state": report.state.value, "words": report.words, "failed": report.failed}


def report_from(told: Mapping[str, Any]) -> JobReport:
    """Return the report that `report_to` was given."""
    return JobReport(JobState(told["state"]), told["words"], told["failed"])
