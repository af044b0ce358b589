"""Logs of a command: to stderr, for people or for programs, and never a flood of the same complaint."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from datetime import UTC, datetime
from time import monotonic

__all__ = ["JsonFormatter", "KindLimit", "TextFormatter", "set_up_logs"]

_USUAL = {*vars(logging.makeLogRecord({})), "message", "asctime", "taskName"}
# What comes from the network may be quoted in a message: it cannot forge a line, nor steer a terminal.
_CONTROLS = {code: f"\\x{code:02x}" for code in (*range(0x20), *range(0x7F, 0xA0))} | {ord("\n"): "\\n"}


def set_up_logs(level: str, form: str) -> None:
    """Log to stderr, in the form ``text`` or ``json``: ours from `level` up, others' from warnings up."""
    handler = logging.StreamHandler()
    handler.setFormatter(JsonFormatter() if form == "json" else TextFormatter())
    handler.addFilter(KindLimit(monotonic))
    logging.basicConfig(handlers=[handler], level=logging.WARNING, force=True)
    logging.getLogger("trio_hub").setLevel(level.upper())


class KindLimit(logging.Filter):
    """Lets one record of a kind through in `period` seconds, and tells in the next how many it held back.

    A record has a kind if it was logged with ``extra={"kind": …}``, as those about messages of others are:
    who sends garbage in a loop shall not fill the disk. The next record's ``suppressed`` is that number.
    """

    def __init__(self, clock: Callable[[], float], period: float = 5.0) -> None:
        super().__init__()
        self._clock = clock
        self._period = period
        self._last: dict[object, float] = {}
        self._suppressed: dict[object, int] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        kind = getattr(record, "kind", None)
        if kind is None:
            return True
        now = self._clock()
        last = self._last.get(kind)
        if last is not None and now - last < self._period:
            self._suppressed[kind] = self._suppressed.get(kind, 0) + 1
            return False
        self._last[kind] = now
        suppressed = self._suppressed.pop(kind, 0)
        if suppressed:
            record.suppressed = suppressed
        return True


class TextFormatter(logging.Formatter):
    """``2026-11-03 14:05:06.789 INFO    trio_hub.hub: engine 3 registered``, in local time."""

    def format(self, record: logging.LogRecord) -> str:
        time = datetime.fromtimestamp(record.created).isoformat(" ", "milliseconds")
        message = record.getMessage().translate(_CONTROLS)
        suppressed = getattr(record, "suppressed", 0)
        if suppressed:
            message += f" (and {suppressed} more of this kind before)"
        line = f"{time} {record.levelname:<7} {record.name}: {message}"
        return f"{line}\n{self.formatException(record.exc_info)}" if record.exc_info else line


class JsonFormatter(logging.Formatter):
    """A line of JSON an event: ``time`` (UTC), ``level``, ``logger``, ``message``, and every ``extra``."""

    def format(self, record: logging.LogRecord) -> str:
        event: dict[str, object] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        event |= {name: value for name, value in vars(record).items() if name not in _USUAL and name not in event}
        if record.exc_info:
            event["exception"] = self.formatException(record.exc_info)
        return json.dumps(event, default=str)
