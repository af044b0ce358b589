"""Answers to requests: how results and errors reach clients and records. Shared by all queues."""

from __future__ import annotations

from functools import partial
from typing import Any

from ..errors import EngineError, HubError, TaskAborted, WireError
from ..logs import get_logger
from ..store.record import TaskRecord
from ..wire.frames import Frames, to_bytes
from ..wire.messages import Message, ResultMetadata, error_content
from .custody import AWAY, Custody, reply_frames
from .events import TaskFinished
from .records import record_of_result
from .registration import Registration
from .state import queue_of, reply_type

__all__ = ["STOPPED", "Answering", "no_such_engine"]

STOPPED = "the hub has been stopped"
OWED_AT_A_TIME = 100
"""Results that are read from the store at a time for a client that has come back."""

log = get_logger("trio_hub.hub")


class Answering(Registration):
    """The part of the hub that knows how to answer a request, and to record that."""

    def _is_duplicate(self, msg: Message) -> bool:
        """Whether a request reuses the msg_id of one that is not answered yet: that one's answer will do."""
        if not self.is_pending(msg.header.msg_id):
            return False
        self.ignore(
            "duplicate_msg_id", "the request is pending already", task=msg.header.msg_id, client=msg.header.session
        )
        return True

    def _result_metadata(self, msg: Message) -> ResultMetadata:
        try:
            return self.session.result_metadata(msg)
        except WireError as error:
            # The client waits for this reply, so it goes on all the same, as a failure.
            self.unreadable("result metadata", error, task=msg.parent.msg_id)
            return ResultMetadata(status="error")

    def _status_in_content(self, msg: Message) -> str:
        try:
            status = self.session.content(msg).get("status")
        except WireError as error:
            self.unreadable("result content", error, task=msg.parent.msg_id)
            return "error"
        return status if isinstance(status, str) else "error"

    def _save_result(
        self, queue: str, ident: bytes, msg: Message, msg_id: str, raw_header: bytes, started: str | None, status: str
    ) -> None:
        engine = self.by_ident.get(ident)
        if engine is not None and status != "aborted":
            engine.completed += 1
        uuid = self._record_result(ident, msg, msg_id, raw_header, started)
        self._count(queue, msg_id, status, uuid, msg.frames)

    def _record_result(self, ident: bytes, msg: Message, msg_id: str, raw_header: bytes, started: str | None) -> str:
        uuid = ident.decode("utf-8", "replace")
        try:
            changes = record_of_result(msg, self.session.packer, engine_uuid=uuid, started=started, now=self.now())
        except WireError as error:
            self.unreadable("result", error, task=msg_id, uuid=uuid)
            content = self.session.packer.to_json(self.session.packer.pack(error_content("WireError", str(error))))
            changes = {"completed": self.now(), "received": self.now(), "result_content": content}
        if self.store.durable:
            parent = to_bytes(msg.frames[3])  # as the engine has written it
            changes["custody"] = None if parent == raw_header else Custody(parent=parent).pack()
        self.store.update(msg_id, changes)
        return uuid

    def _deliver(self, channel: str, idents: list[bytes], session: str, msg_id: str, frames: Frames) -> None:
        """Send a client the answer to a request that is recorded, now or, in a strict hub, when it is on disk."""
        if self.strict:
            self.unsaved.add(msg_id)
            self.store.after_commit(partial(self._deliver_saved, channel, idents, session, msg_id, frames))
        else:
            self.host.soon(partial(self._deliver_now, channel, idents, session, msg_id, frames))

    def _deliver_saved(self, channel: str, idents: list[bytes], session: str, msg_id: str, frames: Frames) -> None:
        self.unsaved.discard(msg_id)
        self._deliver_now(channel, idents, session, msg_id, frames)

    def _deliver_now(self, channel: str, idents: list[bytes], session: str, msg_id: str, frames: Frames) -> None:
        self.presumed.pop(msg_id, None)
        if msg_id in self.missed:
            self.missed.discard(msg_id)
            self.sent_again.add(msg_id)
            idents = [AWAY]
        if not idents:  # nobody waits for it: the hub itself has resubmitted the task, or the client has had the result
            sent = True
        else:
            sent = self.host.send(channel, [*idents, *frames]) or any(
                self.host.send(other, [place, *idents[1:], *frames])
                for other, place in self.clients.places(session, channel)
                if (other, place) != (channel, idents[0])
            )
        if sent:
            if self.deliveries is not None:
                self.deliveries.note(msg_id)
        else:
            self.ignore("client_gone", "the answer waits for its client, which is away", task=msg_id, client=session)
            self.owe(session, msg_id)

    def owe(self, session: str, msg_id: str) -> None:
        """A client is away: its result waits for it, here and in the hubs that come after."""
        self.clients.owe(session, msg_id)
        if self.store.durable:
            self.store.update(msg_id, {"owed": True})

    def heard_of(self, channel: str, idents: list[bytes], session: str) -> None:
        """A client has spoken: note where it is, and deliver what it is owed."""
        if idents and self.clients.heard(session, channel, idents[0]):
            self._deliver_owed(channel, idents[0], session, self.clients.settle(session))

    def _deliver_owed(self, channel: str, ident: bytes, session: str, msg_ids: list[str]) -> None:
        now, later = msg_ids[:OWED_AT_A_TIME], msg_ids[OWED_AT_A_TIME:]

        def deliver(answer: Any) -> None:
            records: dict[str, TaskRecord] = {} if isinstance(answer, Exception) else answer
            left = msg_ids if isinstance(answer, Exception) else later
            for place, msg_id in enumerate(now):
                record = records.get(msg_id)
                if record is None or record.completed is None:
                    continue  # it has been purged meanwhile, or is being run again
                try:
                    frames = reply_frames(record, self.session)
                except WireError as error:
                    self.unreadable("record", error, task=msg_id, client=session)
                    continue
                if not self.host.send(channel, [ident, *frames]):
                    left = msg_ids[place:]
                    break
                if self.deliveries is not None:
                    self.deliveries.note(msg_id)
                if record.owed:
                    self.store.update(msg_id, {"owed": False})
            else:
                if left is later and later:
                    self._deliver_owed(channel, ident, session, later)
                    return
            for msg_id in left:
                self.clients.owe(session, msg_id)

        self.host.ask_store(lambda store: store.get(now), deliver)

    def _refuse(self, channel: str, idents: list[bytes], msg: Message, error: HubError) -> None:
        """Answer with an error a request that was never recorded."""
        if isinstance(error, WireError):
            self.unreadable(channel, error, task=msg.header.msg_id, client=msg.header.session)
        content = error_content(type(error).__name__, str(error))
        frames = self.session.write(
            reply_type(msg.header.msg_type), content, parent=msg.frames[2], metadata={"status": "error"}
        )
        self._send_back(channel, idents, frames)

    def _send_back(self, channel: str, idents: list[bytes], frames: Frames) -> None:
        """Send a client what is not recorded."""
        if not idents:  # the hub itself has asked
            return
        if not self.host.send(channel, [*idents, *frames]):
            self.ignore("client_gone", "a reply for a client that has disconnected", channel=channel)

    def _answer_with_error(
        self,
        channel: str,
        idents: list[bytes],
        session: str,
        msg_id: str,
        raw_header: bytes,
        msg_type: str,
        engine_uuid: str | None,
        error: HubError,
        **metadata: Any,
    ) -> None:
        """Answer with an error a request that is recorded, and record the answer. One that is aborted has no error."""
        status = "aborted" if isinstance(error, TaskAborted) else "error"
        metadata |= {"status": status, "date": self.now().isoformat()}
        if engine_uuid is not None:
            metadata["engine"] = engine_uuid
        content = error_content(type(error).__name__, str(error)) if status == "error" else {"status": status}
        frames = self.session.write(reply_type(msg_type), content, parent=raw_header, metadata=metadata)
        log.debug("request failed without a result", task=msg_id, client=session, uuid=engine_uuid, error=error)
        self._answer(channel, idents, session, msg_id, frames, status, engine_uuid)

    def _answer(
        self,
        channel: str,
        idents: list[bytes],
        session: str,
        msg_id: str,
        frames: Frames,
        status: str,
        engine_uuid: str | None,
        **changes: Any,
    ) -> None:
        """Answer a request that is recorded with a message of the hub's own, and record the answer."""
        now = self.now()
        to_json = self.session.packer.to_json
        changes |= {
            "result_header": to_json(to_bytes(frames[2])),
            "result_metadata": to_json(to_bytes(frames[4])),
            "result_content": to_json(to_bytes(frames[5])),
            "result_buffers": tuple(frames[6:]),
            "completed": now,
            "received": now,
            "engine_uuid": engine_uuid,
        }
        if self.store.durable:
            changes["custody"] = Custody(parent=to_bytes(frames[3])).pack()
        self.store.update(msg_id, changes)
        self._count(queue_of(channel.removesuffix("_in")), msg_id, status, engine_uuid, frames)
        self._deliver(channel, idents, session, msg_id, frames)

    def _count(self, queue: str, msg_id: str, status: str, engine_uuid: str | None, reply: Frames) -> None:
        outcomes = self.outcomes[queue]
        outcomes[status if status in outcomes else "error"] += 1
        if self.host.listening:
            ename, evalue = ("", "") if status in ("ok", "aborted") else self.session.error_in(reply)
            self.host.emit(TaskFinished(msg_id, engine_uuid, status, ename, evalue))


def no_such_engine(idents: list[bytes]) -> EngineError:
    if len(idents) < 2:
        return EngineError("the message names no engine")
    return EngineError(f"Engine {idents[1].decode('utf-8', 'replace')} is not registered (any more)")
