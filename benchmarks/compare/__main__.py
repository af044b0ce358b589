"""The command: measures in rounds, one line after the other, and writes the results."""

from __future__ import annotations

import argparse
import signal
import sys
import time
from functools import partial
from pathlib import Path

import trio

from .contenders import Contender
from .failure import Failed
from .line import Figures, Line
from .lines import LINES
from .page import page
from .results import Results, merged, this_machine
from .worker import measured

TINY_AT_ONCE = 3
"""The number of measurements of the tiny form that run at a time. Their figures are not used."""


def chosen(options: argparse.Namespace) -> list[Line]:
    """Return the named lines; by default all lines, or all except the long ones."""
    if options.only:
        return [line for line in LINES if line.name in options.only]
    return [line for line in LINES if options.long or not line.long]


async def measure(lines: list[Line], rounds: int, *, tiny: bool, save: Path | None) -> Results:
    """Measure everything, and print the progress on stderr. After a failed measurement, go on with the next."""
    results = Results([this_machine()], tiny=tiny)
    places = trio.Semaphore(TINY_AT_ONCE if tiny else 1)

    async def measure_one(line: Line, contender: Contender, where: str) -> None:
        began = time.monotonic()
        try:
            figures = await measured(line, contender, tiny=tiny)
        except Failed as error:
            results.failures.append(f"{line.name}, {contender.label}: {error}")
            said = f"FAILED: {error}"
        else:
            results.add(line, contender, figures)
            said = in_words(line, figures)
        print(f"{where} ({time.monotonic() - began:.1f} s): {said}", file=sys.stderr, flush=True)
        if save:
            results.save(save)
        places.release()

    async with trio.open_nursery() as nursery:
        for number in range(rounds):
            for line in lines:
                contenders = few_of(line) if tiny else line.contenders
                for contender in contenders[:: -1 if number % 2 else 1]:  # so that no contender is always first
                    await places.acquire()
                    where = f"round {number + 1}/{rounds}, {line.name}, {contender.label}"
                    nursery.start_soon(measure_one, line, contender, where)
    return results


async def until_told_to_stop(nursery: trio.Nursery) -> None:
    """Cancel everything on a signal, so that started processes are ended, and their files are removed."""
    with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        async for _ in signals:
            nursery.cancel_scope.cancel()


async def measure_or_stop(lines: list[Line], rounds: int, *, tiny: bool, save: Path | None) -> Results | None:
    """Call `measure`. Return None if a signal came before its end."""
    results = None
    async with trio.open_nursery() as nursery:
        nursery.start_soon(until_told_to_stop, nursery)
        results = await measure(lines, rounds, tiny=tiny, save=save)
        nursery.cancel_scope.cancel()
    return results


def few_of(line: Line) -> tuple[Contender, ...]:
    """Return the first contender of each kind."""
    return tuple({one.kind: one for one in reversed(line.contenders)}.values())[::-1]


def in_words(line: Line, figures: Figures) -> str:
    return ", ".join(f"{one.title} {one.text(figures[one.key])}" for one in line.figures if one.key in figures)


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.compare",
        description="Measures trio-hub beside ipcontroller and beside zmq_proxy, and writes a page of it.",
        epilog=f"Lines: {', '.join(line.name + ' (long)' * line.long for line in LINES)}.",
    )
    names = [line.name for line in LINES]
    parser.add_argument("--rounds", type=int, default=5, help="how often each is measured (%(default)s; tiny: 1)")
    parser.add_argument("--only", nargs="+", choices=names, metavar="NAME", help="these lines only")
    parser.add_argument("--long", action="store_true", help="also the lines that take minutes")
    parser.add_argument(
        "--tiny", action="store_true", help="few tasks and contenders, one round: only shows that it works"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="where the results go, after each measurement")
    parser.add_argument("--write", type=Path, metavar="PAGE.md", help="where the page goes; else to stdout")
    parser.add_argument(
        "--from-json", type=Path, nargs="+", metavar="FILE", help="measure nothing: the page is made of these results"
    )
    options = parser.parse_args()
    if options.from_json:
        results = merged(options.from_json)
        if options.json:
            results.save(options.json)
    else:
        rounds = 1 if options.tiny else options.rounds
        found = trio.run(partial(measure_or_stop, chosen(options), rounds, tiny=options.tiny, save=options.json))
        if found is None:
            sys.exit("stopped")
        results = found
    if options.write:
        options.write.write_text(page(results))
    else:
        print(page(results))
    if results.failures:
        sys.exit(f"{len(results.failures)} measurements have failed")


if __name__ == "__main__":
    main()
