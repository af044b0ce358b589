"""``trio-hub top`` as a process, in a terminal and without one."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import re
import select
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import trio

from ..asking.support import world
from ..process import LIMIT


async def test_pictures_without_a_terminal(tmp_path: Path) -> None:
    async with world(tmp_path) as it:
        msg_id = await it.run(pow, 1, 1, label="tides")
        result = await it.ask("top", "--count", "2", "--interval", "0.01")
        assert result.exit_code == 0
        lines = result.stdout.splitlines()
        assert sum(line.startswith("trio-hub top  tcp://127.0.0.1:") for line in lines) == 2
        assert any(line.endswith(f"…{msg_id[-15:]} tides") for line in lines)
        assert "\x1b" not in result.stdout
        assert "q quit" not in result.stdout


async def test_json(tmp_path: Path) -> None:
    async with world(tmp_path) as it:
        msg_id = await it.run(divmod, 1, 0)
        result = await it.ask("top", "--count", "2", "--interval", "0.01", "--json")
        assert result.exit_code == 0
        first, second = map(json.loads, result.stdout.splitlines())
        assert first["finished"] is None
        assert second["finished"] == 0
        assert second["completed"] == 1
        assert second["engines"][0]["uuid"] == it.engines[0].uuid
        assert second["failures"][0]["msg_id"] == msg_id
        assert second["failures"][0]["error"]["ename"] == "ZeroDivisionError"


class Terminal:
    """A process in a terminal of 80 columns and 24 lines, and what it has shown there, without colours."""

    def __init__(self, process: subprocess.Popen[bytes], descriptor: int) -> None:
        self.process = process
        self.descriptor = descriptor
        self.seen = ""

    def wait_for(self, pattern: str) -> None:
        """Wait until the screen has shown a text, after the text of the previous wait."""
        deadline = time.monotonic() + LIMIT
        while not (found := re.search(pattern, self.seen)):
            assert time.monotonic() < deadline, f"no {pattern!r}: {self.seen}"
            assert self.read(), f"ended without {pattern!r}: {self.seen}"
        self.seen = self.seen[found.end() :]

    def read(self) -> bool:
        """Read output, and return whether more may come."""
        ended = self.process.poll() is not None
        if not select.select([self.descriptor], [], [], 0.1)[0]:
            return not ended
        if data := os.read(self.descriptor, 65536):
            self.seen = re.sub(r"\x1b\[[0-9;]*m", "", self.seen + data.decode("utf-8", "replace"))
        return True

    def press(self, keys: str) -> None:
        os.write(self.descriptor, keys.encode())

    def end(self) -> int:
        """Read all output, and return the exit code."""
        while self.read():
            pass
        return self.process.wait(LIMIT)


@contextmanager
def terminal(*arguments: str) -> Iterator[Terminal]:
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    before = termios.tcgetattr(theirs)
    env = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "LINES", "NO_COLOR")}
    process = subprocess.Popen(
        [sys.executable, "-m", "trio_hub", *arguments],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        env=env | {"TERM": "xterm"},
        start_new_session=True,
    )
    try:
        yield Terminal(process, ours)
        assert termios.tcgetattr(theirs) == before, "the terminal is as it was"
    finally:
        process.kill()
        process.wait()
        os.close(ours)
        os.close(theirs)


async def test_in_a_terminal(tmp_path: Path) -> None:
    async with world(tmp_path, engines=2) as it:
        msg_id = await it.run(divmod, 1, 0, label="tides")

        def watch() -> None:
            with terminal("top", "--interval=0.1", f"--connection-file={it.file}") as screen:
                screen.wait_for(r"2 engines, 0 busy")
                screen.wait_for(r"completed 1 ")
                screen.wait_for(rf"{msg_id[-15:]} tides  ZeroDivisionError: inte")
                screen.wait_for(r"by id")
                screen.press("s")
                screen.wait_for(r"by load")
                screen.press("p")
                screen.wait_for(r"paused")
                screen.press("p\x1b[B\x1b[5~?")
                screen.wait_for(r"p pause")
                screen.press("q")
                assert screen.end() == 0
                assert "\x1b[?1049l" in screen.seen, "the screen is given back"

        await trio.to_thread.run_sync(watch)
