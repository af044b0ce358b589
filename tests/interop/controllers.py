"""Our hub, and a stock ipcontroller with an engine, as processes; and the command ipcluster."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from .conftest import LIMIT, wait_until

__all__ = ["hub", "ipcluster", "ipcontroller", "log_of"]


@contextmanager
def hub(profile_dir: Path, *options: str) -> Iterator[subprocess.Popen[str]]:
    """Run `trio-hub serve`, give it when it is ready, and stop it after the block if it still runs."""
    command = [sys.executable, "-m", "trio_hub", "serve", "--profile-dir", str(profile_dir), *options]
    with (
        (profile_dir.parent / "hub.log").open("ab") as log,
        subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=log, text=True) as process,
    ):
        assert process.stdout is not None
        try:
            assert process.stdout.readline().startswith("trio-hub ready: "), log_of(profile_dir)
            yield process
        finally:
            process.terminate()
            try:
                process.wait(LIMIT)
            finally:
                process.kill()


def log_of(profile_dir: Path) -> str:
    """Return the log of all hubs that `hub` has run with this profile."""
    return (profile_dir.parent / "hub.log").read_text()


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


def ipcluster(*arguments: str) -> str:
    """Run a command of ipcluster, such as ``start``, and return all that it prints."""
    done = subprocess.run(
        [sys.executable, "-m", "ipyparallel.cluster", *arguments],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=2 * LIMIT,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    return done.stdout
