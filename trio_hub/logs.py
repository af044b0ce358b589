"""How everything here logs: a message that is always the same text, and what varies as fields beside it.

``log.info("engine registered", engine=3, uuid="…")`` makes a record whose message can be counted and searched for, and
whose fields are its attributes, as ``extra`` of the standard library would make them: any handler can show them. No
handler is set up here; that is for the command, or for whoever embeds a hub.

Field names and levels are told, and checked, in the reference of the documentation.
"""

from __future__ import annotations

import logging
from collections.abc import MutableMapping
from typing import Any

__all__ = ["FieldLogger", "get_logger"]

_OPTIONS = ("exc_info", "stack_info", "stacklevel")


class FieldLogger(logging.LoggerAdapter[logging.Logger]):
    """A logger whose keyword arguments are fields of the record. A field that is None is left out."""

    def process(self, msg: Any, kwargs: MutableMapping[str, Any]) -> tuple[Any, MutableMapping[str, Any]]:
        options = {name: kwargs.pop(name) for name in _OPTIONS if name in kwargs}
        options["extra"] = {name: _shown(value) for name, value in kwargs.items() if value is not None}
        return msg, options


def _shown(value: object) -> object:
    """Identities are bytes on the wire, and nearly always text."""
    return value.decode("utf-8", "backslashreplace") if isinstance(value, bytes) else value


def get_logger(name: str) -> FieldLogger:
    return FieldLogger(logging.getLogger(name), {})
