"""Where ``ipcontroller``'s settings about databases lead, which is known when all others are."""

from __future__ import annotations

import os
from pathlib import Path

from ..config import HubConfig
from .translation import Translation

__all__ = ["settle_database"]

# What ipcontroller takes for "not set".
FILENAME = "tasks.db"
LIMITS = {"db_max_records": 1024, "db_max_bytes": 1 << 30}


def settle_database(translation: Translation) -> None:
    """Choose the file of an SQLite database; and leave alone what is on disk, where the limits are those of memory.

    Raises:
        ConfigError: the settings do not go together, or there cannot be such a file.
    """
    config = translation.config()
    if config.db == "sqlite":
        _choose_file(translation, config)
    else:
        for name, usual in (("filename", FILENAME), ("location", "")):
            given = translation.sqlite.get(name)
            if given is not None and given.value != usual:
                translation.remark(given.label, "records are not kept in SQLite; --sqlitedb asks for that")
    if config.database.scheme in ("sqlite", "postgresql"):
        for setting, usual_limit in LIMITS.items():
            limit = translation.settings.pop(setting, None)
            if limit is not None and limit.value != usual_limit:
                remedy = f"TRIO_HUB_{setting.upper()} limits those on disk"
                translation.remark(limit.label, f"this is about records in memory; {remedy}")


def _choose_file(translation: Translation, config: HubConfig) -> None:
    """A name that was given is the file's; without one it is ours, since that of ipcontroller is its own file's."""
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
        note = f"task records go to {path}; {theirs}, which is in ipcontroller's format, is left alone"
        translation.notes.append(note)
