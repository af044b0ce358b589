"""A real PostgreSQL server, which is started for the tests and removed after them.

`postgres_server` is the server. `postgres_url` is the URL of an empty database in it, for one test.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

__all__ = ["Server", "postgres_server", "postgres_url"]


class Server:
    """A server in its own directory. It listens on a Unix socket in this directory, and not on TCP.

    The user ``postgres`` may do everything without a password. Other users need their password.
    """

    def __init__(self, binaries: Path, directory: Path) -> None:
        self.binaries = binaries
        self.directory = directory
        self.sockets = directory / "s"
        self.data = directory / "data"
        self._numbers = count()
        # PostgreSQL refuses to run as root.
        self._as: dict[str, Any] = {}
        if os.geteuid() == 0:
            shutil.chown(directory, "postgres", "postgres")
            self._as = {"user": "postgres", "group": "postgres", "extra_groups": []}

    def create(self) -> None:
        # no fsync: the tests do not need the data after a crash of the machine
        self._run("initdb", "-D", self.data, "-U", "postgres", "-E", "UTF8", "--locale=C", "--auth=trust", "--no-sync")
        settings = f"""
            listen_addresses = ''
            unix_socket_directories = '{self.sockets}'
            fsync = off
            autovacuum_naptime = 1h
            max_connections = 40
            shared_buffers = 32MB
            log_min_messages = fatal
        """
        with (self.data / "postgresql.auto.conf").open("a") as file:
            file.write("\n".join(line.strip() for line in settings.splitlines()))
        (self.data / "pg_hba.conf").write_text(
            "local all postgres trust\nlocal all all scram-sha-256\n", encoding="ascii"
        )
        self.sockets.mkdir()
        if self._as:
            shutil.chown(self.sockets, "postgres", "postgres")

    def start(self) -> None:
        self._run("pg_ctl", "-D", self.data, "-w", "-t", "60", "-l", self.directory / "log", "start")

    def stop(self, mode: str = "immediate") -> None:
        self._run("pg_ctl", "-D", self.data, "-w", "-t", "60", "-m", mode, "stop")

    @contextmanager
    def watched(self) -> Iterator[int]:
        """Have another process stop the server and remove its directory at the end of the block or of this process.

        Gives the id of that process.
        """
        script = '"$0" -D "$1/data" -m immediate stop; rm -rf "$1"'
        # the script reads EOF when this process closes the pipe, or ends
        with subprocess.Popen(
            ["/bin/sh", "-c", f"read -r _; {script}", self.binaries / "pg_ctl", self.directory],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd="/",
            start_new_session=True,  # a Ctrl-C in the terminal must not reach it
            **self._as,
        ) as watcher:
            yield watcher.pid

    @property
    def running(self) -> bool:
        return (self.data / "postmaster.pid").exists()

    def url(self, database: str = "postgres", user: str = "postgres", password: str | None = None) -> str:
        credentials = user if password is None else f"{user}:{quote(password, safe='')}"
        return f"postgresql://{credentials}@/{database}?host={quote(str(self.sockets), safe='')}"

    def new_database(self) -> str:
        """Create an empty database, and return its name."""
        name = f"test{next(self._numbers)}"
        self.sql(f"CREATE DATABASE {name}")
        return name

    def sql(self, command: str, database: str = "postgres") -> list[tuple[Any, ...]]:
        """Carry out a command as the superuser, and return its rows."""
        import psycopg

        with psycopg.connect(self.url(database), autocommit=True) as connection:
            cursor = connection.execute(command.encode())
            return cursor.fetchall() if cursor.description else []

    def _run(self, program: str, *arguments: str | Path) -> None:
        environment = {name: value for name, value in os.environ.items() if not name.startswith("PG")}
        with (self.directory / "output").open("ab") as output:
            ran = subprocess.run(
                [self.binaries / program, *arguments],
                stdin=subprocess.DEVNULL,
                stdout=output,  # a file, since the server keeps it open
                stderr=output,
                cwd="/",
                env=environment,
                check=False,
                **self._as,
            )
        if ran.returncode != 0:
            told = (self.directory / "output").read_text(errors="replace")
            raise RuntimeError(f"{program} failed ({ran.returncode}): {told[-2000:]}")


def find_binaries() -> Path | None:
    """Return the directory of initdb: on the PATH, or else Debian's for the newest version; None if there is none."""
    found = shutil.which("initdb")
    if found is not None and shutil.which("pg_ctl") is not None:
        return Path(found).resolve().parent
    versions = sorted(
        Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: float(path.parent.parent.name), reverse=True
    )
    return versions[0].parent if versions else None


def needed_binaries() -> Path:
    """Return the directory of initdb. If it is missing, skip the test; in CI, fail the test."""
    binaries = find_binaries()
    if binaries is None:
        lacking = "needs PostgreSQL's initdb and pg_ctl (Debian: apt-get install postgresql)"
        if os.environ.get("CI") == "true":
            pytest.fail(lacking)
        pytest.skip(lacking)
    return binaries


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[Server]:
    """A running server. A test that stops it starts it again."""
    binaries = needed_binaries()
    # the name of a Unix socket has at most 107 bytes, too few for some of pytest's temporary directories
    server = Server(binaries, Path(tempfile.mkdtemp(prefix="pg-", dir="/tmp")))
    with server.watched():
        server.create()
        server.start()
        yield server


@pytest.fixture
def postgres_url(postgres_server: Server) -> Iterator[str]:
    """The URL of a new, empty database, for the superuser."""
    if not postgres_server.running:
        postgres_server.start()
    name = postgres_server.new_database()
    yield postgres_server.url(name)
    if not postgres_server.running:
        postgres_server.start()
    postgres_server.sql(f"DROP DATABASE {name} WITH (FORCE)")
