"""Which results an earlier hub may have sent already, and which of them their clients ask for all the same.

A stock client stumbles over a result that it gets twice. So a result that the hub before has noted as sent is not sent
again, unless its client asks for it: then the hub before was killed before the result had left.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import Enum

from ..store.record import TaskRecord
from .ports import Deliveries

__all__ = ["Presumption", "Redelivery"]


class Presumption(Enum):
    """What is thought of the result of a request that was taken over, and that the hub before has noted as sent."""

    SENT = "sent"
    """The client has the result: nobody waits for it."""
    MISSED = "missed"
    """The client has asked for it, so the result had not left: the client gets it."""
    SENT_AGAIN = "sent again"
    """This hub has sent it, since the client asked."""


class Redelivery:
    """Knows what was sent, and tells to whom a result goes.

    Args:
        deliveries: notes which results were sent; None where no hub can come after this one.
    """

    def __init__(self, deliveries: Deliveries | None) -> None:
        self._deliveries = deliveries
        self.keeps_notes = deliveries is not None
        """Whether notes outlive this hub. If not, nothing that is noted matters."""
        self.presumptions: dict[str, Presumption] = {}
        """By msg_id."""
        self.sessions: dict[str, str] = {}
        """The sessions of the clients of those that are presumed to be sent and not completed in the records."""

    def note(self, msg_id: str) -> None:
        """A result is on its way to its client."""
        if self._deliveries is not None:
            self._deliveries.note(msg_id)

    def was_delivered(self, msg_id: str) -> bool:
        """Whether the hub before has noted this result as sent."""
        return self._deliveries is not None and self._deliveries.was_delivered(msg_id)

    def presume_sent(self, msg_id: str, session: str) -> None:
        """A request is taken over whose result the hub before has sent, and not recorded."""
        self.presumptions[msg_id] = Presumption.SENT
        self.sessions[msg_id] = session

    def asked_about(self, session: str, msg_ids: Iterable[str]) -> None:
        """A client asks about requests that are not completed: it does not have the results of its own."""
        for msg_id in msg_ids:
            if self.sessions.get(msg_id) == session:
                self.presumptions[msg_id] = Presumption.MISSED

    def is_missed(self, msg_id: str) -> bool:
        """Whether a result that goes out now was missed by its client, which gets it, once. Call it once a result."""
        if msg_id not in self.sessions:
            return False
        del self.sessions[msg_id]
        if self.presumptions.pop(msg_id) is Presumption.SENT:
            return False
        self.presumptions[msg_id] = Presumption.SENT_AGAIN
        return True

    def take_missed(self, session: str, records: Iterable[TaskRecord]) -> list[str]:
        """A client asks whether these are completed: those of its own results that are to be sent to it, once more.

        The hub before may have noted that it sent one, and been killed before the result left.
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
