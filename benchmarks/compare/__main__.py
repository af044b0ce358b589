"""The command: rounds, one line after the other, and what is written of them."""

from __future__ import annotations

import argparse
import signal
import sys
import time
from pathlib import Path

from .failure import Failed
from .line import Figures, Line
from .lines import LINES
from .page import page
from .results import Results, merged, this_machine
from .worker import measured


def chosen(options: argparse.Namespace) -> list[Line]:
    """The lines that were named; else all, or all but the long ones."""
    if options.only:
        return [line for line in LINES if line.name in options.only]
    return [line for line in LINES if options.long or not line.long]


def measure(lines: list[Line], rounds: int, *, tiny: bool, save: Path | None) -> Results:
    """Measure everything, and say on stderr how far it is. A measurement that fails is noted, and the next begins."""
    results = Results([this_machine()], tiny=tiny)
    for number in range(rounds):
        for line in lines:
            for contender in line.contenders[:: -1 if number % 2 else 1]:  # so that nobody is always first
                began = time.monotonic()
                try:
                    figures = measured(line, contender, tiny=tiny)
                except Failed as error:
                    results.failures.append(f"{line.name}, {contender.label}: {error}")
                    said = f"FAILED: {error}"
                else:
                    results.add(line, contender, figures)
                    said = in_words(line, figures)
                seconds = time.monotonic() - began
                print(
                    f"round {number + 1}/{rounds}, {line.name}, {contender.label} ({seconds:.1f} s): {said}",
                    file=sys.stderr,
                    flush=True,
                )
                if save:
                    results.save(save)
    return results


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
    parser.add_argument("--tiny", action="store_true", help="few tasks, one round: shows that it works, nothing else")
    parser.add_argument("--json", type=Path, metavar="FILE", help="where the results go, after each measurement")
    parser.add_argument("--write", type=Path, metavar="PAGE.md", help="where the page goes; else to stdout")
    parser.add_argument(
        "--from-json", type=Path, nargs="+", metavar="FILE", help="measure nothing: the page is made of these results"
    )
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that what was started is ended, and removed
    if options.from_json:
        results = merged(options.from_json)
        if options.json:
            results.save(options.json)
    else:
        rounds = 1 if options.tiny else options.rounds
        results = measure(chosen(options), rounds, tiny=options.tiny, save=options.json)
    if options.write:
        options.write.write_text(page(results))
    else:
        print(page(results))
    if results.failures:
        sys.exit(f"{len(results.failures)} measurements have failed")


if __name__ == "__main__":
    main()
