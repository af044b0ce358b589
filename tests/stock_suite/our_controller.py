"""A pytest plugin: the run counts only if every controller in it was ours, and nearly all tests were run and passed.

It gives the processes of the run `sitecustomize`, and watches them from outside as well: a process with the command
line of a stock controller that has loaded ZeroMQ is one, however it came to be. (Ours had that command line for
the first moments of its life, with nothing loaded but Python's own.)
"""

from __future__ import annotations

import os
import re
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from sitecustomize import CURVE, ENGINES, LOG, controller_arguments, engine_arguments  # type: ignore[import-not-found]  # known to the run, not to mypy

SKIPS = {
    "MongoDB": r"Requires mongodb|Couldn't connect to mongodb",
    "docker": r"Needs docker compose|ssh service not running",
    "Slurm": r"Requires slurm|Slurm without /data",
    "ipykernel 7": r"ordering issues in ipykernel 7",  # the suite skips this one everywhere
}
"""The reasons for which a test may be skipped, as regular expressions."""

TIMED = re.compile(r"test_asyncresult\.py test_(wall_time|serial_time|elapsed|hubresult_timestamps)")
"""Tests that compare times by the wall clock, which a busy machine may fail: they are tried up to three times."""

UNSETTLED = 3
"""As many others may fail once, and pass when they are tried again: the suite waits for seconds here and there, for
things that take longer on a busy machine. The summary names them."""

SLURMS_FOLDER = Path("/data")
"""The suite's tests of Slurm are for a cluster whose nodes share this folder, not for any Slurm that is installed.

With STOCK_SUITE_SLURM=1, ``nox -s interop`` starts a Slurm of one node, makes the folder, and removes it at the end.
All 5 tests pass then: with the stock controller and engines, with our controller, and with our engines, too.
"""

PERIOD = 0.5
"""Seconds between two looks at all processes; a controller lives for longer, even one that only says its version."""


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("our controller")
    group.addoption("--at-least", type=int, default=0, metavar="N", help="fail unless N tests passed")


def pytest_configure(config: pytest.Config) -> None:
    config.pluginmanager.register(OurController(config.getoption("--at-least"), Path(os.environ[LOG])))


class OurController:
    def __init__(self, at_least: int, log: Path) -> None:
        self.at_least = at_least
        self.log = log
        self.passed = 0
        self.skipped: Counter[str] = Counter()
        self.timed: set[str] = set()
        self.tried_again: set[str] = set()
        self.ours: list[int] = []
        self.encrypted = 0
        self.engines = 0
        self.faults: list[str] = []
        self.seen: dict[int, str] = {}
        self.ended = threading.Event()
        self.watcher = threading.Thread(target=self.watch, name="watch for stock controllers", daemon=True)

    def watch(self) -> None:
        while not self.ended.wait(PERIOD):
            for pid, command in stock_processes():
                self.seen.setdefault(pid, command)

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        for item in items:
            if TIMED.match(f"{item.path.name} {item.name}"):
                self.timed.add(item.nodeid)
            if item.path.name == "test_slurm.py" and not os.access(SLURMS_FOLDER, os.W_OK):
                item.add_marker(pytest.mark.skip(reason="Slurm without /data"))
            item.add_marker(pytest.mark.flaky(reruns=2 if item.nodeid in self.timed else 1))

    def pytest_sessionstart(self) -> None:
        self.watcher.start()

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.passed and report.when == "call" and not hasattr(report, "wasxfail"):
            self.passed += 1
        elif report.skipped and not hasattr(report, "wasxfail"):
            assert isinstance(report.longrepr, tuple)
            self.skipped[report.longrepr[2].removeprefix("Skipped: ")] += 1
        elif str(report.outcome) == "rerun" and report.nodeid not in self.timed:  # of pytest-rerunfailures
            self.tried_again.add(report.nodeid)

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        self.ended.set()
        self.watcher.join()
        self.faults = list(self.find_faults())
        if self.faults and session.exitstatus == pytest.ExitCode.OK:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def find_faults(self) -> Iterator[str]:
        lines = self.log.read_text().splitlines() if self.log.exists() else []
        ours = [line.split()[1:3] for line in lines if line.startswith("ours ")]
        self.ours = [int(pid) for pid, _ in ours]
        self.engines = sum(line.startswith("engine ") for line in lines)
        if os.environ.get(ENGINES) == "trio-hub" and not self.engines:
            yield "no engine of ours was started"
        self.encrypted = sum(curve == "curve" for _, curve in ours)
        if os.environ.get(CURVE) and self.encrypted < len(ours):
            yield f"{len(ours) - self.encrypted} controllers were not told to encrypt"
        yield from (f"a stock controller or engine was refused: {line}" for line in lines if line.startswith("theirs "))
        yield from (f"a stock process ran: {pid} {command}" for pid, command in self.seen.items())
        if not self.ours:
            yield "no controller was started"
        for reason in self.skipped:
            if not any(re.search(allowed, reason) for allowed in SKIPS.values()):
                yield f"skipped for a reason that is not in the list: {reason}"
        if len(self.tried_again) > UNSETTLED:
            yield f"{len(self.tried_again)} tests had to be tried again, more than {UNSETTLED}"
        if self.passed < self.at_least:
            yield f"{self.passed} tests passed, fewer than {self.at_least}"

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        terminalreporter.section("our controller")
        terminalreporter.line(f"controllers: {len(self.ours)} of ours, {len(self.seen)} stock ones seen")
        terminalreporter.line(f"engines of ours: {self.engines}")
        terminalreporter.line(f"told to encrypt: {self.encrypted}")
        for reason, count in self.skipped.most_common():
            terminalreporter.line(f"skipped {count}: {reason}")
        for test in sorted(self.tried_again):
            terminalreporter.line(f"tried again: {test}")
        for fault in self.faults:
            terminalreporter.line(f"FAULT: {fault}", red=True)


def processes() -> Iterator[tuple[Path, list[str]]]:
    """Return the processes of this run, as directories of /proc, and their command lines."""
    mark = f"{LOG}={os.environ[LOG]}".encode()
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if mark in (process / "environ").read_bytes():
                yield process, command_line(process)
        except OSError:  # the process has ended
            continue


def command_line(process: Path) -> list[str]:
    return (process / "cmdline").read_text(errors="replace").split("\0")[:-1]


def stock_processes() -> Iterator[tuple[int, str]]:
    """Return the running stock controllers, and the stock engines if the run uses ours."""
    ours = os.environ.get(ENGINES) == "trio-hub"
    for process, command in processes():
        stock = controller_arguments(command) is not None or (ours and engine_arguments(command) is not None)
        try:
            if stock and "zmq" in (process / "maps").read_text() and command_line(process) == command:
                # The command line is still the same: the process has not become ours between the two looks.
                yield int(process.name), " ".join(command)
        except OSError:
            continue
