"""What engines have done, as a Chrome trace: for Perfetto, or ``chrome://tracing``."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec

from .bars import Bar
from .watching import Watch

__all__ = ["trace_parts"]

SLICE = 500
"""Tasks in a part: a millisecond or two."""


def trace_parts(watch: Watch, now: float) -> Iterator[bytes]:
    """The JSON of a trace, piece by piece: what has ended, and what runs until now (Unix seconds).

    What comes to be overwritten before its turn has come is left out.
    """
    encode = msgspec.json.encode
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
    while number < end:
        number = max(number, bars.ended - len(bars))
        part = bars.between(number, min(number + SLICE, end))
        yield b"".join(b"," + encode(_event(watch, bar, now)) for bar in part)
        number += SLICE
    yield b"".join(b"," + encode(_event(watch, bar, now)) for bar in running) + b"]}"


_NAME = {"args": {"name": "trio-hub"}}


def _event(watch: Watch, bar: Bar, now: float) -> dict[str, Any]:
    return {
        "ph": "X",
        "name": watch.progress.names[bar.label],
        "cat": bar.kind,
        "pid": 1,
        "tid": bar.row,
        "ts": round(bar.start * 1e6),
        "dur": round(max(0.0, (now if bar.end is None else bar.end) - bar.start) * 1e6),
        "args": {"msg_id": bar.msg_id, "status": bar.status},
    }
