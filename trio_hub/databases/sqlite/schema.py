"""The tables of an SQLite database of records, and the steps that update an older file.

A record has one row for each time at which it is written, so that no row is written twice, and no unwanted row is read:

=============  ====================================================================================================
``task``       short values, and values that queries compare: one small row, which changes when the task goes on
``request``    the dicts and small buffers of the request, written when the request comes
``result``     the dicts and small buffers of the result, and displayed results, written when the result comes
``piece``      output in the pieces in which it came, and where the chunks of large buffers are: they are not in the
               database, see `trio_hub.databases.sqlite.segments`
``account``    one row: the number of records that have arrived, the number and bytes of finished records, and the
               number of the last batch, and the number of the current segment
=============  ====================================================================================================
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence
from itertools import chain
from typing import TypeAlias

from ...records.record import HUB_KEYS, RECORD_KEYS, TEXT_KEYS
from .segments import COUNTED

__all__ = ["APPLICATION_ID", "BODIES", "STEPS", "TASK_KEYS"]

# "trio" in ASCII. Programs such as `file` recognise the database by it.
APPLICATION_ID = 0x7472696F

Step: TypeAlias = Sequence[str] | Callable[[sqlite3.Connection], None]

# The keys that have a column in a table beside `task`, by table.
BODIES = {
    "request": ("header", "metadata", "content", "buffers"),
    "result": (
        "result_header",
        "result_metadata",
        "result_content",
        "result_buffers",
        "execute_input",
        "execute_result",
        "error",
    ),
}
# The keys that have a column in `task`.
TASK_KEYS = tuple(
    key for key in (*RECORD_KEYS, *HUB_KEYS) if key not in TEXT_KEYS and key not in chain(*BODIES.values())
)

# Version 1 had one row per record, apart from pieces. (So a row grew when the result came, and pages had to be split.)
# Its indexes were dropped with its table, so they are not created any more.
_FIRST = (
    """
    CREATE TABLE task (
        arrival INTEGER PRIMARY KEY,
        msg_id TEXT NOT NULL UNIQUE,
        client_uuid TEXT,
        engine_uuid TEXT,
        queue TEXT,
        resubmitted TEXT,
        submitted INTEGER,
        started INTEGER,
        completed INTEGER,
        received INTEGER,
        owed INTEGER NOT NULL,
        owner TEXT NOT NULL,
        size INTEGER NOT NULL,
        label TEXT,
        custody BLOB,
        header BLOB,
        metadata BLOB,
        result_header BLOB,
        result_metadata BLOB,
        error BLOB,
        execute_result BLOB,
        execute_input BLOB,
        result_content BLOB,
        content BLOB,
        result_buffers BLOB,
        buffers BLOB
    )""",
    """
    CREATE TABLE piece (
        number INTEGER PRIMARY KEY,
        task INTEGER NOT NULL,
        kind INTEGER NOT NULL,
        size INTEGER NOT NULL,
        data BLOB NOT NULL
    )""",
    "CREATE INDEX piece_task ON piece (task, number, kind, size)",
    # Counting before each step of `trim` would take too long. So each batch updates this row. Triggers would double the
    # cost of a task, and AUTOINCREMENT would write a further row for each task.
    "CREATE TABLE account (arrivals INTEGER NOT NULL, records INTEGER NOT NULL, bytes INTEGER NOT NULL)",
    "INSERT INTO account VALUES (0, 0, 0)",
)

# Texts and dates are as in `trio_hub.databases.columns`. All other values whose size counts are BLOBs: SQLite knows the
# length of a BLOB without reading it. `size` is the size of the record without its pieces. Each index costs one or two
# microseconds per task.
_SECOND = (
    """
    CREATE TABLE new_task (
        arrival INTEGER PRIMARY KEY,
        msg_id TEXT NOT NULL UNIQUE,
        client_uuid TEXT,
        engine_uuid TEXT,
        queue TEXT,
        resubmitted TEXT,
        submitted INTEGER,
        started INTEGER,
        completed INTEGER,
        received INTEGER,
        owed INTEGER NOT NULL,
        owner TEXT NOT NULL,
        size INTEGER NOT NULL,
        label TEXT,
        custody BLOB
    )""",
    """
    CREATE TABLE request (task INTEGER PRIMARY KEY, header BLOB, metadata BLOB, content BLOB, buffers BLOB)""",
    """
    CREATE TABLE result (
        task INTEGER PRIMARY KEY,
        result_header BLOB,
        result_metadata BLOB,
        error BLOB,
        execute_result BLOB,
        execute_input BLOB,
        result_content BLOB,
        result_buffers BLOB
    )""",
    """
    INSERT INTO new_task
    SELECT arrival, msg_id, client_uuid, engine_uuid, queue, resubmitted, submitted, started, completed, received,
        owed, owner, size, label, custody
    FROM task""",
    "INSERT INTO request SELECT arrival, header, metadata, content, buffers FROM task",
    """
    INSERT INTO result
    SELECT arrival, result_header, result_metadata, error, execute_result, execute_input, result_content,
        result_buffers
    FROM task
    WHERE coalesce(result_header, result_metadata, error, execute_result, execute_input, result_content,
        result_buffers) IS NOT NULL""",
    "DROP TABLE task",
    "ALTER TABLE new_task RENAME TO task",
    "CREATE INDEX task_history ON task (submitted)",
    "CREATE INDEX task_engine ON task (engine_uuid, completed) WHERE engine_uuid IS NOT NULL",
    "CREATE INDEX task_client ON task (client_uuid) WHERE client_uuid IS NOT NULL",
    "CREATE INDEX task_completed ON task (completed) WHERE completed IS NOT NULL",
    "CREATE INDEX task_received ON task (received) WHERE received IS NOT NULL",
    "CREATE INDEX task_unfinished ON task (owner) WHERE completed IS NULL",
    "CREATE INDEX task_owed ON task (owner) WHERE owed = 1",
)

# There are few or no finished records without a date of receipt, and few notes, so their indexes cost nothing.
_THIRD = (
    "ALTER TABLE account ADD COLUMN batch INTEGER NOT NULL DEFAULT 0",
    "ALTER TABLE task ADD COLUMN note INTEGER NOT NULL DEFAULT 0",
    "CREATE INDEX task_not_received ON task (completed) WHERE completed IS NOT NULL AND received IS NULL",
    "CREATE INDEX task_note ON task (owner) WHERE note = 1",
)

# A row has either data, or the place of a chunk in a segment; ``size`` is the size of either. (Chunks that an earlier
# version has written stay in the database.) The first segment number is random, see
# `trio_hub.databases.sqlite.segments`. The index costs nothing for rows without a segment.
_FOURTH = (
    "ALTER TABLE account ADD COLUMN segment INTEGER NOT NULL DEFAULT 0",
    f"UPDATE account SET segment = ((random() & {(1 << 62) - 1}) >> {COUNTED}) << {COUNTED}",
    "ALTER TABLE piece ADD COLUMN segment INTEGER",
    "ALTER TABLE piece ADD COLUMN position INTEGER",
    "ALTER TABLE piece ADD COLUMN checksum INTEGER",
    "CREATE INDEX piece_segment ON piece (segment, position, size) WHERE segment IS NOT NULL",
)

# The step at index n makes version n + 1 of version n. Steps that were released are never changed.
STEPS: list[Step] = [_FIRST, _SECOND, _THIRD, _FOURTH]
