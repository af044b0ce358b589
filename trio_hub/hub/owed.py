"""Owed results: results that could not be sent, since their clients were away."""

from __future__ import annotations

from typing import Any

from ..errors import HubError, StoreError, WireError
from ..records import Store
from ..records.record import TaskRecord
from ..schedulers.broadcast import Broadcast
from ..schedulers.unanswered import Direct
from ..wire.frames import Frames
from ..wire.messages import Session, error_content
from .changes import EngineChanges
from .clients import Clients
from .custody import reply_frames
from .notices import Notices
from .ports import Host
from .redelivery import Redelivery

__all__ = ["OwedResults"]

OWED_AT_A_TIME = 100
"""The maximum number of results that are read from the store in one call for a client that has come back."""


class OwedResults:
    """Keeps results for clients that are away, and sends them when the clients are heard again.

    Args:
        host, session, store: access to clients and records.
        notices: counts and logs errors.
        redelivery: knows which results an earlier hub has sent already.
        changes: knows which clients are told that an engine has left.
    """

    def __init__(
        self,
        host: Host,
        session: Session,
        store: Store,
        notices: Notices,
        redelivery: Redelivery,
        changes: EngineChanges,
    ) -> None:
        self._host = host
        self._session = session
        self._now = session.now
        self._durable = store.durable
        self._update = store.update
        self._notices = notices
        self._redelivery = redelivery
        self._settles_itself = changes.settles_itself
        self.clients = Clients()

    def owe(self, session: str, msg_id: str) -> None:
        """Note that a result waits for its client, which is away; also for later hubs. Never raises."""
        self.clients.owe(session, msg_id)
        if self._durable:
            try:
                self._update(msg_id, {"owed": True})
            except Exception as error:
                self._notices.failed("owed result", error, task=msg_id, client=session)

    def leave_to_client(self, request: Direct | Broadcast) -> None:
        """Send no answer to a request if its client settles it itself when told that the engine has left.

        See `EngineChanges.settles_itself`. Any other client is answered. A second answer would make a stock client
        print "got stale result" with the whole message. But a client whose connections are broken at this time may
        never be told. So the client is owed the answer if it comes back on a new connection soon.
        """
        if request.idents and self._settles_itself(request.header):
            self.clients.presume_settled(request.header.session, request.header.msg_id, self._now())
            request.idents = []

    def settled(self, msg_id: str) -> None:
        """Note in the record, for later hubs, that a result is no longer owed. Never raises."""
        try:
            self._update(msg_id, {"owed": False})
        except Exception as error:
            self._notices.failed("owed result", error, task=msg_id)

    def drop(self, session: str) -> list[str]:
        """Give up the results that are owed to a client, and return their msg_ids. Their records stay. Never raises.

        The caller notes in the records that the results are `settled`.
        """
        return self.clients.settle(session)

    def heard_of(self, channel: str, idents: list[bytes], session: str) -> None:
        """Note the identity from which a client speaks, and send the results that are owed to it."""
        if idents and self.clients.heard(session, channel, idents[0], self._now):
            self.deliver_owed(channel, idents[0], session, self.clients.settle(session))

    def asked_about(self, session: str, records: list[TaskRecord]) -> None:
        """Send a client, which asks whether these requests are completed, the results that it has missed."""
        missed = set(self._redelivery.take_missed(session, records))
        for record in records:
            if record.msg_id in missed:
                self.clients.owe(session, record.msg_id)
                for channel, place in self.clients.places(session, f"{record.queue}_in")[:1]:
                    self.deliver_owed(channel, place, session, self.clients.settle(session))

    def deliver_owed(self, channel: str, ident: bytes, session: str, msg_ids: list[str]) -> None:
        """Send a client results from the store. Results that cannot be sent are owed again. Never raises."""
        now, later = msg_ids[:OWED_AT_A_TIME], msg_ids[OWED_AT_A_TIME:]

        def deliver(answer: Any) -> None:
            records: dict[str, TaskRecord] = {} if isinstance(answer, Exception) else answer
            left = list(msg_ids) if isinstance(answer, Exception) else list(later)
            for place, msg_id in enumerate(now):
                record = records.get(msg_id)
                if record is None or record.completed is None:
                    continue  # it has been purged meanwhile, or is being run again
                if not self._send_recorded(channel, ident, session, record):
                    left = msg_ids[place:]
                    break
            else:
                if left and not isinstance(answer, Exception):
                    self.deliver_owed(channel, ident, session, left)
                    return
            for msg_id in left:
                self.clients.owe(session, msg_id)

        try:
            self._host.ask_store(lambda store: store.fetch(now), deliver)
        except Exception as error:
            self._notices.failed("owed results", error, client=session)
            for msg_id in msg_ids:
                self.clients.owe(session, msg_id)

    def _send_recorded(self, channel: str, ident: bytes, session: str, record: TaskRecord) -> bool:
        """Send a client a result from its record, if the record can be read. False if the client cannot be reached."""
        msg_id = record.msg_id
        try:
            try:
                frames = reply_frames(record, self._session)
            except WireError as error:
                self._notices.unreadable("record", error, task=msg_id, client=session)
                return True
            except StoreError as error:  # its buffers are lost
                frames = self._error_for(record, error)
            except Exception as error:  # send an error instead, so that it does not block the other results for ever
                frames = self._error_for(record, self._notices.failed("owed result", error, task=msg_id))
            if not self._host.send(channel, [ident, *frames]):
                return False
        except Exception as error:
            self._notices.failed("owed result", error, task=msg_id, client=session)
            return False
        self._redelivery.note(msg_id)
        if record.owed:
            self.settled(msg_id)
        return True

    def _error_for(self, record: TaskRecord, error: HubError) -> Frames:
        session = self._session
        request = {"msg_id": record.msg_id, "msg_type": "apply_request", "session": record.client_uuid or ""}
        content = error_content(type(error).__name__, str(error))
        return session.write("apply_reply", content, parent=session.packer.pack(request), metadata={"status": "error"})
