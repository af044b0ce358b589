"""The control channel: requests to engines that are relayed and not recorded, and answered if the engine is lost."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from ..errors import EngineError, HubError, WireError
from ..logs import get_logger
from ..records.record import TaskRecord
from ..schedulers.unanswered import Direct, UnansweredRequests
from ..wire.frames import Frames
from ..wire.messages import Message, Session, error_content
from .admission import Admission
from .connector import EngineConnector, died_while_running, lost_on_its_way
from .engines import Engines
from .events import EngineShutdownRequested
from .intake import STOPPED, Intake
from .notices import Notices
from .replies import Replies, reply_type
from .routes import Routes

__all__ = ["ControlChannel"]

log = get_logger("trio_hub.hub")

HUB = b"trio-hub"
"""The routing identity in requests that the hub itself sends, in place of a client's identity."""


class ControlChannel:
    """Relays control requests to the engines that they name, and the answers back. Handlers get identities and message.

    Args:
        session: reads and writes messages.
        notices, replies, admission, routes, engines, intake: the parts of the hub below.
        abort: aborts the requests that an ``abort_request`` to an engine names, if the hub has them, and returns the
            frames for the engine.
    """

    def __init__(
        self,
        session: Session,
        *,
        notices: Notices,
        replies: Replies,
        admission: Admission,
        routes: Routes,
        engines: Engines,
        intake: Intake,
        abort: Callable[[Message, EngineConnector | None], Frames],
    ) -> None:
        self._session = session
        self._notices = notices
        self._replies = replies
        self._admit = admission.admit
        self._routes = routes
        self._engines = engines
        self._intake = intake
        self._by_ident = engines.by_ident
        self._abort = abort
        self.unanswered = UnansweredRequests()
        self._waiting: dict[str, Callable[[dict[str, Any]], None]] = {}
        """The callbacks of the hub's own requests that are not answered, by msg_id."""

    def relay_control_request(self, idents: list[bytes], msg: Message, *, admitted: bool = False) -> None:
        """Relay a client's control request to its engine."""
        if not admitted and not self._admit("control_in", idents, msg, self.relay_control_request):
            return
        sender = idents[:1] + idents[2:]
        if self._intake.stopping:
            self._replies.refuse("control_in", sender, msg, EngineError(STOPPED))
            return
        engine = self._by_ident.get(idents[1]) if len(idents) > 1 else None
        frames = msg.frames
        if msg.header.msg_type == "abort_request":
            frames = self._abort(msg, engine)
        if len(idents) < 2:
            self._replies.refuse("control_in", sender, msg, EngineError("the message names no engine"))
        elif engine is None:
            self._replies.refuse("control_in", sender, msg, self._engines.gone.no_such_engine(idents[1]))
        elif self.unanswered.sent(Direct(sender, msg.header, msg.raw_header, engine.control)):
            if msg.header.msg_type == "shutdown_request":
                self._note_shutdown(engine, msg)
            self._routes.send(engine, "control_out", [*sender, *frames], msg.header.msg_id)
        else:
            self._notices.ignore(
                "duplicate_msg_id", "the request is on its way already", task=msg.header.msg_id, engine=engine.id
            )

    def _note_shutdown(self, engine: EngineConnector, msg: Message) -> None:
        """Note that a client has asked an engine to end, or to start again, and tell the observers."""
        try:
            restart = bool(self._session.content(msg).get("restart"))
        except WireError:  # the engine still gets the request, and cannot read it either
            return
        engine.told_to_stop = engine.told_to_stop or not restart
        self._notices.client_did(EngineShutdownRequested, msg.header, engine.id, engine.uuid, restart)

    def shutdown_engine(self, engine: EngineConnector) -> None:
        """Ask an engine to end, as a client would. The hub forwards the engine's answer to nobody."""
        engine.told_to_stop = True
        self.ask(engine, "shutdown_request", {"restart": False})

    def ask(
        self,
        engine: EngineConnector,
        msg_type: str,
        content: dict[str, Any],
        answered: Callable[[dict[str, Any]], None] | None = None,
    ) -> None:
        """Send an engine a control request of the hub's own.

        Args:
            engine, msg_type, content: the engine, and the request.
            answered: is called once with the content of the answer, or of the error in the answer's place.
        """
        header = self._session.new_header(msg_type)
        frames = self._session.write(msg_type, content, header=header)
        self._session.note(frames, lasting=True)
        message = self._session.read_trusted([], frames)
        if answered is not None:
            self._waiting[message.header.msg_id] = answered
        self.unanswered.sent(Direct([], message.header, message.raw_header, engine.control))
        self._routes.send(engine, "control_out", [HUB, *frames], message.header.msg_id)

    def relay_control_result(self, idents: list[bytes], msg: Message) -> None:
        """Send an engine's answer to a control request to the client."""
        ident, msg_id = idents[0], msg.parent.msg_id
        direct = self.unanswered.answered(ident, msg_id)
        if direct is None:
            if not self._routes.heard_probe(ident, msg_id):
                self._notices.ignore(
                    "unexpected_result", "a control reply that was not asked for", uuid=ident, task=msg_id
                )
            return
        try:
            if msg_id in self._waiting:
                self._tell(msg_id, self._session.content(msg))
                return
            self._replies.send_back("control_in", direct.idents, [ident, *msg.frames])
        except Exception as error:
            reason = self._notices.failed("control result", error, task=msg_id)
            self._fail(direct, ident.decode("utf-8", "replace"), reason)

    # Lost engines

    def engine_lost(self, engine: EngineConnector) -> None:
        """Do nothing: the engine's answers may still come within its grace."""

    def engine_settled(self, engine: EngineConnector) -> None:
        """Answer the control requests that the engine has not answered."""
        for direct in self.unanswered.strand(engine.control):
            if direct.header.msg_type == "shutdown_request":  # the engine has ended, as asked
                self._answer(direct, engine.uuid, {"status": "ok", "restart": False})
            else:
                self._fail(direct, engine.uuid, died_while_running(engine, direct.header.msg_id))

    def owes_answers(self, engine: EngineConnector) -> bool:
        """Return whether the engine has unanswered control requests."""
        return len(engine.control) > 0

    def give_up_channel(self, engine: EngineConnector) -> None:
        """Answer an engine's control requests with errors: its control channel cannot be reached.

        The engine stays registered, and goes on with its other requests.
        """
        if self._routes.close_route(engine, "control_out"):
            log.warning("the control channel of an engine cannot be reached", engine=engine.id, uuid=engine.uuid)
            error = EngineError(f"engine {engine.id} cannot be reached on its control channel: has its nanny ended?")
            for direct in self.unanswered.strand(engine.control):
                self._fail(direct, engine.uuid, error)

    # For the routes and for the failure boundary

    def outstanding(self, engine: EngineConnector) -> list[str]:
        """Return the msg_ids of the control requests that an engine has not answered."""
        return list(engine.control.pending)

    def give_up(self, ident: bytes, msg_id: str, error: HubError) -> None:
        """Answer a request with the error, if this engine has it."""
        direct = self.unanswered.answered(ident, msg_id)
        if direct is not None:
            self._fail(direct, ident.decode("utf-8", "replace"), error)

    def answer_lost(self, engine: EngineConnector, msg_id: str, cause: str) -> None:
        """Answer a request with the error that the engine's answer was lost."""
        self.give_up(engine.ident, msg_id, lost_on_its_way(engine, msg_id, cause))

    def repeatable(self, engine: EngineConnector, msg_ids: Sequence[str]) -> list[Direct]:
        """Return no requests: control requests are not recorded."""
        return []

    def frames_of(self, direct: Direct, record: TaskRecord) -> Frames:
        """Raise `EngineError`: control requests are not recorded. Never called."""
        raise EngineError("control requests are not recorded")

    def stop(self, error: HubError) -> None:
        """Answer all requests as if their engines had ended. No later hub could answer them."""
        for engine in [*self._engines.alive.values(), *self._engines.lost]:
            self.engine_settled(engine)

    def _fail(self, direct: Direct, engine_uuid: str, error: HubError) -> None:
        ename = "EngineError" if isinstance(error, EngineError) else type(error).__name__
        self._answer(direct, engine_uuid, error_content(ename, str(error)))

    def _answer(self, direct: Direct, engine_uuid: str, content: dict[str, Any]) -> None:
        """Answer a request in the place of its engine. Never raises."""
        if not direct.idents:  # a request of the hub itself
            self._tell(direct.header.msg_id, content)
            return
        for _ in range(2):
            try:
                frames = self._session.write(
                    reply_type(direct.header.msg_type),
                    content,
                    parent=direct.raw_header,
                    metadata={"engine": engine_uuid},
                )
                self._replies.send_back("control_in", direct.idents, frames)
            except Exception as error:
                reason = self._notices.failed("control answer", error, task=direct.header.msg_id)
                content = error_content(type(reason).__name__, str(reason))
            else:
                return

    def _tell(self, msg_id: str, content: dict[str, Any]) -> None:
        """Pass the answer to a request of the hub's own to the part that has asked. Never raises."""
        answered = self._waiting.pop(msg_id, None)
        try:
            if answered is not None:
                answered(content)
        except Exception as error:
            self._notices.failed("control answer", error, task=msg_id)
