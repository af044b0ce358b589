"""Gathered broadcasts: one request to many engines, and one reply with the results of all engines.

A broadcast that is not gathered does not use this module: each engine gets a request of its own, and the client gets
each reply.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from ..wire.frames import Frames
from ..wire.messages import Header

__all__ = ["Answer", "Broadcast", "sub_msg_id"]


def sub_msg_id(msg_id: str, uuid: str) -> str:
    """Return the msg_id of one engine's share of a broadcast. Stock clients expect replies to this msg_id."""
    return f"{msg_id}_{uuid}"


class Answer(NamedTuple):
    """The answer of one engine to a broadcast.

    - ``content``: the content of the engine's reply, or of the error that the hub puts in its place;
    - ``buffers``: the buffers of the reply;
    - ``started``: when the engine began, as ISO 8601 text; None if unknown.
    """

    content: dict[str, Any]
    buffers: Frames
    started: str | None = None

    @property
    def ok(self) -> bool:
        return self.content.get("status") == "ok"


class Broadcast:
    """A gathered broadcast that is not answered by all engines yet.

    ``targets`` are pairs of uuid and engine id, in the order in which the client gave them.
    """

    __slots__ = ("answers", "header", "idents", "raw_header", "targets")

    def __init__(self, idents: list[bytes], header: Header, raw_header: bytes, targets: list[tuple[str, int]]) -> None:
        self.idents = idents
        self.header = header
        self.raw_header = raw_header
        self.targets = targets
        self.answers: dict[str, Answer] = {}

    def answered(self, uuid: str, answer: Answer) -> bool:
        """Store the answer of one engine, or the error in its place. Return whether all engines have answered now."""
        self.answers[uuid] = answer
        return len(self.answers) == len(self.targets)

    def content(self) -> dict[str, Any]:
        """Return the content of the reply. Its status is ok if all engines succeeded.

        Otherwise it is the content of the first engine that failed, in the order of the targets, and its key
        ``errors`` holds the contents of all engines that failed, by uuid.
        """
        errors = {uuid: self.answers[uuid].content for uuid, _ in self.targets if not self.answers[uuid].ok}
        if not errors:
            return {"status": "ok"}
        return next(iter(errors.values())) | {"errors": errors}

    @property
    def _status(self) -> str:
        """The status of the reply: "ok", or "aborted" or "error" according to the first engine that failed."""
        failed = next((answer for uuid, _ in self.targets if not (answer := self.answers[uuid]).ok), None)
        if failed is None:
            return "ok"
        return "aborted" if failed.content.get("status") == "aborted" else "error"

    def metadata(self) -> dict[str, Any]:
        """Return the metadata of the reply. ``buffer_counts`` is the number of buffers of each target's result."""
        answers = [self.answers[uuid] for uuid, _ in self.targets]
        started = [answer.started for answer in answers if answer.started is not None]
        return {
            "status": self._status,
            "dependencies_met": True,
            "is_broadcast": True,
            "is_coalescing": True,
            "original_msg_id": self.header.msg_id,
            "broadcast_targets": self.targets,
            "buffer_counts": [len(answer.buffers) for answer in answers],
        } | ({"started": min(started)} if started else {})

    def buffers(self) -> Frames:
        """Return the buffers of all results, in the order of the targets."""
        return [buffer for uuid, _ in self.targets for buffer in self.answers[uuid].buffers]
