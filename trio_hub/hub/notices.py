"""Counts and logs unreadable messages, ignored messages and internal errors, and passes on events."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from ..errors import HubError, WireError
from ..logs import get_logger
from ..wire.messages import Header
from .events import Event

if TYPE_CHECKING:
    from .ports import Host

__all__ = ["Notices"]

log = get_logger("trio_hub.hub")

ORDINARY = frozenset({"client_gone", "late_result", "other_engine", "unknown_engine"})
"""Reasons to ignore a message that are normal when clients and engines leave; they are logged at level DEBUG."""


class Notices:
    """Counts, logs, and passes on events. No method raises, so a report never disturbs the work that it reports.

    Args:
        host: passes on events to observers.
    """

    def __init__(self, host: Host) -> None:
        self._host = host
        self.wire_errors: Counter[str] = Counter()
        """Messages that could not be read, by kind."""
        self.ignored: Counter[str] = Counter()
        """Readable messages that changed nothing, by reason."""
        self.internal_errors: Counter[str] = Counter()
        """Unexpected exceptions, by the place in the hub at which they were caught."""

    def unreadable(self, channel: str, error: WireError, **fields: Any) -> None:
        """Count bytes that are not a message; nothing else changes. `fields` are for the log."""
        self.wire_errors[error.kind] += 1
        log.warning("dropped unreadable data", kind=error.kind, channel=channel, error=error, **fields)

    def ignore(self, reason: str, what: str, *, ordinary: bool = False, **fields: Any) -> None:
        """Count and log a readable message that has no effect.

        Args:
            reason: the name of the counter.
            what: the message, in words.
            ordinary: whether nobody can or need do anything about this message, so that a warning would be noise. The
                reasons in `ORDINARY` are always ordinary.
            fields: for the log.
        """
        self.ignored[reason] += 1
        level = logging.DEBUG if ordinary or reason in ORDINARY else logging.WARNING
        log.log(level, "ignored a message", kind=reason, what=what, **fields)

    def failed(self, place: str, error: Exception, **fields: Any) -> HubError:
        """Count and log an unexpected exception, and return the error with which to answer the request.

        Args:
            place: the hub's activity; one of a small set of names, since it labels a counter.
            error: the exception, whose traceback is logged.
            fields: name the message or request that was being handled, for the log.
        """
        self.internal_errors[place] += 1
        name = type(error).__name__
        log.error(
            "an unexpected error: the hub gives up this message or request, and goes on",
            kind="internal_error",
            place=place,
            error=f"{name}: {error}",
            exc_info=error,
            **fields,
        )
        text = f"the hub failed at {place}: {name}: {error}"[:1000]
        return HubError(text.encode("utf-8", "replace").decode())  # a text that every packer can write

    def client_did(self, kind: Callable[..., Event], header: Header, *what: Any) -> None:
        """Tell the observers, if there are any, what a client has asked for and the hub has begun or done.

        Args:
            kind: the type of the event, whose last arguments are the session and the user of the client.
            header: the header of the client's request.
            what: the first arguments of the event.
        """
        if self._host.listening:
            self.tell(kind(*what, header.session, header.user))

    def tell(self, event: Event) -> None:
        """Pass an event to the host. Call this only while the host is listening."""
        try:
            self._host.emit(event)
        except Exception as error:
            self.failed("event", error)
