"""Broadcasts: one request of a client, fanned out to many engines.

Each engine is sent a request of its own, with the client's frames but for the header's msg_id and a metadata
without the list of targets, packed once for all. Each answers by itself; or, if the client wants them gathered
("coalescing"), one reply carries all results in the order of the targets.
"""

from __future__ import annotations

from typing import Any

import msgspec

from ..errors import EngineError, HubError, WireError
from ..schedulers.broadcast import Answer, Broadcast, sub_msg_id
from ..schedulers.dependencies import Outcome
from ..schedulers.relay import Direct, Lane
from ..store.record import TaskRecord
from ..wire.messages import BroadcastMetadata, Message, error_content
from .answering import STOPPED, no_such_engine
from .connector import EngineConnector
from .events import TaskSubmitted
from .monitoring import Monitoring
from .records import init_record
from .state import reply_type

__all__ = ["Broadcasting", "noted_share"]


class Broadcasting(Monitoring):
    """The part of the hub through which broadcasts pass."""

    def save_broadcast_request(self, idents: list[bytes], msg: Message, *, admitted: bool = False) -> None:
        """A client addresses many engines at once: record it, and send each of them its share."""
        if not admitted and not self.admit("broadcast_in", idents, msg, self.save_broadcast_request):
            return
        packer = self.session.packer
        try:
            metadata = self.session.broadcast_metadata(msg)
            if not metadata.targets:
                raise EngineError("the broadcast names no engines")
            if len({uuid for uuid, _ in metadata.targets}) < len(metadata.targets):
                raise EngineError("the broadcast names an engine twice")
            record = init_record(msg, packer, queue="broadcast", now=self.now(), label=metadata.label)
            shares = self.divide(msg, [uuid for uuid, _ in metadata.targets])
        except (WireError, EngineError) as error:
            self._refuse("broadcast_in", idents, msg, error)
            return
        if metadata.is_coalescing:
            self.record(record, idents, msg)
        else:
            for (uuid, _), share in zip(metadata.targets, shares, strict=True):
                record = init_record(share, packer, queue="broadcast", now=self.now(), label=metadata.label)
                record.engine_uuid = uuid
                self.record(record, idents, share)
        self.when_recorded(msg.header.msg_id, lambda: self.submit_broadcast(idents, msg, metadata, shares))

    def submit_broadcast(
        self, idents: list[bytes], msg: Message, metadata: BroadcastMetadata, shares: list[Message]
    ) -> None:
        """A broadcast that is recorded already goes to its engines."""
        if self.carried_on:
            return
        broadcast = None
        if metadata.is_coalescing:
            broadcast = Broadcast(idents, msg.header, msg.raw_header, metadata.targets)
            self.gathered[msg.header.msg_id] = broadcast
            self._submitted(msg, metadata.label, None)
        for (uuid, _), share in zip(metadata.targets, shares, strict=True):
            if broadcast is None:
                self._submitted(share, metadata.label, uuid)
            self._send_share(idents, uuid, share, broadcast)

    def divide(self, msg: Message, uuids: list[str]) -> list[Message]:
        """Each engine's share of a broadcast, as a request of its own."""
        pack = self.session.packer.pack
        header = self.session.header(msg)
        metadata = self.session.metadata(msg)
        del metadata["targets"]
        packed = pack(metadata | {"original_msg_id": msg.header.msg_id})
        shares = []
        for uuid in uuids:
            msg_id = sub_msg_id(msg.header.msg_id, uuid)
            raw_header = pack(header | {"msg_id": msg_id})
            frames = self.session.seal([raw_header, msg.frames[3], packed, msg.frames[5]], msg.frames[6:])
            shares.append(Message([], frames, msg.header.renamed(msg_id), msg.parent, raw_header, packed))
        return shares

    def _submitted(self, msg: Message, label: Any, uuid: str | None) -> None:
        self.submitted["broadcast"] += 1
        if self.host.listening:
            header = msg.header
            label = self.labels.of(label, header.msg_type, msg.buffers)
            self.host.emit(TaskSubmitted(header.msg_id, "broadcast", label, header.session, uuid))

    def _send_share(self, idents: list[bytes], uuid: str, share: Message, broadcast: Broadcast | None) -> None:
        engine = self.by_ident.get(uuid.encode("utf-8", "replace"))
        lane = engine.broadcast if engine is not None else Lane(b"")
        direct = Direct(idents, share.header, share.raw_header, lane, broadcast)
        if engine is None or self.stopping:
            error = EngineError(STOPPED) if self.stopping else no_such_engine([b"", uuid.encode("utf-8", "replace")])
            self.fail_share(direct, uuid, error)
        elif self.broadcast.sent(direct):
            self.send_to_engine(engine, self.broadcast_channel(engine), [*idents, *share.frames])

    def broadcast_channel(self, engine: EngineConnector) -> str:
        return self.broadcast_channels[engine.id % len(self.broadcast_channels)]

    def save_broadcast_result(self, idents: list[bytes], msg: Message) -> None:
        """An engine answers its share of a broadcast: pass it on, or gather it."""
        ident = idents[0]
        msg_id = msg.parent.msg_id
        direct = self.broadcast.answered(ident, msg_id)
        if direct is None:
            if not self.heard_probe(ident, msg_id):
                self.ignore("unexpected_result", "a reply to a broadcast it was not asked", uuid=ident, task=msg_id)
            return
        metadata = self._result_metadata(msg)
        if direct.broadcast is None:
            status = metadata.status or self._status_in_content(msg)
            self._save_result("broadcast", ident, msg, msg_id, direct.raw_header, metadata.started, status)
            self._deliver("broadcast_in", direct.idents, direct.header.session, msg_id, [ident, *msg.frames])
            self._direct_ended(msg_id, Outcome(status == "ok", ident))
            return
        try:
            content = self.session.content(msg)
        except WireError as error:
            self.unreadable("broadcast result", error)
            content = error_content("WireError", str(error))
        if content.get("status") != "aborted":
            self.by_ident[ident].completed += 1
        self._gather(direct.broadcast, direct.lane.ident.decode(), Answer(content, msg.buffers, metadata.started))

    def fail_share(self, direct: Direct, engine_uuid: str, error: HubError) -> None:
        if direct.broadcast is not None:
            content = error_content(type(error).__name__, str(error))
            self._gather(direct.broadcast, engine_uuid, Answer(content, []))
            return
        self._end_with_error(
            "broadcast_in",
            direct,
            engine_uuid,
            error,
            is_broadcast=True,
            is_coalescing=False,
            original_msg_id=direct.header.msg_id.removesuffix(sub_msg_id("", engine_uuid)),
        )

    def _gather(self, broadcast: Broadcast, uuid: str, answer: Answer) -> None:
        """One engine's answer to a gathered broadcast is in; if it is the last, the client gets them all."""
        last = broadcast.answered(uuid, answer)
        if self.store.durable and not last:
            self._note_share(broadcast, uuid, answer)
        if last:
            self.finish_broadcast(broadcast)

    def _note_share(self, broadcast: Broadcast, uuid: str, answer: Answer) -> None:
        """Keep one engine's answer in the store until all are in, in case that this hub does not live to see it."""
        record = TaskRecord(sub_msg_id(broadcast.header.msg_id, uuid), engine_uuid=uuid, queue="broadcast")
        record.completed = record.received = self.now()
        record.result_content = msgspec.json.encode(_Noted(answer.content, answer.started))
        record.result_buffers = tuple(answer.buffers)
        self.store.add(record)

    def finish_broadcast(self, broadcast: Broadcast) -> None:
        """All answers to a gathered broadcast are in: the client gets them."""
        header = broadcast.header
        del self.gathered[header.msg_id]
        metadata = broadcast.metadata()
        frames = self.session.write(
            reply_type(header.msg_type),
            broadcast.content(),
            parent=broadcast.raw_header,
            metadata=metadata,
            buffers=broadcast.buffers(),
        )
        self._answer("broadcast_in", broadcast.idents, header.session, header.msg_id, frames, metadata["status"], None)
        if self.store.durable:
            for uuid, _ in broadcast.targets:
                self.store.discard(sub_msg_id(header.msg_id, uuid))
        self._direct_ended(header.msg_id, Outcome(metadata["status"] == "ok", None))


class _Noted(msgspec.Struct):
    content: dict[str, Any]
    started: str | None = None


def noted_share(record: TaskRecord) -> Answer | None:
    """The answer of an engine that an earlier hub has kept in the store; None if it cannot be read."""
    try:
        noted = msgspec.json.decode(record.result_content or b"", type=_Noted)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None
    return Answer(noted.content, list(record.result_buffers or ()), noted.started)
