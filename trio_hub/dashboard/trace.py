"""The tasks of engines as a Chrome trace, for Perfetto or ``chrome://tracing``."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from ..wire.plain import json_bytes as encode
from .bars import Bar
from .watching import Watch

__all__ = ["trace_parts"]

SLICE = 500
"""The number of tasks in a part, which takes one or two milliseconds."""


def trace_parts(watch: Watch, now: float) -> Iterator[bytes]:
    """Yield the JSON of a trace in parts: the ended tasks, and the running ones until `now` (Unix seconds).

    An engine runs one task at a time, and trace viewers do not show overlapping tasks. So a task starts when its engine
    has ended the one before, and tasks that wait at the engine are left out. Tasks whose bars are overwritten while the
    trace is made are left out too.
    """
    names: list[Any] = [
        {"ph": "M", "name": "thread_name", "pid": 1, "tid": row, "args": {"name": f"engine {seen.id} {seen.uuid}"}}
        for row, seen in watch.engines.by_row.items()
    ]
    yield b'{"displayTimeUnit":"ms","traceEvents":[' + encode({"ph": "M", "name": "process_name", "pid": 1} | _NAME)
    for start in range(0, len(names), SLICE):
        yield b"".join(b"," + encode(name) for name in names[start : start + SLICE])
    bars = watch.bars
    running = bars.running_after(0, len(bars.running))
    number, end = bars.ended - len(bars), bars.ended
    free: dict[int, float] = {}  # by row, when the last task so far has ended
    while number < end:
        number = max(number, bars.ended - len(bars))
        part = bars.between(number, min(number + SLICE, end))
        yield b"".join(b"," + encode(event) for event in _events(watch, part, free, now))
        number += SLICE
    current = {bar.row: bar for bar in reversed(running)}.values()  # the task that each engine was sent first
    yield b"".join(b"," + encode(event) for event in _events(watch, current, free, now)) + b"]}"


_NAME = {"args": {"name": "trio-hub"}}


def _events(watch: Watch, bars: Iterable[Bar], free: dict[int, float], now: float) -> Iterator[dict[str, Any]]:
    for bar in bars:
        start = max(bar.start, free.get(bar.row, 0.0))
        end = free[bar.row] = max(start, now if bar.end is None else bar.end)
        began = round(start * 1e6)
        yield {
            "ph": "X",
            "name": watch.progress.names[bar.label],
            "cat": bar.kind,
            "pid": 1,
            "tid": bar.row,
            "ts": began,
            "dur": round(end * 1e6) - began,
            "args": {"msg_id": bar.msg_id, "status": bar.status, "sent": round(bar.start * 1e6)},
        }
