"""The direct queue: requests to one engine of the client's choice, and the engine's answers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from functools import partial
from typing import Any

from ..errors import EngineError, HubError, WireError
from ..records.record import TaskRecord
from ..schedulers.dependencies import Outcome
from ..schedulers.unanswered import Direct, Lane, UnansweredRequests
from ..wire.frames import Frames
from ..wire.messages import Message, Session
from .admission import Admission
from .announcer import Announcer
from .answers import Answers, Asked
from .attention import Attention
from .connector import EngineConnector, died_while_running, lost_on_its_way
from .custody import request_frames
from .engines import Engines
from .intake import STOPPED, Intake
from .late import LateResults
from .notices import Notices
from .ports import Host
from .records import init_record
from .replies import Replies
from .routes import Routes

__all__ = ["DirectQueue"]


class DirectQueue:
    """Sends requests to the engines that they name, and the answers back. Handlers get identities and message.

    Args:
        host, session: access to observers and to messages.
        now: the current time, aware and in UTC.
        notices, replies, intake, answers, admission, routes, engines, announcer, late_results, attention: the parts
            below.
        request_ended: is called with the outcome of each request, since tasks may depend on the request.
    """

    def __init__(
        self,
        host: Host,
        session: Session,
        now: Callable[[], datetime],
        *,
        notices: Notices,
        replies: Replies,
        intake: Intake,
        answers: Answers,
        admission: Admission,
        routes: Routes,
        engines: Engines,
        announcer: Announcer,
        late_results: LateResults,
        attention: Attention,
        request_ended: Callable[[str, Outcome], None],
    ) -> None:
        self._host = host
        self._session = session
        self._now = now
        self._notices = notices
        self._replies = replies
        self._intake = intake
        self._answers = answers
        self._admit = admission.admit
        self._routes = routes
        self._by_ident = engines.by_ident
        self._gone, self._changes = engines.gone, engines.changes
        self._late_results = late_results
        self._attention, self._attended = attention, attention.engines
        self._announcer = announcer
        self._request_ended = request_ended
        self.unanswered = UnansweredRequests()
        self.late: dict[str, EngineConnector] = {}
        """By msg_id, the lost engine of each request that was answered with an error; its result may still come."""
        self.submitted = 0
        """The number of received requests."""

    # From clients

    def save_queue_request(self, idents: list[bytes], msg: Message, *, admitted: bool = False) -> None:
        """Record a client's request to one engine and pass it on, or answer that there is no such engine."""
        if not admitted and not self._admit("mux_in", idents, msg, self.save_queue_request):
            return
        sender = idents[:1] + idents[2:]
        if self._intake.stopping:
            self._replies.refuse("mux_in", sender, msg, EngineError(STOPPED))
            return
        try:
            label = self._session.task_metadata(msg).label
            record = init_record(msg, self._session.packer, queue="mux", now=self._now, label=label)
        except WireError as error:
            self._replies.refuse("mux_in", sender, msg, error)
            return
        if not msg.header.msg_type.endswith("_request"):  # a comm message: it gets no answer
            self._intake.when_safe(partial(self._relay_comm, idents, msg))
            return
        if len(idents) < 2:  # not recorded, since it names no engine
            self._replies.refuse("mux_in", sender, msg, EngineError("the message names no engine"))
            return
        record.engine_uuid = idents[1].decode("utf-8", "replace")
        try:
            self._intake.record(record, sender, msg)
            self._intake.when_recorded(record.msg_id, self.submit_direct, idents, msg, label)
        except Exception as error:
            self.submitted += 1
            reason = self._notices.failed("direct request", error, task=record.msg_id)
            self._answers.fail(Asked.by("mux_in", sender, msg), record.engine_uuid, reason)

    def _relay_comm(self, idents: list[bytes], msg: Message) -> None:
        engine = self._by_ident.get(idents[1]) if len(idents) > 1 else None
        if engine is not None:
            engine.addressed += 1
            self._routes.send(engine, "mux_out", [*idents[:1], *idents[2:], *msg.frames], msg.header.msg_id)

    def submit_direct(self, idents: list[bytes], msg: Message, label: Any = None) -> None:
        """Send a recorded direct request to its engine. Never raises."""
        if self._intake.carried_on:
            return
        self.submitted += 1
        header = msg.header
        uuid = idents[1].decode("utf-8", "replace")
        engine = self._by_ident.get(idents[1])
        lane = Lane(b"") if engine is None else engine.mux
        direct = Direct(idents[:1] + idents[2:], header, msg.raw_header, lane)
        error: HubError
        try:
            if self._host.listening:
                self._announcer.request_came(
                    "mux", header.msg_id, header.msg_type, header.session, label, msg.buffers, uuid
                )
            if self._intake.stopping:
                error = EngineError(STOPPED)
            elif (withdrawn := self._intake.withdrawn.take(header.msg_id)) is not None:
                error = withdrawn
            elif engine is None:
                error = self._gone.no_such_engine(idents[1])
                if self._changes.has_left(uuid):
                    self._answers.owed.leave_to_client(direct)
            else:
                direct.behind = engine.newest_task
                if self.unanswered.sent(direct):
                    engine.addressed += 1
                    self._routes.send(engine, "mux_out", [*direct.idents, *msg.frames], header.msg_id)
                else:
                    self._notices.ignore(
                        "duplicate_msg_id", "the request is on its way already", task=header.msg_id, engine=engine.id
                    )
                return
        except Exception as unexpected:
            error = self._notices.failed("submission of a direct request", unexpected, task=header.msg_id)
        self.fail_direct(direct, uuid, error)

    # From engines

    def save_queue_result(self, idents: list[bytes], msg: Message) -> None:
        """Record an engine's answer to a direct request, and pass the answer on."""
        ident = idents[0]
        msg_id = msg.parent.msg_id
        direct = self.unanswered.pending.get(msg_id)
        if direct is not None and direct.lane.ident == ident:
            metadata = self._answers.metadata_of(msg)
            status = metadata.status or self._answers.status_in_content(msg)
            if ident in self._attended and self._attention.take(self, ident, msg, status):
                return
            self.unanswered.answered(ident, msg_id)
            if status != "aborted" and (engine := self._by_ident.get(ident)) is not None:
                engine.completed += 1
            self._answers.save_result("mux", ident, msg, Asked.of("mux_in", direct), metadata, status)
            self._request_ended(msg_id, Outcome(status == "ok", ident))
            if ident in self._attended:
                self._attention.has_answered(ident)
        elif msg_id in self.late and self.late[msg_id].ident == ident:
            # The client has got an EngineError already; the real result goes into the record.
            del self.late[msg_id]
            self._late_results.record_now(ident, msg)
        elif not self._late_results.record(ident, msg) and not self._routes.heard_probe(ident, msg_id):
            self._notices.ignore(
                "unexpected_result", "a reply to a request that the engine does not have", uuid=ident, task=msg_id
            )

    def fail_direct(self, direct: Direct, engine_uuid: str, error: HubError) -> None:
        """Answer a request with an error, record the error, and tell the tasks that depend on the request.

        Never raises.
        """
        self._answers.fail(Asked.of("mux_in", direct), engine_uuid, error)
        self._request_ended(direct.header.msg_id, Outcome(False, engine_uuid.encode("utf-8", "replace")))

    # Lost engines

    def engine_lost(self, engine: EngineConnector) -> None:
        """Answer a lost engine's requests with errors. Real answers that come within its grace are still recorded."""
        for direct in self.unanswered.strand(engine.mux):
            msg_id = direct.header.msg_id
            self.late[msg_id] = engine
            self._answers.owed.leave_to_client(direct)
            self.fail_direct(direct, engine.uuid, died_while_running(engine, msg_id))

    def engine_settled(self, engine: EngineConnector) -> None:
        """Stop waiting for the late answers of a lost engine. If the engine may return, they are still recorded."""
        for msg_id in [msg_id for msg_id, owner in self.late.items() if owner is engine]:
            del self.late[msg_id]
            self._late_results.expect(engine, msg_id)

    def owes_answers(self, engine: EngineConnector) -> bool:
        """Return whether late answers of a lost engine would still be recorded."""
        return engine in self.late.values()

    # For the routes and for the failure boundary

    def outstanding(self, engine: EngineConnector) -> list[str]:
        """Return the msg_ids of the requests that an engine has not answered."""
        return list(engine.mux.pending)

    def give_up(self, ident: bytes, msg_id: str, error: HubError) -> None:
        """Answer a request with the error, if this engine has it."""
        direct = self.unanswered.answered(ident, msg_id)
        if direct is not None:
            self.fail_direct(direct, ident.decode("utf-8", "replace"), error)

    def answer_lost(self, engine: EngineConnector, msg_id: str, cause: str) -> None:
        """Answer a request with an error: its answer was lost, and a second run might change the engine twice."""
        if not (engine.ident in self._attended and self._attention.lost(engine, msg_id)):
            self.give_up(engine.ident, msg_id, lost_on_its_way(engine, msg_id, cause))

    def repeatable(self, engine: EngineConnector, msg_ids: Sequence[str]) -> list[Direct]:
        """Return the requests among these that are not answered: they are recorded, so they can be sent again."""
        return [engine.mux.pending[msg_id] for msg_id in msg_ids if msg_id in engine.mux.pending]

    def frames_of(self, direct: Direct, record: TaskRecord) -> Frames:
        """Return the frames of a request as they came, from its record. Raises `WireError`."""
        return request_frames(record, self._session)

    def stop(self, error: HubError) -> None:
        """Answer all pending requests with the error."""
        for direct in list(self.unanswered.pending.values()):
            self.give_up(direct.lane.ident, direct.header.msg_id, error)

    def take_over(self, message: Message, engine: EngineConnector | None) -> None:
        """Carry on with a request of an earlier hub. Raises `EngineError` if `engine` is None."""
        self.submitted += 1
        if engine is None:
            raise EngineError("its record names no engine")
        self.unanswered.restore(Direct(message.idents, message.header, message.raw_header, engine.mux))
