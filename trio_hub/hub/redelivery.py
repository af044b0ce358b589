"""Redelivery: decides whether a result that an earlier hub has noted as sent is sent again.

A stock client fails when it gets a result twice. So such a result is not sent again, unless its client asks for it:
then the earlier hub ended before the result had left.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import Enum

from ..records.record import TaskRecord
from .ports import SentResults

__all__ = ["Presumption", "Redelivery"]


class Presumption(Enum):
    """What the hub assumes about a result that the previous hub has noted as sent."""

    SENT = "sent"
    """The client has the result, and does not wait for it."""
    MISSED = "missed"
    """The client has asked for the result, so it had not left: the client gets it."""
    SENT_AGAIN = "sent again"
    """This hub has sent the result again, since the client has asked for it."""


class Redelivery:
    """Knows which results were sent, and which results clients have missed.

    Args:
        sent_results: notes which results were sent; None if no hub can come after this hub.
    """

    def __init__(self, sent_results: SentResults | None) -> None:
        self._sent_results = sent_results
        self.keeps_notes = sent_results is not None
        """Whether notes outlive this hub. If not, no result needs to be noted."""
        self.presumptions: dict[str, Presumption] = {}
        """The presumption about each result, by msg_id."""
        self.sessions: dict[str, str] = {}
        """The client's session of each result that is presumed sent and is not in its record, by msg_id."""

    def note(self, msg_id: str) -> None:
        """Note that a result was sent to its client."""
        if self._sent_results is not None:
            self._sent_results.note(msg_id)

    def was_delivered(self, msg_id: str) -> bool:
        """Return whether the previous hub has noted this result as sent."""
        return self._sent_results is not None and self._sent_results.was_delivered(msg_id)

    def presume_sent(self, msg_id: str, session: str) -> None:
        """Note a request whose result the previous hub has sent but not recorded."""
        self.presumptions[msg_id] = Presumption.SENT
        self.sessions[msg_id] = session

    def asked_about(self, session: str, msg_ids: Iterable[str]) -> None:
        """Note that a client asks about pending requests: it has missed the results of its own requests among them."""
        for msg_id in msg_ids:
            if self.sessions.get(msg_id) == session:
                self.presumptions[msg_id] = Presumption.MISSED

    def is_missed(self, msg_id: str) -> bool:
        """Return whether the client has missed a result that goes out now. Call this once per result."""
        if msg_id not in self.sessions:
            return False
        del self.sessions[msg_id]
        if self.presumptions.pop(msg_id) is Presumption.SENT:
            return False
        self.presumptions[msg_id] = Presumption.SENT_AGAIN
        return True

    def take_missed(self, session: str, records: Iterable[TaskRecord]) -> list[str]:
        """Return the msg_ids of the results that are to be sent again to a client that asks about these records.

        These are the client's own results that the previous hub has noted as sent: it may have ended before they left.
        """
        missed = []
        for record in records:
            msg_id = record.msg_id
            if record.client_uuid != session or self.presumptions.get(msg_id) is Presumption.SENT_AGAIN:
                continue
            if self.was_delivered(msg_id):
                self.presumptions[msg_id] = Presumption.SENT_AGAIN
                missed.append(msg_id)
        return missed
