"""A command in a pseudo-terminal, as users see it."""

from __future__ import annotations

import fcntl
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

from .process import LIMIT


class Terminal:
    """A process in a terminal, and what it has shown there, without colours."""

    def __init__(self, process: subprocess.Popen[bytes], descriptor: int) -> None:
        self.process = process
        self.descriptor = descriptor
        self.seen = ""

    def wait_for(self, pattern: str) -> None:
        """Wait until the screen shows a text. Only output after the text of the previous wait counts."""
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
def terminal(*arguments: str, columns: int = 80, lines: int = 24) -> Iterator[Terminal]:
    """Run ``python -m trio_hub`` in a terminal of this size, and kill it after the block if it still runs."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))
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
