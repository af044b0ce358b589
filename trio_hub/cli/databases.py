"""The settings about databases of ``ipcontroller``, which are translated after all others."""

from __future__ import annotations

import os
from pathlib import Path

from ..config import HubConfig
from .translation import Translation

__all__ = ["settle_database"]

# The defaults of ipcontroller. A setting with this value counts as not set.
FILENAME = "tasks.db"
LIMITS = {"db_max_records": 1024, "db_max_bytes": 1 << 30}


def settle_database(translation: Translation) -> None:
    """Choose the file of an SQLite database. Ignore the limits of records in memory if records are on disk.

    Raises:
        ConfigError: The settings contradict each other, or the file cannot be used.
    """
    config = translation.config()
    if config.db == "sqlite":
        _choose_file(translation, config)
    else:
        for name, usual in (("filename", FILENAME), ("location", "")):
            given = translation.sqlite.get(name)
            if given is not None and given.value != usual:
                translation.remark(given.label, "records are not kept in SQLite; use --sqlitedb for that")
    if config.database.scheme in ("sqlite", "postgresql"):
        for setting, usual_limit in LIMITS.items():
            limit = translation.settings.pop(setting, None)
            if limit is not None and limit.value != usual_limit:
                remedy = f"use TRIO_HUB_{setting.upper()} for records on disk"
                translation.remark(limit.label, f"this limits only records in memory; {remedy}")


def _choose_file(translation: Translation, config: HubConfig) -> None:
    """Use the given file name; by default our own name, since ipcontroller's default name is for its own format."""
    own, profile = config.database.path, config.profile_dir
    assert own is not None
    assert profile is not None
    filename, location = translation.sqlite.get("filename"), translation.sqlite.get("location")
    directory = profile
    if location is not None and location.value:
        work_dir = translation.process.get("work_dir")
        directory = Path(work_dir.value if work_dir is not None else "", location.value).absolute()
    if filename is not None and filename.value not in ("", FILENAME):
        translation.set("db", f"sqlite:///{directory / filename.value}", filename.label, shown=filename.value)
        return
    path = own
    if location is not None and location.value:
        path = directory / own.name
        translation.set("db", f"sqlite:///{path}", location.label, shown=location.value)
    theirs = directory / FILENAME
    if os.path.lexists(theirs):
        note = f"task records are written to {path}; {theirs}, which has ipcontroller's format, is not used"
        translation.notes.append(note)
