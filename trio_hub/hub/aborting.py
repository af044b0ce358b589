"""Aborting requests: an aborted request that has not begun never begins, wherever it is.

A stock client sends its ``abort_request`` to engines, on the control channel. A stock engine then refuses the requests
when their turn comes. An engine does not know the requests that wait in the hub, and it does not know the msg_id of a
broadcast, since its share has a msg_id of its own. So the hub reads each ``abort_request`` that it relays.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ..errors import TaskAborted, WireError
from ..schedulers.broadcast import sub_msg_id
from ..schedulers.tasks import NOT_BEGUN
from ..wire.frames import Frames, to_bytes
from ..wire.messages import Header, Message, Session
from .connector import EngineConnector
from .events import RequestsAborted
from .intake import Intake
from .notices import Notices
from .routes import Routes
from .tasks import TaskQueue

__all__ = ["Aborting"]


class Aborting:
    """Aborts the requests that the hub has, and names the aborted shares of broadcasts to the engines that have them.

    Args:
        session: reads and writes messages.
        notices: passes on events.
        intake, routes, tasks: the parts of the hub below.
        is_pending: whether a request with a msg_id waits for its answer, in any queue.
    """

    def __init__(
        self,
        session: Session,
        notices: Notices,
        *,
        intake: Intake,
        routes: Routes,
        tasks: TaskQueue,
        is_pending: Callable[[str], bool],
    ) -> None:
        self._session = session
        self._notices = notices
        self._intake = intake
        self._routes = routes
        self._tasks = tasks
        self._is_pending = is_pending
        self._cancel_own: Callable[[Sequence[str], str], None] | None = None

    def connect(self, cancel_own: Callable[[Sequence[str], str], None]) -> None:
        """Set what is called with the msg_ids that a client aborts, and with the client's session."""
        self._cancel_own = cancel_own

    def abort_for(self, header: Header, msg_ids: Sequence[str]) -> list[str]:
        """Abort requests, see `abort`, and interrupt the client's own running tasks if their rules say so."""
        aborted = self.abort(msg_ids)
        if self._cancel_own is not None:
            self._cancel_own(msg_ids, header.session)
        return aborted

    def abort(self, msg_ids: Sequence[str]) -> list[str]:
        """Abort requests, and return the msg_ids of those that no engine has.

        A request that the hub has not received yet is aborted when it comes. It is not among the returned msg_ids,
        unless it is on its way to the disk.
        """
        uncommitted = [msg_id for msg_id in dict.fromkeys(msg_ids) if msg_id in self._intake.uncommitted]
        self._intake.withdrawn.note(uncommitted)
        self._intake.withdrawn.note(msg_id for msg_id in msg_ids if not self._is_pending(msg_id))
        return self._tasks.scheduler.abort(msg_ids) + uncommitted

    def abort_with(self, msg: Message, engine: EngineConnector | None) -> Frames:
        """Abort the requests that an ``abort_request`` to an engine names, if the hub has them.

        Returns:
            The frames for the engine. They also name the engine's shares of the aborted broadcasts.
        """
        try:
            content = self._session.content(msg)
        except WireError:
            return msg.frames  # the engine answers with an error
        msg_ids = content.get("msg_ids")
        if isinstance(msg_ids, str):
            msg_ids = [msg_ids]
        if not isinstance(msg_ids, list) or not all(isinstance(msg_id, str) for msg_id in msg_ids):
            return msg.frames
        aborted = len(self.abort_for(msg.header, msg_ids))
        shares = [] if engine is None else [sub_msg_id(msg_id, engine.uuid) for msg_id in msg_ids]
        shares = [share for share in shares if engine is not None and share in engine.broadcast.pending]
        if engine is not None:
            aborted += len(engine.pending.intersection([*msg_ids, *shares]))
            self._routes.withdraw(engine, {*msg_ids, *shares}, TaskAborted(NOT_BEGUN))
        if aborted:
            self._notices.client_did(RequestsAborted, msg.header, aborted)
        if not shares:
            return msg.frames
        header, parent, metadata = map(to_bytes, msg.frames[2:5])
        packed = self._session.packer.repacked(msg.raw_content, {"msg_ids": msg_ids + shares})
        return self._session.seal([header, parent, metadata, packed], msg.frames[6:])
