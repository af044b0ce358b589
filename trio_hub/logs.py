"""Logging: each log message is a constant text, and the values that vary are fields of the log record.

``log.info("engine registered", engine=3, uuid="…")`` makes a log record whose message is easy to count and to search
for. The fields are attributes of the log record, like those of ``extra`` in the standard library, so any handler can
show them. This module sets up no handler. The command does, or the program that embeds a hub.

docs/reference/logs.md lists all field names and levels; a test compares it with the code.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import MutableMapping
from typing import Any

__all__ = ["FieldLogger", "get_logger", "recent_lines"]

recent_lines: deque[str] = deque(maxlen=200)
"""The last lines of the log, for reports. Only the command fills it; in a program that embeds a hub, it stays empty."""

_OPTIONS = ("exc_info", "stack_info", "stacklevel")


class FieldLogger(logging.LoggerAdapter[logging.Logger]):
    """A logger whose keyword arguments become fields of the log record. A field that is None is left out."""

    def process(self, msg: Any, kwargs: MutableMapping[str, Any]) -> tuple[Any, MutableMapping[str, Any]]:
        options = {name: kwargs.pop(name) for name in _OPTIONS if name in kwargs}
        options["extra"] = {name: _shown(value) for name, value in kwargs.items() if value is not None}
        return msg, options


def _shown(value: object) -> object:
    # identities of engines are bytes, and nearly always text
    return value.decode("utf-8", "backslashreplace") if isinstance(value, bytes) else value


def get_logger(name: str) -> FieldLogger:
    return FieldLogger(logging.getLogger(name), {})
