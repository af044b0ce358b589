"""Makes the page of the documentation from results."""

from __future__ import annotations

import textwrap

from .contenders import Contender
from .line import Figure, Line, Target
from .lines import LINES
from .results import Results

__all__ = ["page"]

WIDTH = 120

INTRODUCTION = """\
# Performance

This page compares the cost and the speed of the hub with two other programs: `ipcontroller`, and `zmq_proxy`, ZeroMQ's
own proxy in C. `zmq_proxy` passes on messages without reading them, so no hub can cost less. One command measures
everything and writes this page. You can run the command in a checkout:

```bash
python -m benchmarks.compare --write docs/explanation/performance.md
```

## How it is measured

- Each measurement starts the measured program, the *contender*, in a new profile directory, as a user starts it. CPU
  time and memory are those of the contender's process and of the processes that it has started, as Linux reports them.
  The processes of engines and clients do not count.
- Engines and clients are simple programs with ZeroMQ sockets, in separate processes. They do little work for each
  message, so the contender is the slowest part. A section says so if it uses stock engines and clients.
- In each round, all contenders are measured once, one after the other. So if the machine is slow for a while, it is
  slow for all contenders.
- A figure is the median of all rounds. The column "least to most" has the lowest and the highest figure of any round. A
  ratio is the quotient of two medians. Each ratio compares contenders with the same limit of tasks per engine (`hwm`),
  if there are such.
- `trio-hub, SQLite` has the default settings. `ipcontroller` keeps its records in memory, as it does by default.
"""


def page(results: Results) -> str:
    """Return the page, as Markdown."""
    measured = [line for line in LINES if results.rounds(line)]
    parts = [INTRODUCTION, machines(results), summary(results, measured)]
    if results.tiny:
        parts.insert(1, "**These figures are of the tiny form: they show that the command works, and nothing else.**\n")
    parts += [section(results, line) for line in measured]
    if results.failures:
        parts.append("## What failed\n\n" + "\n".join(f"- {one_line(failure)}" for failure in results.failures) + "\n")
    return "\n".join(parts)


def machines(results: Results) -> str:
    rows = [(name, *(machine.get(name, "") for machine in results.machines)) for name in results.machines[0]]
    return table(("", *("" for _ in results.machines)), rows)


def summary(results: Results, measured: list[Line]) -> str:
    """Return the number of reached targets, and the targets that are not reached."""
    found = [(line, target, results.value(line, target)) for line in measured for target in line.targets]
    known = [(line, target, target.reached(value)) for line, target, value in found if value is not None]
    if not known:
        return ""
    reached = sum(good for _, _, good in known)
    text = f"## Targets\n\nOf {len(known)} targets, {reached} {'is' if reached == 1 else 'are'} reached."
    if reached < len(known):
        text += " Not reached:\n\n"
        text += "\n".join(f"- {line.title}: {target_text(line, target)}" for line, target, good in known if not good)
    return text + "\n"


def section(results: Results, line: Line) -> str:
    rounds = results.rounds(line)
    counted = "One round." if rounds == 1 else f"{rounds} rounds."
    parts = [f"## {line.title}\n", textwrap.fill(f"{line.text} {counted}", WIDTH) + "\n", figures(results, line)]
    if line.targets:
        parts.append(targets(results, line))
    return "\n".join(parts)


def figures(results: Results, line: Line) -> str:
    """Return one row per figure and contender, with its ratios to the references of the line."""
    kinds = {"times ipcontroller": "ipcontroller", "times zmq_proxy": "floor"}
    kinds = {title: kind for title, kind in kinds.items() if any(one.kind == kind for one in line.contenders)}
    rows = []
    for figure in line.figures:
        for contender in line.contenders:
            spread = results.spread(line, contender, figure.key)
            if spread is None:
                continue
            row = [figure.title, contender.label, figure.text(spread.median)]
            row.append(f"{number(figure, spread.least)} to {number(figure, spread.most)}")
            for kind in kinds.values():
                of = reference(line, contender, kind)
                ratio = results.ratio(line, contender, figure.key, of) if of else None
                row.append("" if ratio is None else f"{ratio:.2f}")
            rows.append(tuple(row))
    return table(("", "", "median", "least to most", *kinds), rows)


def reference(line: Line, contender: Contender, kind: str) -> Contender | None:
    """Return the contender to compare with: the one of this kind, and of several, the one with the same hwm."""
    found = [one for one in line.contenders if one.kind == kind]
    same = [one for one in found if one.hwm == contender.hwm]
    return None if contender.kind == kind or not found else (same or found)[0]


def targets(results: Results, line: Line) -> str:
    rows: list[tuple[str, ...]] = []
    for target in line.targets:
        value = results.value(line, target)
        if value is None:
            said = reached = "not measured"
        else:
            said = f"{value:.3f} times" if target.of else figure_of(line, target).text(value)
            reached = "yes" if target.reached(value) else "**no**"
        rows.append((target_text(line, target), said, reached))
    return table(("target", "measured", "reached"), rows)


def target_text(line: Line, target: Target) -> str:
    figure = figure_of(line, target)
    bound = "at least" if target.at_least else "at most"
    if target.of is None:
        limit = figure.text(target.limit)
    elif target.limit < 1 and abs(1 / target.limit - round(1 / target.limit)) < 1e-9:
        limit = f"1/{round(1 / target.limit)} of {target.of.label}"
    else:
        limit = f"{target.limit:g} times {target.of.label}"
    return f"{target.contender.label}: {figure.title} {bound} {limit}"


def figure_of(line: Line, target: Target) -> Figure:
    return next(figure for figure in line.figures if figure.key == target.figure)


def number(figure: Figure, value: float) -> str:
    return f"{value:,.{figure.digits}f}"


def table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    return "\n".join(f"| {' | '.join(row)} |" for row in (head, ("---",) * len(head), *rows)) + "\n"


def one_line(text: str) -> str:
    """Return the last line of a text, without characters that have a meaning in Markdown."""
    last = text.strip().splitlines()[-1] if text.strip() else ""
    return last.replace("|", "\\|").replace("<", "&lt;")
