"""Broadcasts whose answers are gathered: one reply carries all results, once all engines have answered."""

from __future__ import annotations

from collections.abc import Callable

from ..records import Store
from ..schedulers.broadcast import Answer, Broadcast, sub_msg_id
from ..schedulers.dependencies import Outcome
from ..wire.messages import Session
from .answers import Answers, Asked
from .notices import Notices
from .replies import reply_type
from .shares import note_of_share

__all__ = ["Gathering"]


class Gathering:
    """Gathers the engines' answers to broadcasts, and sends each client one reply.

    Args:
        session, store: write messages and records.
        notices, answers: the parts of the hub below.
        request_ended: is called with the outcome of each broadcast, since tasks may depend on the broadcast.
    """

    def __init__(
        self,
        session: Session,
        store: Store,
        *,
        notices: Notices,
        answers: Answers,
        request_ended: Callable[[str, Outcome], None],
    ) -> None:
        self._session = session
        self._store = store
        self._notices = notices
        self._answers = answers
        self._request_ended = request_ended
        self.gathered: dict[str, Broadcast] = {}
        """The gathered broadcasts that are not answered yet, by msg_id."""

    def begin(self, broadcast: Broadcast) -> None:
        """Note a gathered broadcast that is about to be sent to its engines."""
        self.gathered[broadcast.header.msg_id] = broadcast

    def gather(self, broadcast: Broadcast, uuid: str, answer: Answer) -> None:
        """Add one engine's answer to a gathered broadcast; after the last one, answer the client."""
        if broadcast.answered(uuid, answer):
            self.finish_broadcast(broadcast)
        elif self._store.durable:
            # For the next hub, if this hub ends before all answers are in.
            try:
                self._store.add(note_of_share(broadcast, uuid, answer))
            except Exception as error:
                self._notices.failed("share of a broadcast", error, task=broadcast.header.msg_id)

    def finish_broadcast(self, broadcast: Broadcast) -> None:
        """Answer the client of a gathered broadcast, when all answers are in. Never raises."""
        header = broadcast.header
        del self.gathered[header.msg_id]
        asked = Asked.of("broadcast_in", broadcast)
        ok = False
        try:
            metadata = broadcast.metadata()
            frames = self._session.write(
                reply_type(header.msg_type),
                broadcast.content(),
                parent=broadcast.raw_header,
                metadata=metadata,
                buffers=broadcast.buffers(),
            )
            self._answers.answer(asked, frames, metadata["status"], None)
            ok = metadata["status"] == "ok"
        except Exception as error:
            self._answers.fail(asked, None, self._notices.failed("broadcast result", error, task=header.msg_id))
        if self._store.durable:
            try:
                for uuid, _ in broadcast.targets:
                    self._store.discard(sub_msg_id(header.msg_id, uuid))
            except Exception as error:
                self._notices.failed("share of a broadcast", error, task=header.msg_id)
        self._request_ended(header.msg_id, Outcome(ok, None))
