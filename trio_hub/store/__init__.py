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

for _former, _now in _MOVED.items():
    globals()[_former] = sys.modules[f"{__name__}.{_former}"] = import_module(f"trio_hub.{_now}")
