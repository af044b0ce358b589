"""A stock ipcontroller with an engine."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from .conftest import LIMIT, wait_until

__all__ = ["ipcontroller"]


@contextmanager
def ipcontroller(
    directory: Path, *options: str, engine: Sequence[str] = ("ipyparallel.engine",)
) -> Iterator[subprocess.Popen[bytes]]:
    """Run a stock ipcontroller and one engine, by default a stock engine, during the block. Give the ipcontroller.

    Args:
        directory: the profile directory.
        options: options of ipcontroller.
        engine: the module of the engine's program, and its first arguments.
    """
    common = [f"--profile-dir={directory}", "--log-level=40"]
    file = directory / "security" / "ipcontroller-client.json"
    running: list[subprocess.Popen[bytes]] = []

    def start(*arguments: str) -> None:
        command = [sys.executable, "-m", *arguments]
        with (directory.parent / "log").open("ab") as log:
            running.append(subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log))

    try:
        start("ipyparallel.controller", *common, "--ip=127.0.0.1", "--location=127.0.0.1", "--init", *options)
        wait_until(file.exists, "the connection file")
        start(*engine, *common)
        yield running[0]
    finally:
        for process in reversed(running):
            process.terminate()
        for process in running:
            process.wait(LIMIT)
