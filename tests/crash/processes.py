"""A hub in a separate process, which can be killed, and the contents of its database after that."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import AsyncGenerator, Iterable, Sequence
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import Any

import trio

from trio_hub.config.connectionfiles import connection_paths, read_connection_file
from trio_hub.databases.sqlite.file import connect
from trio_hub.databases.sqlite.reading import SQLiteReader
from trio_hub.records.query import parse_query

PATIENT = ("--ping", "0.25", "--max-heartmonitor-misses", "200", "--registration-timeout", "60")
"""Options with which no engine is lost because the machine is busy."""


class HubProcess:
    """Runs ``trio-hub serve`` in a profile, again and again. Each hub carries on with the work of the previous one.

    Args:
        profile: the profile directory.
        options: of the command, beside those that make it take over.
        log_file: where it logs; beside the profile, unless this says something else.
        program: arguments of Python that run the command.
    """

    def __init__(
        self,
        profile: Path,
        *options: str,
        log_file: Path | None = None,
        program: Sequence[str] = ("-m", "trio_hub"),
    ) -> None:
        self.profile = profile
        self.program = program
        self.options = options
        self.log_file = log_file or profile.with_suffix(".log")
        self.database = profile / "db" / "tasks.sqlite"
        self.starts = 0
        self._process: trio.Process | None = None

    @property
    def log(self) -> str:
        return self.log_file.read_text(errors="replace")

    @property
    def client_info(self) -> dict[str, Any]:
        return read_connection_file(connection_paths(self.profile, "")[0])

    @property
    def engine_info(self) -> dict[str, Any]:
        return read_connection_file(connection_paths(self.profile, "")[1])

    async def start(self, *options: str) -> None:
        """Start the hub, and return when its process runs. The hub may not be ready then."""
        command = [sys.executable, *self.program, "serve", "--profile-dir", str(self.profile)]
        with self.log_file.open("ab") as log:
            self._process = await trio.lowlevel.open_process(
                [*command, *self.options, *options],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=log,
                env=os.environ | {"IPP_NONINTERACTIVE": "1"},
            )
        self.starts += 1

    async def ready(self) -> None:
        """Wait until the hub says that it is ready."""
        assert self._process is not None
        assert self._process.stdout is not None
        said = b""
        while b"\n" not in said:
            more = await self._process.stdout.receive_some()
            assert more, f"the hub has ended: {self.log[-5000:]}"
            said += more

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.returncode is None

    def kill(self) -> None:
        """Kill the process of the hub with SIGKILL."""
        assert self._process is not None
        self._process.kill()

    async def stop(self) -> None:
        """Send the hub SIGINT, and wait until it has stopped in order."""
        assert self._process is not None
        self._process.send_signal(signal.SIGINT)
        assert await self._process.wait() == 0, self.log[-5000:]

    async def gone(self) -> None:
        """Wait until the killed process has ended."""
        assert self._process is not None
        await self._process.wait()
        if self._process.stdout is not None:
            await self._process.stdout.aclose()

    def noted_engines(self) -> list[str]:
        """Return the uuids of the engines in the engine state file, which the next hub will know."""
        try:
            return list(json.loads((self.profile / "log" / "engines.json").read_text())["engines"].values())
        except FileNotFoundError:
            return []

    def records(self, msg_ids: Iterable[str], *keys: str) -> dict[str, dict[str, Any]]:
        """Return the records of these tasks that are on disk now, by msg_id, without writing to the database."""
        with closing(connect(self.database, "mode=ro")) as connection:
            reader = SQLiteReader(self.database, connection, "")
            query = parse_query({"msg_id": {"$in": list(msg_ids)}})
            found = reader.find(query, ("msg_id", "completed", *keys))
        return {values["msg_id"]: values for _, values in found}

    def unfinished(self) -> list[str]:
        """Return the msg_ids of all unfinished requests in the hub's database."""
        with closing(sqlite3.connect(f"file:{self.database}?mode=ro", uri=True)) as connection:
            return [row[0] for row in connection.execute("SELECT msg_id FROM task WHERE completed IS NULL")]


@asynccontextmanager
async def hub_process(
    profile: Path, *options: str, log_file: Path | None = None, program: Sequence[str] = ("-m", "trio_hub")
) -> AsyncGenerator[HubProcess, None]:
    """Run a hub, and give it when it is ready. At the end of the block, its process has ended in any case."""
    options = (*PATIENT, "--reuse", "true", "--restore", "true", "--db", "sqlite", *options)
    hub = HubProcess(profile, *options, log_file=log_file, program=program)
    try:
        await hub.start()
        await hub.ready()
        yield hub
    finally:
        with trio.CancelScope(shield=True):
            if hub.running:
                hub.kill()
            await hub.gone()
