"""The hub as its users run it: the command, stock engines, and a stock client."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import ipyparallel as ipp
import pytest

LIMIT = 60.0
"""Seconds until something that must happen counts as not happening."""


def wait_until(condition: Callable[[], Any], what: str, limit: float = LIMIT, period: float = 0.01) -> Any:
    """Wait until a condition is true, and return its value. The condition is checked every ``period`` seconds."""
    deadline = time.monotonic() + limit
    while not (value := condition()):
        assert time.monotonic() < deadline, f"{what}: not within {limit} s"
        time.sleep(period)
    return value


class Cluster:
    """`trio-hub serve --engines N` in a process of its own, with stock engines unless an option says something else."""

    def __init__(self, directory: Path, engines: int, *options: str) -> None:
        self.profile_dir = directory / "profile"
        self.output = directory / "output.txt"
        command = [sys.executable, "-m", "trio_hub", "serve", "--profile-dir", str(self.profile_dir)]
        with self.output.open("wb") as output:
            self.process = subprocess.Popen(
                [*command, "--engines", str(engines), "--engine-command", "ipengine", *options],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=output,
                env=os.environ | {"IPP_NONINTERACTIVE": "1"},
            )
        assert self.process.stdout is not None
        self.ready_line = self.process.stdout.readline().decode()
        self.client_file = self.profile_dir / "security" / "ipcontroller-client.json"
        assert self.process.poll() is None, self.log
        self.clients: list[ipp.Client] = []
        self.engines: list[subprocess.Popen[bytes]] = []

    @property
    def log(self) -> str:
        return self.output.read_text(errors="replace")

    def client(self) -> ipp.Client:
        """Return a new client, which finds the hub by the profile directory, as users' clients do."""
        client = ipp.Client(profile_dir=str(self.profile_dir), timeout=LIMIT)
        self.clients.append(client)
        return client

    def start_engine(self, *module: str) -> subprocess.Popen[bytes]:
        """Start an engine, by default a stock one, as a child of the test, not of the hub."""
        module = module or ("ipyparallel.engine",)
        engine = subprocess.Popen(
            [sys.executable, "-m", *module, f"--profile-dir={self.profile_dir}"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        self.engines.append(engine)
        return engine

    def close(self) -> int:
        """Stop the hub if it runs, and return its exit code."""
        for client in self.clients:
            client.close()
        for engine in self.engines:
            engine.terminate()
        for engine in self.engines:
            engine.wait(LIMIT)
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(LIMIT)
        finally:
            self.process.kill()
            assert self.process.stdout is not None
            self.process.stdout.close()


@pytest.fixture
def start_cluster(tmp_path: Path) -> Iterator[Callable[..., Cluster]]:
    """Start clusters, and check that they stop in order."""
    clusters: list[Cluster] = []

    def start(engines: int, *options: str) -> Cluster:
        directory = tmp_path / str(len(clusters))
        directory.mkdir()
        cluster = Cluster(directory, engines, *options)
        clusters.append(cluster)
        return cluster

    yield start
    codes = [cluster.close() for cluster in clusters]
    assert codes == [0] * len(clusters), [cluster.log for cluster in clusters]
