"""The engine's log: lines in the form of the hub's log, in the process's original error output or in a file."""

from __future__ import annotations

import json
import logging
import os
from datetime import datetime
from typing import TextIO

from .address import profile_directory
from .options import EngineOptions

__all__ = ["quiet_logger", "set_up_logs"]

_USUAL = frozenset(logging.makeLogRecord({}).__dict__) | {"message", "asctime", "taskName"}


def set_up_logs(options: EngineOptions, stream: TextIO) -> TextIO:
    """Log to the stream, or, with ``--log-to-file``, to a file in the profile. Return where the log goes."""
    if options.log_to_file:
        directory = profile_directory(options) / "log"
        directory.mkdir(parents=True, exist_ok=True)
        name = "-".join(filter(None, ("ipengine", options.cluster_id, f"{os.getpid()}.log")))
        stream = (directory / name).open("w", encoding="utf-8", buffering=1)
    handler = logging.StreamHandler(stream)
    handler.setFormatter(_Lines())
    logger = logging.getLogger("trio_hub")
    logger.addHandler(handler)
    logger.setLevel(options.log_level)
    logger.propagate = False
    return stream


def quiet_logger() -> logging.Logger:
    """Return the logger for ipykernel, which would log each message, and each error of user code."""
    logger = logging.getLogger("trio_hub.ipython")
    logger.setLevel(logging.WARNING)
    return logger


class _Lines(logging.Formatter):
    """Format each log record as one line: time, level, logger, message, and fields. A traceback adds further lines."""

    def format(self, record: logging.LogRecord) -> str:
        time = datetime.fromtimestamp(record.created).isoformat(" ", "milliseconds")
        fields = [f"{name}={_shown(value)}" for name, value in record.__dict__.items() if name not in _USUAL]
        text = " ".join([f"{time} {record.levelname:7} {record.name}: {record.getMessage()}", *fields])
        return f"{text}\n{self.formatException(record.exc_info)}" if record.exc_info else text


def _shown(value: object) -> str:
    """Return a value as text without line breaks; in double quotes if it has spaces or the like."""
    text = str(value)
    return text if text.isprintable() and not {*' "'} & {*text} else json.dumps(text)
