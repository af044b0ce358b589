"""Late results: answers that come after the hub has answered in the engine's place, since the engine was lost."""

from __future__ import annotations

from ..wire.messages import Message
from .answers import Answers
from .connector import EngineConnector
from .notices import Notices

__all__ = ["LIMIT", "LateResults"]

LIMIT = 10_000
"""The maximum number of requests whose late results are still recorded. The oldest are forgotten first."""


class LateResults:
    """Records the late results of engines that come back. The clients have got errors already.

    Args:
        answers: writes results to records.
        notices: counts late results.
        limit: the maximum number of requests that are remembered.
    """

    def __init__(self, answers: Answers, notices: Notices, limit: int = LIMIT) -> None:
        self._answers = answers
        self._notices = notices
        self._limit = limit
        self._idents: dict[str, bytes] = {}
        """The identity of each request's engine, by msg_id."""

    def __len__(self) -> int:
        return len(self._idents)

    def expect(self, engine: EngineConnector, msg_id: str) -> None:
        """Note that an error was the answer to a request, which the engine may still carry out if it comes back."""
        if not engine.may_return:
            return
        self._idents[msg_id] = engine.ident
        if len(self._idents) > self._limit:
            del self._idents[next(iter(self._idents))]

    def record(self, ident: bytes, msg: Message) -> bool:
        """Record an engine's reply if it is an expected late result. Return whether it is."""
        msg_id = msg.parent.msg_id
        if self._idents.get(msg_id) != ident:
            return False
        del self._idents[msg_id]
        self.record_now(ident, msg)
        return True

    def record_now(self, ident: bytes, msg: Message) -> None:
        """Record and count a late result."""
        msg_id = msg.parent.msg_id
        self._answers.record_result(ident, msg, msg_id, b"", self._answers.metadata_of(msg).started)
        self._notices.ignore(
            "late_result", "a reply of an engine that was lost; it is recorded", uuid=ident, task=msg_id
        )
