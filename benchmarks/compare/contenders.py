"""The compared controllers: how to start each, and how to find out when it is ready."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from .client import Client
from .failure import Failed, wait_until
from .processes import Cost, cost_of_tree

__all__ = [
    "FLOOR",
    "HUB",
    "HUB_SQLITE",
    "HUB_UNLIMITED",
    "IPCONTROLLER",
    "IPCONTROLLER_UNLIMITED",
    "Contender",
    "Controller",
]


@dataclass(frozen=True)
class Contender:
    """A controller and its options, with the name under which its figures are listed.

    ``hwm`` is the maximum number of tasks per engine (0: no limit), and ``engines`` the number of engines.
    """

    label: str
    kind: Literal["trio-hub", "ipcontroller", "floor"]
    hwm: int = 1
    engines: int = 8
    options: tuple[str, ...] = ()

    def command(self, directory: Path, *, tiny: bool) -> list[str]:
        if self.kind == "floor":
            return [sys.executable, "-m", "benchmarks.compare.floor", str(directory)]
        if self.kind == "trio-hub":
            own = ["trio_hub", "serve", "--profile-dir", str(directory), f"--hwm={self.hwm}"]
        else:
            own = [
                "ipyparallel.controller",
                f"--profile-dir={directory}",
                "--dictdb",
                f"--TaskScheduler.hwm={self.hwm}",
            ]
            if tiny:  # an engine is usable after the next ping, and only the full form can wait so long for it
                own += ["--ping=200", "--HeartMonitor.max_heartmonitor_misses=300"]
        return [sys.executable, "-m", *own, *self.options]

    def settling(self, *, tiny: bool) -> float:
        """The seconds after the hub lists all engines, until its schedulers in other processes know them, too."""
        return {"trio-hub": 0.0, "floor": 0.2, "ipcontroller": 0.5 if tiny else 2.0}[self.kind]


HUB = Contender("trio-hub, in memory", "trio-hub", options=("--db", "memory"))
HUB_UNLIMITED = Contender("trio-hub, in memory, hwm 0", "trio-hub", hwm=0, options=("--db", "memory"))
HUB_SQLITE = Contender("trio-hub, SQLite", "trio-hub")
IPCONTROLLER = Contender("ipcontroller", "ipcontroller")
IPCONTROLLER_UNLIMITED = Contender("ipcontroller, hwm 0", "ipcontroller", hwm=0)
FLOOR = Contender("zmq_proxy", "floor")


class Controller:
    """A running contender, in a new profile directory.

    ``client_info`` and ``engine_info`` are its connection files, and ``started_s`` are the seconds from the start of
    its process to its first answer to a client.

    Raises:
        Failed: The controller ended, or was not ready in time. The text has its last output.
    """

    def __init__(self, contender: Contender, *, tiny: bool, limit: float = 60.0) -> None:
        self.contender = contender
        self.directory = Path(tempfile.mkdtemp(prefix="profile-"))
        security = self.directory / "security"
        security.mkdir()
        self._output = self.directory / "output.txt"
        # As in an installed package, Python may store compiled modules, so that it does not compile them at each start.
        environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
        began = time.perf_counter()
        with self._output.open("wb") as output:
            self._process = subprocess.Popen(
                contender.command(self.directory, tiny=tiny),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env=environment | {"IPYTHONDIR": str(self.directory / "ipython")},
            )
        try:
            self.client_info = self._read(security / "ipcontroller-client.json", limit)
            self.engine_info = self._read(security / "ipcontroller-engine.json", limit)
            if contender.kind != "floor":
                with Client(self.client_info) as client:
                    client.query("connection_request", limit=limit)
        except BaseException:
            self.stop()
            raise
        self.started_s = time.perf_counter() - began

    def _read(self, path: Path, limit: float) -> dict[str, Any]:
        """Wait for a connection file, and return its content when it is complete."""
        found: dict[str, Any] = {}

        def is_whole() -> bool:
            if self._process.poll() is not None:
                words = self._output.read_text(errors="replace")[-2000:]
                raise Failed(f"{self.contender.label} has ended with exit code {self._process.returncode}: {words}")
            try:
                found.update(json.loads(path.read_text()))
            except (FileNotFoundError, json.JSONDecodeError):
                return False
            return True

        wait_until(is_whole, f"{self.contender.label} has written {path.name}", limit, period=0.005)
        return found

    def cost(self) -> Cost:
        return cost_of_tree(self._process.pid)

    def at_rest(self, settling: float, seconds: float) -> tuple[Cost, float]:
        """Return the cost so far, and the CPU use of the idle controller, in per cent of a core."""
        time.sleep(settling)
        before = self.cost()
        time.sleep(seconds)
        after = self.cost()
        return after, 100 * (after.cpu - before.cpu) / seconds

    def stop(self) -> None:
        self._process.terminate()
        try:
            self._process.wait(15)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
