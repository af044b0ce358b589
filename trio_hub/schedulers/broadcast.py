"""Broadcasts whose answers are gathered: one request to many engines, one reply with all of their results.

A broadcast that is not gathered needs nothing of this: each of its engines is sent a request of its own, and
answers that.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from ..wire.frames import Frames
from ..wire.messages import Header

__all__ = ["Answer", "Broadcast", "sub_msg_id"]


def sub_msg_id(msg_id: str, uuid: str) -> str:
    """The msg_id under which one engine is sent its share; stock clients wait for answers by this name."""
    return f"{msg_id}_{uuid}"


class Answer(NamedTuple):
    """What one engine made of a broadcast; `content` is that of its reply, or of the error in its place."""

    content: dict[str, Any]
    buffers: Frames
    started: str | None = None

    @property
    def ok(self) -> bool:
        return self.content.get("status") == "ok"


class Broadcast:
    """A gathered broadcast that is on its way: ``targets`` are pairs of uuid and engine id, in the client's order."""

    __slots__ = ("answers", "header", "idents", "raw_header", "targets")

    def __init__(self, idents: list[bytes], header: Header, raw_header: bytes, targets: list[tuple[str, int]]) -> None:
        self.idents = idents
        self.header = header
        self.raw_header = raw_header
        self.targets = targets
        self.answers: dict[str, Answer] = {}

    def answered(self, uuid: str, answer: Answer) -> bool:
        """One engine has answered, or never will. Whether it was the last."""
        self.answers[uuid] = answer
        return len(self.answers) == len(self.targets)

    def content(self) -> dict[str, Any]:
        """The content of the reply: ok if all are.

        Otherwise that of the first engine that failed, in the order of the targets, as a client that asked them
        one after the other would see it; and ``errors`` has all of them, by uuid.
        """
        errors = {uuid: self.answers[uuid].content for uuid, _ in self.targets if not self.answers[uuid].ok}
        if not errors:
            return {"status": "ok"}
        return next(iter(errors.values())) | {"errors": errors}

    @property
    def _status(self) -> str:
        """Return the status of the whole: that of the first engine that failed."""
        failed = next((answer for uuid, _ in self.targets if not (answer := self.answers[uuid]).ok), None)
        if failed is None:
            return "ok"
        return "aborted" if failed.content.get("status") == "aborted" else "error"

    def metadata(self) -> dict[str, Any]:
        """The metadata of the reply; ``buffer_counts`` says how many buffers each target's result has."""
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
        """All results, in the order of the targets."""
        return [buffer for uuid, _ in self.targets for buffer in self.answers[uuid].buffers]
