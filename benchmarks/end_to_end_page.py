"""What `benchmarks.end_to_end` writes: the page with all figures, and the ratios that are to be reached."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping
from typing import NamedTuple, TypeAlias

from .compare.page import table

__all__ = ["FIGURES", "GOALS", "IPCONTROLLER", "Found", "goals", "page"]

Found: TypeAlias = Mapping[str, list[dict[str, float]]]
"""The figures of each round, by contender."""
IPCONTROLLER = "ipcontroller, stock engines, stock client"
OURS = ("trio-hub, own engines, connect", "trio-hub, own engines, Executor")

FIGURES = {
    "first_s": ("first result", "{:.1f} s"),
    "calls_per_s": ("calls per second", "{:,.0f}"),
    "call_ms": ("one call, median", "{:.2f} ms"),
    "array_mb_per_s": ("4 MiB arrays there and back", "{:,.0f} MB/s"),
    "memory_mb": ("memory", "{:,.0f} MB"),
    "processes": ("processes", "{:.0f}"),
}


class Goal(NamedTuple):
    """A figure of ours, relative to another contender's, and the ratio that is to be reached.

    - ``ours``: the contenders of which the best counts;
    - ``least``, ``most``: the ratio that is to be reached at least, or at most.
    """

    figure: str
    ours: tuple[str, ...]
    other: str
    least: float | None = None
    most: float | None = None

    def is_met(self, ratio: float) -> bool:
        return ratio >= self.least if self.least is not None else self.most is None or ratio <= self.most


_OWN, _STOCK = "trio-hub, own engines", "trio-hub, stock engines"
GOALS = (
    Goal("calls_per_s", OURS, "Ray", least=1.4),
    Goal("calls_per_s", OURS, IPCONTROLLER, least=5),
    Goal("call_ms", OURS, "Ray", most=0.7),
    Goal("calls_per_s", (f"{_OWN}, stock client",), f"{_STOCK}, stock client", least=1.35),
    Goal("array_mb_per_s", OURS, IPCONTROLLER, least=1.5),
    Goal("array_mb_per_s", OURS, f"{_STOCK}, stock client", least=1.5),
    *(
        Goal("array_mb_per_s", (f"{_OWN}, {client}",), f"{_STOCK}, {client}", least=1.5)
        for client in ("connect", "Executor", "stock client")
    ),
)


def ratios(found: Found) -> Iterator[tuple[Goal, str, float]]:
    """Yield each goal whose contenders were measured, with the best of our contenders, and its ratio of medians."""
    for goal in GOALS:
        median = {
            name: statistics.median(one[goal.figure] for one in rounds) for name, rounds in found.items() if rounds
        }
        ours = [name for name in goal.ours if name in median]
        if ours and goal.other in median:
            best = (max if goal.least is not None else min)(ours, key=median.__getitem__)
            yield goal, best, median[best] / median[goal.other]


def goals(found: Found) -> str:
    """Return the ratios that are to be reached, and whether they were, one a line."""
    lines = []
    for goal, name, ratio in ratios(found):
        bound = f"at least {goal.least:g}" if goal.least is not None else f"at most {goal.most:g}"
        verdict = "met" if goal.is_met(ratio) else "MISSED"
        title = f"{FIGURES[goal.figure][0]}: {name}, relative to: {goal.other}"
        lines.append(f"{title}: {ratio:.2f} (goal: {bound}: {verdict})\n")
    return "".join(lines)


def page(found: Found, machine: Mapping[str, str]) -> str:
    """Return the figures as Markdown: medians, followed by the least and the largest value of all rounds."""
    rounds = max(map(len, found.values()), default=0)
    rows = []
    for name, figures in found.items():
        row = [name]
        for key, (_, form) in FIGURES.items():
            values = [one[key] for one in figures]
            row.append(form.format(statistics.median(values)) if values else "failed")
            if len(set(values)) > 1 and key in ("calls_per_s", "call_ms", "array_mb_per_s"):
                row[-1] += f" ({min(values):,.4g} to {max(values):,.4g})"
        rows.append(tuple(row))
    return "\n".join(
        [
            "# End to end\n",
            "This page shows how fast clusters are for their users, and how fast other systems are. Each of",
            "these clusters and systems has two workers on one machine, and runs calls that do nothing.",
            "This page was written by `python -m benchmarks.end_to_end --write PAGE.md`.\n",
            f"Medians of {rounds} round{'s' * (rounds != 1)}, in which all contenders take turns.",
            "In brackets: the smallest and the largest value.",
            "The memory and the number of processes do not include the client's process. (Dask's scheduler and the",
            "manager of a ProcessPoolExecutor are in the client's process.)\n",
            table(("", *(title for title, _ in FIGURES.values())), rows),
            "Ratios of medians:\n",
            table(
                ("", "", "relative to", "ratio"),
                [(FIGURES[goal.figure][0], name, goal.other, f"{ratio:.2f}") for goal, name, ratio in ratios(found)],
            ),
            table(("", ""), list(machine.items())),
        ]
    )
