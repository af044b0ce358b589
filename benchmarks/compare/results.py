"""Results: the figures of each round and the machine, kept as JSON."""

from __future__ import annotations

import json
import os
import platform
import statistics
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import zmq

import trio_hub

from .contenders import Contender
from .line import Figures, Line, Target

__all__ = ["Results", "Spread", "merged", "this_machine"]


@dataclass(frozen=True)
class Spread:
    median: float
    least: float
    most: float


@dataclass
class Results:
    """Figures by line and contender, one dict per round; failures; and the machine and date of the measurement."""

    machines: list[dict[str, str]] = field(default_factory=list)
    figures: dict[str, dict[str, list[Figures]]] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)
    tiny: bool = False

    def add(self, line: Line, contender: Contender, figures: Figures) -> None:
        self.figures.setdefault(line.name, {}).setdefault(contender.label, []).append(figures)

    def rounds(self, line: Line) -> int:
        """Return the largest number of rounds of a contender; 0 if the line was not measured."""
        return max(map(len, self.figures.get(line.name, {}).values()), default=0)

    def spread(self, line: Line, contender: Contender, figure: str) -> Spread | None:
        """Return the spread of a figure; None if it was not measured."""
        values = [one[figure] for one in self.figures.get(line.name, {}).get(contender.label, []) if figure in one]
        return Spread(statistics.median(values), min(values), max(values)) if values else None

    def ratio(self, line: Line, contender: Contender, figure: str, of: Contender) -> float | None:
        """Return the ratio of two medians; None if one was not measured, or the second is 0."""
        here, there = self.spread(line, contender, figure), self.spread(line, of, figure)
        return here.median / there.median if here and there and there.median else None

    def value(self, line: Line, target: Target) -> float | None:
        """Return the value that a target limits: a median, or a ratio of two medians."""
        if target.of is not None:
            return self.ratio(line, target.contender, target.figure, target.of)
        spread = self.spread(line, target.contender, target.figure)
        return spread.median if spread else None

    def save(self, path: Path) -> None:
        path.write_text(json.dumps(asdict(self), indent=1, ensure_ascii=False) + "\n")


def merged(paths: Iterable[Path]) -> Results:
    """Return the results of several files as one. The rounds of the same line are joined."""
    together = Results()
    for path in paths:
        one = Results(**json.loads(path.read_text()))
        together.machines += [machine for machine in one.machines if machine not in together.machines]
        together.failures += one.failures
        together.tiny |= one.tiny
        for line, contenders in one.figures.items():
            for contender, rounds in contenders.items():
                together.figures.setdefault(line, {}).setdefault(contender, []).extend(rounds)
    return together


def this_machine() -> dict[str, str]:
    """Return the properties of this machine that affect the figures, and today's date."""
    cpu = next((line for line in lines("/proc/cpuinfo") if line.startswith("model name")), ": unknown")
    memory = next(int(line.split()[1]) for line in lines("/proc/meminfo") if line.startswith("MemTotal:"))
    return {
        "date": datetime.now(UTC).date().isoformat(),
        "CPU": cpu.split(":", 1)[1].strip(),
        "cores": str(len(os.sched_getaffinity(0))),
        "memory": f"{memory / 2**20:.1f} GiB",
        "kernel": f"{platform.system()} {platform.release()}",
        "Python": platform.python_version(),
        "libzmq": zmq.zmq_version(),
        **{name: version(name) for name in ("pyzmq", "trio")},
        "trio-hub": trio_hub.__version__,  # of this directory, which need not be installed
        "ipyparallel": version("ipyparallel"),
    }


def lines(path: str) -> list[str]:
    return Path(path).read_text().splitlines()
