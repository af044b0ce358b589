"""The former place of `trio_hub.records` and `trio_hub.databases`, for programs that import the modules from here."""

from __future__ import annotations

import sys
from importlib import import_module

from ..records import *  # noqa: F403

_MOVED = {
    **{name: f"records.{name}" for name in ("interface", "matching", "memory", "none", "output", "query", "record")},
    **{name: f"databases.{name}" for name in ("backend", "backlog", "columns", "prefilter", "sqlite", "postgres")},
    "pending": "databases.layers",
}


def __getattr__(name: str) -> object:
    """Return a module by its former name."""
    if name not in _MOVED:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return sys.modules[f"{__name__}.{name}"]


for _former, _now in _MOVED.items():
    sys.modules[f"{__name__}.{_former}"] = import_module(f"trio_hub.{_now}")
