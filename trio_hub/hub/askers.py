"""The persons and programs that ask for a change, as the log, events and errors name them."""

from __future__ import annotations

from typing import Any

from ..wire.messages import Message
from ..wire.plain import printable

__all__ = ["named", "who_asks"]

MAX_BY = 200
"""The maximum length, in characters, of the text that says who asks for a change. A longer text is cut off."""


def who_asks(content: dict[str, Any], msg: Message) -> str:
    """Return who asks for something: as the content says, else the user, if the client names one, and its session."""
    by = content.get("by")
    if isinstance(by, str) and by:
        return by
    user = msg.header.user
    return f"{user}, client {msg.header.session}" if user else f"client {msg.header.session}"


def named(by: str) -> str:
    """Return the text that says who asks for a change, cut off, and without characters that cannot be printed."""
    return printable(by[:MAX_BY])
