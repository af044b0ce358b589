"""Answers to recorded requests: writes results and errors to the records, and sends them to the clients."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from functools import partial
from typing import Any

import msgspec

from ..errors import HubError, TaskAborted, TaskCancelled, WireError
from ..logs import get_logger
from ..records import Store
from ..schedulers.broadcast import Broadcast
from ..schedulers.unanswered import Direct
from ..wire.frames import Frames, to_bytes
from ..wire.messages import Message, ResultMetadata, Session, error_content
from .custody import AWAY, Custody
from .events import TaskFinished
from .notices import Notices
from .owed import OwedResults
from .ports import Host
from .records import record_of_result
from .redelivery import Redelivery
from .replies import reply_type

__all__ = ["OUTCOMES", "QUEUES", "Answers", "Asked", "queue_of"]

QUEUES = ("task", "mux", "broadcast")
"""The queues whose requests are recorded and counted."""
OUTCOMES = ("ok", "error", "aborted")
"""The statuses with which a request can end. Any other status in a reply counts as an error."""

_IDLE = {"execution_state": "idle"}

log = get_logger("trio_hub.hub")


class Asked(msgspec.Struct, frozen=True, gc=False):
    """The facts about a request that are needed to answer it.

    ``channel`` is the client's, such as ``"task_in"``, and ``idents`` are the client's routing identities; empty if
    nobody waits for the answer.
    """

    channel: str
    idents: list[bytes]
    session: str
    msg_id: str
    raw_header: bytes
    msg_type: str

    @classmethod
    def by(cls, channel: str, sender: list[bytes], msg: Message) -> Asked:
        """Return the facts about a message with a request, from its channel and the identities of its client."""
        header = msg.header
        return cls(channel, sender, header.session, header.msg_id, msg.raw_header, header.msg_type)

    @classmethod
    def of(cls, channel: str, request: Direct | Broadcast) -> Asked:
        """Return the facts about a request that came on this channel and was sent to engines."""
        header = request.header
        return cls(channel, request.idents, header.session, header.msg_id, request.raw_header, header.msg_type)


class Answers:
    """Records how requests ended, and sends the answers to their clients.

    Args:
        host, session, store: access to clients and records.
        now: the current time, aware and in UTC.
        notices: counts and logs errors.
        redelivery: knows which results an earlier hub has sent already.
        owed: keeps the results of clients that are away.
        strict: whether results are on disk before a client sees them.
    """

    def __init__(
        self,
        host: Host,
        session: Session,
        store: Store,
        now: Callable[[], datetime],
        notices: Notices,
        redelivery: Redelivery,
        owed: OwedResults,
        *,
        strict: bool,
    ) -> None:
        self._host = host
        self._soon = host.soon
        self._session = session
        self._store = store
        self._durable = store.durable
        self._update = store.update
        self._now = now
        self._notices = notices
        self._redelivery = redelivery
        self._presumed = redelivery.sessions
        self.owed = owed
        self._strict = strict
        self.unsaved: set[str] = set()
        """Requests of a strict hub that are answered, and whose answers are not on disk yet."""
        self.outcomes = {queue: dict.fromkeys(OUTCOMES, 0) for queue in QUEUES}
        """Requests answered, by queue and outcome."""

    def count(self, outcome: str) -> int:
        """Return the number of requests, of all queues, that were answered with this outcome."""
        return sum(outcomes[outcome] for outcomes in self.outcomes.values())

    # Answers of engines

    def metadata_of(self, msg: Message) -> ResultMetadata:
        """Return the metadata of an engine's reply; with status "error" if the metadata cannot be read."""
        try:
            return self._session.result_metadata(msg)
        except WireError as error:
            # The client waits for this reply, so the reply is still passed on, as a failure.
            self._notices.unreadable("result metadata", error, task=msg.parent.msg_id)
            return ResultMetadata(status="error")

    def status_in_content(self, msg: Message) -> str:
        """Return the status in the content of an engine's reply; "error" if there is none.

        Used for replies whose metadata has no status.
        """
        try:
            status = self._session.content(msg).get("status")
        except WireError as error:
            self._notices.unreadable("result content", error, task=msg.parent.msg_id)
            return "error"
        return status if isinstance(status, str) else "error"

    def save_result(
        self, queue: str, ident: bytes, msg: Message, asked: Asked, metadata: ResultMetadata, status: str
    ) -> None:
        """Record an engine's answer to a request, and send it to the client. Never raises.

        If this fails unexpectedly, an error takes the answer's place.
        """
        try:
            uuid = self.record_result(ident, msg, asked.msg_id, asked.raw_header, metadata.started)
            self._deliver(asked.channel, asked.idents, asked.session, asked.msg_id, [ident, *msg.frames])
        except Exception as error:
            reason = self._notices.failed("result", error, task=asked.msg_id)
            self.fail(asked, ident.decode("utf-8", "replace"), reason)
        else:
            self._count(queue, asked.msg_id, status, uuid, msg.frames)
            if metadata.idle_topic is not None:
                self.publish_idle(ident, msg, metadata.idle_topic)

    def publish_idle(self, ident: bytes, msg: Message, topic: str) -> None:
        """Publish the idle status that follows an engine's answer, if a client wants it. Never raises.

        Stock clients wait for this status: it says that they have all output of the request. An engine of ours that has
        published nothing for a request leaves the status to the hub. So there is one message less for each call.

        Args:
            ident: the engine's identity.
            msg: the engine's answer.
            topic: the topic of the status, which the engine has chosen.
        """
        try:
            wanted_as = topic.encode("utf-8", "replace")
            if self._host.is_wanted("iopub_out", (wanted_as,)):
                metadata = {"engine": ident.decode("utf-8", "replace")}
                status = self._session.write("status", _IDLE, parent=msg.raw_parent, metadata=metadata)
                self._soon(partial(self._publish_now, [wanted_as, *status]))
        except Exception as error:
            self._notices.failed("idle status", error, task=msg.parent.msg_id)

    def _publish_now(self, frames: Frames) -> None:
        try:
            self._host.send("iopub_out", frames)
        except Exception as error:
            self._notices.failed("idle status", error)

    def record_result(self, ident: bytes, msg: Message, msg_id: str, raw_header: bytes, started: str | None) -> str:
        """Record an engine's answer, and return the engine's uuid."""
        uuid = ident.decode("utf-8", "replace")
        packer = self._session.packer
        try:
            changes = record_of_result(msg, packer, engine_uuid=uuid, started=started, now=self._now())
        except WireError as error:
            self._notices.unreadable("result", error, task=msg_id, uuid=uuid)
            content = packer.to_json(packer.pack(error_content("WireError", str(error))))
            changes = {"completed": self._now(), "received": self._now(), "result_content": content}
        if self._durable:
            parent = to_bytes(msg.frames[3])  # as the engine has written it
            changes["custody"] = None if parent == raw_header else Custody(parent=parent).pack()
        self._update(msg_id, changes)
        return uuid

    # Answers of the hub itself

    def fail(self, asked: Asked, engine_uuid: str | None, error: HubError, **metadata: Any) -> None:
        """Answer a recorded request with an error, and record the answer. Never raises.

        For a `TaskAborted`, the answer has the status "aborted" and no error.
        """
        for is_recorded in (True, True, False):
            try:
                self._fail(asked, engine_uuid, error, metadata, is_recorded=is_recorded)
            except Exception as unexpected:
                # The text of the answer may have caused the error: the next attempt has another text, the last attempt
                # sends the answer without recording it.
                error, metadata = self._notices.failed("answer", unexpected, task=asked.msg_id), {}
            else:
                return

    def _fail(
        self, asked: Asked, engine_uuid: str | None, error: HubError, metadata: dict[str, Any], *, is_recorded: bool
    ) -> None:
        status = "aborted" if isinstance(error, TaskAborted) else "error"
        metadata = metadata | {"status": status, "date": self._now().isoformat()}
        if isinstance(error, TaskCancelled):
            metadata["cancelled"] = error.facts
        if engine_uuid is not None:
            metadata["engine"] = engine_uuid
        content = error_content(type(error).__name__, str(error)) if status == "error" else {"status": status}
        frames = self._session.write(reply_type(asked.msg_type), content, parent=asked.raw_header, metadata=metadata)
        log.debug(
            "request failed without a result", task=asked.msg_id, client=asked.session, uuid=engine_uuid, error=error
        )
        if is_recorded:
            self._record(asked, frames, engine_uuid)
        self._send(asked, frames, status, engine_uuid)

    def answer(self, asked: Asked, frames: Frames, status: str, engine_uuid: str | None) -> None:
        """Answer a recorded request with a message of the hub's own, and record the answer."""
        self._record(asked, frames, engine_uuid)
        self._send(asked, frames, status, engine_uuid)

    def _record(self, asked: Asked, frames: Frames, engine_uuid: str | None) -> None:
        now = self._now()
        to_json = self._session.packer.to_json
        changes: dict[str, Any] = {
            "result_header": to_json(to_bytes(frames[2])),
            "result_metadata": to_json(to_bytes(frames[4])),
            "result_content": to_json(to_bytes(frames[5])),
            "result_buffers": tuple(frames[6:]),
            "completed": now,
            "received": now,
            "engine_uuid": engine_uuid,
        }
        if self._durable:
            changes["custody"] = Custody(parent=to_bytes(frames[3])).pack()
        self._update(asked.msg_id, changes)

    def _send(self, asked: Asked, frames: Frames, status: str, engine_uuid: str | None) -> None:
        self._deliver(asked.channel, asked.idents, asked.session, asked.msg_id, frames)
        self._count(queue_of(asked.channel.removesuffix("_in")), asked.msg_id, status, engine_uuid, frames)

    def _count(self, queue: str, msg_id: str, status: str, engine_uuid: str | None, reply: Frames) -> None:
        outcomes = self.outcomes[queue]
        outcomes[status if status in outcomes else "error"] += 1
        if self._host.listening:
            error = ("", "", "") if status in ("ok", "aborted") else self._session.error_in(reply)
            self._notices.tell(TaskFinished(msg_id, engine_uuid, status, *error))

    # Sending to clients

    def _deliver(self, channel: str, idents: list[bytes], session: str, msg_id: str, frames: Frames) -> None:
        """Send a client the answer to a recorded request: now or, in a strict hub, when the answer is on disk."""
        if not self._strict:
            self._soon(partial(self._deliver_now, channel, idents, session, msg_id, frames))
            return
        self.unsaved.add(msg_id)
        try:
            self._store.after_commit(partial(self._deliver_now, channel, idents, session, msg_id, frames))
        except BaseException:
            self.unsaved.discard(msg_id)
            raise

    def _deliver_now(self, channel: str, idents: list[bytes], session: str, msg_id: str, frames: Frames) -> None:
        if self._strict:
            self.unsaved.discard(msg_id)
        try:
            if msg_id in self._presumed and self._redelivery.is_missed(msg_id):
                idents = [AWAY]
            # No identities: the hub itself has resubmitted the task, or the client has got the result before.
            if (
                not idents
                or self._host.send(channel, [*idents, *frames])
                or self._sent_elsewhere(channel, idents, session, frames)
            ):
                if self._redelivery.keeps_notes:
                    self._redelivery.note(msg_id)
                return
            self._notices.ignore(
                "client_gone", "the answer waits for its client, which is away", task=msg_id, client=session
            )
        except Exception as error:
            self._notices.failed("delivery", error, task=msg_id, client=session)
        self.owed.owe(session, msg_id)

    def _sent_elsewhere(self, channel: str, idents: list[bytes], session: str, frames: Frames) -> bool:
        return any(
            self._host.send(other, [place, *idents[1:], *frames])
            for other, place in self.owed.clients.places(session, channel)
            if (other, place) != (channel, idents[0])
        )


def queue_of(name: str | None) -> str:
    """Return the queue that a record names; the task queue if the record is damaged and names no queue."""
    return name if name in QUEUES else "task"
