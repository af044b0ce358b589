"""Answers to requests: how results and errors reach clients and records. Shared by all queues."""

from __future__ import annotations

import logging
from typing import Any

from ..errors import EngineError, HubError, WireError
from ..wire.frames import Frames, to_bytes
from ..wire.messages import Message, ResultMetadata, error_content
from .events import TaskFinished
from .records import record_of_result
from .registration import Registration
from .state import reply_type

__all__ = ["STOPPED", "Answering", "no_such_engine"]

STOPPED = "the hub has been stopped"

log = logging.getLogger("trio_hub.hub")


class Answering(Registration):
    """The part of the hub that knows how to answer a request, and to record that."""

    def _is_duplicate(self, msg: Message) -> bool:
        """Whether a request reuses the msg_id of one that is not answered yet: that one's answer will do."""
        if not self.is_pending(msg.header.msg_id):
            return False
        self.ignore("duplicate_msg_id", f"request {msg.header.msg_id!r} is pending already")
        return True

    def _result_metadata(self, msg: Message) -> ResultMetadata:
        try:
            return self.session.result_metadata(msg)
        except WireError as error:
            # The client waits for this reply, so it goes on all the same, as a failure.
            self.unreadable("result metadata", error)
            return ResultMetadata(status="error")

    def _status_in_content(self, msg: Message) -> str:
        try:
            status = self.session.content(msg).get("status")
        except WireError as error:
            self.unreadable("result content", error)
            return "error"
        return status if isinstance(status, str) else "error"

    def _save_result(self, ident: bytes, msg: Message, msg_id: str, started: str | None, status: str) -> None:
        engine = self.by_ident.get(ident)
        if engine is not None and status != "aborted":
            engine.completed += 1
        self._count(msg_id, status, self._record_result(ident, msg, msg_id, started))

    def _record_result(self, ident: bytes, msg: Message, msg_id: str, started: str | None) -> str:
        uuid = ident.decode("utf-8", "replace")
        try:
            changes = record_of_result(msg, self.session.packer, engine_uuid=uuid, started=started, now=self.now())
        except WireError as error:
            self.unreadable("result", error)
            content = self.session.packer.to_json(self.session.packer.pack(error_content("WireError", str(error))))
            changes = {"completed": self.now(), "received": self.now(), "result_content": content}
        self.store.update(msg_id, changes)
        return uuid

    def _to_client(self, channel: str, idents: list[bytes], frames: list[Any]) -> None:
        # A task without identities was resubmitted by the hub itself: its result is in the record.
        if idents and not self.host.send(channel, [*idents, *frames]):
            self.ignore("client_gone", f"a reply for client {idents[0]!r}, which has disconnected")

    def _refuse(self, channel: str, idents: list[bytes], msg: Message, error: HubError) -> None:
        """Answer with an error a request that was never recorded."""
        if isinstance(error, WireError):
            self.unreadable(channel, error)
        content = error_content(type(error).__name__, str(error))
        frames = self.session.write(
            reply_type(msg.header.msg_type), content, parent=msg.frames[2], metadata={"status": "error"}
        )
        self._to_client(channel, idents, frames)

    def _answer_with_error(
        self,
        channel: str,
        idents: list[bytes],
        msg_id: str,
        raw_header: bytes,
        msg_type: str,
        engine_uuid: str | None,
        error: HubError,
        **metadata: Any,
    ) -> None:
        """Answer with an error a request that is recorded, and record the answer."""
        metadata |= {"status": "error", "date": self.now().isoformat()}
        if engine_uuid is not None:
            metadata["engine"] = engine_uuid
        content = error_content(type(error).__name__, str(error))
        frames = self.session.write(reply_type(msg_type), content, parent=raw_header, metadata=metadata)
        log.info("%s failed: %s", msg_id, error, extra={"task": msg_id})
        self._answer(channel, idents, msg_id, frames, "error", engine_uuid)

    def _answer(
        self,
        channel: str,
        idents: list[bytes],
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
        self.store.update(msg_id, changes)
        self._count(msg_id, status, engine_uuid)
        self._to_client(channel, idents, frames)

    def _count(self, msg_id: str, status: str, engine_uuid: str | None) -> None:
        if status == "ok":
            self.tasks_completed += 1
        else:
            self.tasks_failed += 1
        if self.host.listening:
            self.host.emit(TaskFinished(msg_id, engine_uuid, status))


def no_such_engine(idents: list[bytes]) -> EngineError:
    if len(idents) < 2:
        return EngineError("the message names no engine")
    return EngineError(f"Engine {idents[1].decode('utf-8', 'replace')} is not registered (any more)")
