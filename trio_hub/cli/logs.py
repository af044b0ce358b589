"""Logging of a command: to stderr, for people or for programs, with a limit on repeated messages."""

from __future__ import annotations

import json
import logging
import os
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from textwrap import indent
from time import monotonic
from typing import TextIO

from ..logs import recent_lines

__all__ = ["JournalFormatter", "JsonFormatter", "KindLimit", "RecentLines", "TextFormatter", "set_up_logs"]

MESSAGE, VALUE, TRACEBACK = 2_000, 2_000, 12_000
"""The maximum number of characters of a message, of a field and of a traceback."""

_USUAL = {*vars(logging.makeLogRecord({})), "message", "asctime", "taskName"}
_CUT = "… {} more characters …"
# Log lines may contain text from the network. These escapes keep it from forging lines, controlling a terminal, or
# reversing the direction of text.
_CONTROLS = {code: f"\\x{code:02x}" for code in (*range(0x20), *range(0x7F, 0xA0))}
_CONTROLS |= {code: f"\\u{code:04x}" for code in (*range(0x2028, 0x202F), *range(0x2066, 0x206A))}
_CONTROLS |= {ord("\n"): "\\n", ord("\t"): "\\t"}
_IN_TRACEBACKS = {code: shown for code, shown in _CONTROLS.items() if code != ord("\n")}
_BARE = re.compile(r"[^\s\"=\\]+")
_PASSWORDS = ((re.compile(r"(://[^/\s:@]*:)[^/\s]+@"), r"\1***@"), (re.compile(r"(password=)[^&\s]+", re.I), r"\1***"))
# The priorities of lines on stderr for the journal, see sd-daemon(3).
_PRIORITIES = ((logging.CRITICAL, 2), (logging.ERROR, 3), (logging.WARNING, 4), (logging.INFO, 6), (0, 7))


def set_up_logs(level: str, form: str, environ: Mapping[str, str] = os.environ) -> None:
    """Log to stderr, in the form ``text`` or ``json``.

    Messages of trio_hub are logged from `level` up, messages of other packages from warnings up. If stderr leads to
    systemd's journal, each line begins with its priority.
    """
    handler = logging.StreamHandler()
    formatter = JsonFormatter() if form == "json" else TextFormatter()
    handler.setFormatter(JournalFormatter(formatter) if _is_journal(sys.stderr, environ) else formatter)
    handler.addFilter(KindLimit(monotonic))
    recent = RecentLines()
    recent.setFormatter(TextFormatter())
    recent.addFilter(KindLimit(monotonic))
    logging.basicConfig(handlers=[handler, recent], level=logging.WARNING, force=True)
    logging.getLogger("trio_hub").setLevel(level.upper())


class RecentLines(logging.Handler):
    """Keeps the last lines of the log in memory, in `trio_hub.logs.recent_lines`."""

    def emit(self, record: logging.LogRecord) -> None:
        recent_lines.append(self.format(record))


class KindLimit(logging.Filter):
    """Passes at most one log record of each kind in `period` seconds.

    The kind of a record is its field ``kind``. Records without it always pass. Records about received messages have
    it, so that a peer that sends garbage in a loop cannot fill the disk. The field ``suppressed`` of the next record
    that passes is the number of records that were dropped before it.
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
    """``2026-11-03 14:05:06.789 INFO    trio_hub.hub: engine registered engine=3 uuid=…``, in local time.

    A record is one line. A traceback follows on lines of its own; only these are indented.
    """

    def format(self, record: logging.LogRecord) -> str:
        time = datetime.fromtimestamp(record.created).isoformat(" ", "milliseconds")
        words = [f"{time} {record.levelname:<7} {record.name}:", _message(record)]
        words += [f"{name}={_quoted(_text(value, VALUE))}" for name, value in _fields(record)]
        line = " ".join(words).translate(_CONTROLS)
        if details := self._details(record):
            line += "\n" + indent(details.translate(_IN_TRACEBACKS), "    ")
        return line.encode("utf-8", "backslashreplace").decode()  # UTF-8 has no form for lone surrogates

    def _details(self, record: logging.LogRecord) -> str:
        found = [self.formatException(record.exc_info)] if record.exc_info else []
        found += [record.stack_info] if record.stack_info else []
        return _text("\n".join(found), TRACEBACK)


class JsonFormatter(TextFormatter):
    """One line of JSON per record: ``ts`` (UTC), ``level``, ``logger``, ``message``, every field, ``exception``."""

    def format(self, record: logging.LogRecord) -> str:
        time = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        event: dict[str, object] = {
            "ts": time.removesuffix("+00:00") + "Z",
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": _message(record),
        }
        for name, value in _fields(record):
            event.setdefault(name, value if _is_plain(value) else _text(value, VALUE))
        if details := self._details(record):
            event["exception"] = details
        return json.dumps(event)


class JournalFormatter(logging.Formatter):
    """The output of another formatter with the priority before each line. The journal reads and removes it."""

    def __init__(self, form: logging.Formatter) -> None:
        super().__init__()
        self._form = form

    def format(self, record: logging.LogRecord) -> str:
        priority = next(priority for level, priority in _PRIORITIES if record.levelno >= level)
        return indent(self._form.format(record), f"<{priority}>", lambda line: True)


def _is_journal(stream: TextIO | None, environ: Mapping[str, str]) -> bool:
    """Return whether a stream leads to the journal.

    JOURNAL_STREAM contains the device and inode number of the journal's stream, see systemd.exec(5).
    """
    if stream is None:
        return False
    with suppress(OSError, ValueError):  # the stream is closed, or is not a file
        found = os.fstat(stream.fileno())
        return environ.get("JOURNAL_STREAM") == f"{found.st_dev}:{found.st_ino}"
    return False


def _message(record: logging.LogRecord) -> str:
    try:
        message = record.getMessage()
    except Exception:  # a message of another package whose arguments do not fit
        message = f"{record.msg!r} of {record.args!r}"
    return _text(message, MESSAGE)


def _fields(record: logging.LogRecord) -> Iterator[tuple[str, object]]:
    return ((str(name), value) for name, value in vars(record).items() if name not in _USUAL)


def _is_plain(value: object) -> bool:
    """Return whether a value can be written as JSON in a form that every reader accepts."""
    if isinstance(value, float):
        return value - value == 0  # false for infinities and NaN
    return value is None or isinstance(value, bool) or (type(value) is int and abs(value) < 2**63)


def _text(value: object, limit: int) -> str:
    """Return a value as text, without passwords in URLs. The middle of a text longer than `limit` is cut out."""
    try:
        text = str(value)
    except Exception as error:  # a field that cannot be shown must not prevent the log line
        return f"<{type(value).__name__} that cannot be shown: {type(error).__name__}>"
    for pattern, instead in _PASSWORDS:
        text = pattern.sub(instead, text)
    if len(text) > limit:
        return f"{text[: limit // 2]}{_CUT.format(len(text) - limit)}{text[len(text) - limit // 2 :]}"
    return text


def _quoted(text: str) -> str:
    return text if _BARE.fullmatch(text) else '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'
