"""A command as users run it: a process, whose output is waited for line by line, with a time limit."""

from __future__ import annotations

import os
import queue
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

LIMIT = 60.0
"""Seconds after which a wait of a test fails. The value is large, since machines that run tests are busy."""


class Command:
    def __init__(self, *arguments: str, env: Mapping[str, str] | None = None) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "trio_hub", *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=dict(os.environ, **(env or {})),
        )
        self.stdout: list[str] = []
        self.stderr: list[str] = []
        self._lines: queue.SimpleQueue[tuple[str, str]] = queue.SimpleQueue()
        assert self.process.stdout is not None
        assert self.process.stderr is not None
        self._readers = [
            threading.Thread(target=self._read, args=("stdout", self.process.stdout), daemon=True),
            threading.Thread(target=self._read, args=("stderr", self.process.stderr), daemon=True),
        ]
        for reader in self._readers:
            reader.start()

    def _read(self, name: str, stream: IO[str]) -> None:
        with stream:
            for line in stream:
                self._lines.put((name, line.rstrip("\n")))

    def _take(self, timeout: float) -> tuple[str, str]:
        name, line = self._lines.get(timeout=max(0.0, timeout))
        getattr(self, name).append(line)
        return name, line

    def wait_line(self, stream: str, pattern: str) -> re.Match[str]:
        """Return the first line of ``stdout`` or ``stderr`` that contains the pattern, even if it was read before."""
        for line in getattr(self, stream):
            found = re.search(pattern, line)
            if found:
                return found
        deadline = time.monotonic() + LIMIT
        while True:
            try:
                name, line = self._take(min(0.2, deadline - time.monotonic()))
            except queue.Empty:
                ended = self.process.poll() is not None and not any(map(threading.Thread.is_alive, self._readers))
                assert not ended or not self._lines.empty(), f"ended without {pattern!r}: {self}"
                assert time.monotonic() < deadline, f"no {pattern!r} within {LIMIT} s: {self}"
                continue
            found = re.search(pattern, line)
            if name == stream and found:
                return found

    def signal(self, signum: signal.Signals) -> None:
        self.process.send_signal(signum)

    def wait(self) -> int:
        """Wait until all output has been read, and return the exit code."""
        code = self.process.wait(LIMIT)
        for reader in self._readers:
            reader.join(LIMIT)
            assert not reader.is_alive(), "a process that it started still has its output open"
        with suppress(queue.Empty):
            while True:
                self._take(0)
        return code

    def __str__(self) -> str:
        return f"exit code {self.process.poll()}, stdout {self.stdout}, stderr {self.stderr}"


@contextmanager
def command(*arguments: str, env: Mapping[str, str] | None = None) -> Iterator[Command]:
    """Run ``python -m trio_hub`` with these arguments, and kill it after the block if it still runs."""
    running = Command(*arguments, env=env)
    try:
        yield running
    finally:
        running.process.kill()
        running.process.wait()


def run(*arguments: str, env: Mapping[str, str] | None = None) -> tuple[int, str, str]:
    """Run a command to its end, and return its exit code, stdout and stderr."""
    with command(*arguments, env=env) as running:
        code = running.wait()
    return code, "\n".join(running.stdout), "\n".join(running.stderr)


def processes_with(text: str) -> list[int]:
    """Return the processes that have a text in their command line or their environment."""
    found = []
    for directory in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            known = (directory / "cmdline").read_bytes() + (directory / "environ").read_bytes()
            if text.encode() in known and int(directory.name) != os.getpid():
                found.append(int(directory.name))
    return found
