"""Broadcasts: one request of a client, fanned out to many engines.

Each engine is sent a request of its own, its share. A share has the client's frames, but a msg_id of its own, and
metadata without the list of targets; the metadata is packed once for all shares. By default each engine's answer goes
to the client by itself. If the client wants the answers gathered ("coalescing"), one reply carries all results in the
order of the targets.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any

from ..errors import EngineError, HubError, TaskAborted, WireError
from ..records.record import TaskRecord
from ..schedulers.broadcast import Answer, Broadcast, sub_msg_id
from ..schedulers.dependencies import Outcome
from ..schedulers.unanswered import Direct, Lane, UnansweredRequests
from ..wire.frames import Frames
from ..wire.messages import BroadcastMetadata, Message, Session, error_content
from .admission import Admission
from .announcer import Announcer
from .answers import Answers, Asked
from .attention import Attention
from .connector import EngineConnector, died_while_running, lost_on_its_way
from .engines import Engines
from .gathering import Gathering
from .intake import STOPPED, Intake
from .late import LateResults
from .notices import Notices
from .ports import Host
from .records import init_record
from .replies import Replies
from .routes import Routes
from .scattered import Scattered
from .shares import check_targets, divided, note_chosen, share_frames

__all__ = ["Broadcasts"]


class Broadcasts:
    """Sends broadcasts to their engines, and the answers back. Handlers get identities and message.

    Args:
        host, session: access to observers and to messages.
        now: the current time, aware and in UTC.
        channels: the channels to engines; an engine is connected to the one with index id modulo their number.
        notices, replies, intake, answers, admission, routes, engines, announcer: parts below.
        late_results, attention, gathering, scattered: further parts of the hub below.
        request_ended: is called with the outcome of each request, since tasks may depend on the request.
    """

    def __init__(
        self,
        host: Host,
        session: Session,
        now: Callable[[], datetime],
        *,
        channels: Sequence[str],
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
        gathering: Gathering,
        scattered: Scattered,
        request_ended: Callable[[str, Outcome], None],
    ) -> None:
        self._host = host
        self._session = session
        self._now = now
        self.channels = tuple(channels)
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
        self._gathering = gathering
        self._scattered = scattered
        self._request_ended = request_ended
        self.unanswered = UnansweredRequests()
        self.submitted = 0
        """Requests received: a gathered broadcast counts once, another broadcast once per share."""

    # From clients

    def save_broadcast_request(self, idents: list[bytes], msg: Message, *, admitted: bool = False) -> None:
        """Record a client's broadcast, and send each engine its share."""
        if not admitted and not self._admit("broadcast_in", idents, msg, self.save_broadcast_request):
            return
        packer = self._session.packer
        try:
            metadata = self._session.broadcast_metadata(msg)
            check_targets(metadata)
            record = init_record(msg, packer, queue="broadcast", now=self._now, label=metadata.label)
            shares = divided(self._session, msg, [uuid for uuid, _ in metadata.targets])
        except (WireError, EngineError) as error:
            self._replies.refuse("broadcast_in", idents, msg, error)
            return
        try:
            if metadata.is_coalescing:
                self._intake.record(record, idents, msg)
            else:
                for (uuid, _), share in zip(metadata.targets, shares, strict=True):
                    record = init_record(share, packer, queue="broadcast", now=self._now, label=metadata.label)
                    record.engine_uuid = uuid
                    self._intake.record(record, idents, share)
            self._intake.when_recorded(msg.header.msg_id, self.submit_broadcast, idents, msg, metadata, shares)
        except Exception as error:
            reason = self._notices.failed("broadcast request", error, task=msg.header.msg_id)
            self._fail_whole(idents, msg, metadata, shares, reason)

    def _fail_whole(
        self, idents: list[bytes], msg: Message, metadata: BroadcastMetadata, shares: list[Message], error: HubError
    ) -> None:
        """Answer a broadcast with an error before any share was sent: once if it is gathered, else once per share."""
        self.submitted += 1 if metadata.is_coalescing else len(shares)
        if metadata.is_coalescing:
            self._answers.fail(Asked.by("broadcast_in", idents, msg), None, error)
            self._request_ended(msg.header.msg_id, Outcome(False, None))
            return
        self._scattered.begin(idents, msg.header, msg.raw_header, len(shares))
        for (uuid, _), share in zip(metadata.targets, shares, strict=True):
            self.fail_share(Direct(idents, share.header, share.raw_header, Lane(b"")), uuid, error)

    def submit_broadcast(
        self, idents: list[bytes], msg: Message, metadata: BroadcastMetadata, shares: list[Message]
    ) -> None:
        """Send a recorded broadcast to its engines. Never raises."""
        if self._intake.carried_on:
            return
        if (error := self._intake.withdrawn.take(msg.header.msg_id)) is not None:
            self._fail_whole(idents, msg, metadata, shares, error)
            return
        broadcast = None
        if not metadata.is_coalescing:
            self._scattered.begin(idents, msg.header, msg.raw_header, len(shares))
        else:
            broadcast = Broadcast(idents, msg.header, msg.raw_header, metadata.targets)
            self._gathering.begin(broadcast)
            self._submitted(msg, metadata.label, None)
        note_chosen(metadata, self._by_ident)
        for (uuid, _), share in zip(metadata.targets, shares, strict=True):
            if broadcast is None:
                self._submitted(share, metadata.label, uuid)
            self._send_share(idents, uuid, share, broadcast)

    def _submitted(self, msg: Message, label: Any, uuid: str | None) -> None:
        self.submitted += 1
        if self._host.listening:
            header = msg.header
            self._announcer.request_came(
                "broadcast", header.msg_id, header.msg_type, header.session, label, msg.buffers, uuid
            )

    def _send_share(self, idents: list[bytes], uuid: str, share: Message, broadcast: Broadcast | None) -> None:
        engine = self._by_ident.get(_ident(uuid))
        direct = _sent_to(engine, Direct(idents, share.header, share.raw_header, _lane_of(engine), broadcast))
        if (stopping := self._intake.stopping) or engine is None:
            if engine is None and self._changes.has_left(uuid):
                self._answers.owed.leave_to_client(direct.broadcast or direct)
            self.fail_share(direct, uuid, EngineError(STOPPED) if stopping else self._gone.no_such_engine(_ident(uuid)))
        elif (error := self._intake.withdrawn.take(share.header.msg_id)) is not None:
            self.fail_share(direct, uuid, error)
        elif self.unanswered.sent(direct):
            self._routes.send(engine, self.channel_of(engine), [*idents, *share.frames], share.header.msg_id)

    def channel_of(self, engine: EngineConnector) -> str:
        """Return the channel on which broadcasts go to an engine."""
        return self.channels[engine.id % len(self.channels)]

    # From engines

    def save_broadcast_result(self, idents: list[bytes], msg: Message) -> None:
        """Pass on, or gather, an engine's answer to its share of a broadcast."""
        ident = idents[0]
        msg_id = msg.parent.msg_id
        direct = self.unanswered.pending.get(msg_id)
        if direct is None or direct.lane.ident != ident:
            if not self._late_results.record(ident, msg) and not self._routes.heard_probe(ident, msg_id):
                self._notices.ignore("unexpected_result", "a reply that was not asked for", uuid=ident, task=msg_id)
            return
        metadata = self._answers.metadata_of(msg)
        status = metadata.status or self._answers.status_in_content(msg)
        if ident in self._attended and self._attention.take(self, ident, msg, status):
            return
        self._answered(ident, msg_id, status)
        if direct.broadcast is None:
            asked = Asked.of("broadcast_in", direct)
            self._answers.save_result("broadcast", ident, msg, asked, metadata, status)
            self._request_ended(msg_id, Outcome(status == "ok", ident))
            self._scattered.share_ended(msg_id, direct.lane.ident.decode("utf-8", "replace"))
            return
        try:
            content = self._session.content(msg)
        except WireError as error:
            self._notices.unreadable("broadcast result", error)
            content = error_content("WireError", str(error))
        self._gathering.gather(direct.broadcast, ident.decode(), Answer(content, msg.buffers, metadata.started))
        if metadata.idle_topic is not None:
            self._answers.publish_idle(ident, msg, metadata.idle_topic)

    def _answered(self, ident: bytes, msg_id: str, status: Any) -> None:
        self.unanswered.answered(ident, msg_id)
        if status != "aborted" and (engine := self._by_ident.get(ident)) is not None:
            engine.completed += 1
        if ident in self._attended:
            self._attention.has_answered(ident)

    def fail_share(self, direct: Direct, engine_uuid: str, error: HubError) -> None:
        """Answer an engine's share of a broadcast with an error, and record the error. Never raises."""
        if direct.broadcast is not None:
            aborted = isinstance(error, TaskAborted)
            content = {"status": "aborted"} if aborted else error_content(type(error).__name__, str(error))
            self._gathering.gather(direct.broadcast, engine_uuid, Answer(content, []))
            return
        self._answers.fail(
            Asked.of("broadcast_in", direct),
            engine_uuid,
            error,
            is_broadcast=True,
            is_coalescing=False,
            original_msg_id=direct.header.msg_id.removesuffix(sub_msg_id("", engine_uuid)),
        )
        self._request_ended(direct.header.msg_id, Outcome(False, _ident(engine_uuid)))
        self._scattered.share_ended(direct.header.msg_id, engine_uuid)

    # Lost engines

    def engine_lost(self, engine: EngineConnector) -> None:
        """Answer, with an error, the shares that a lost engine has not answered."""
        for direct in self.unanswered.strand(engine.broadcast):
            self._answers.owed.leave_to_client(direct.broadcast or direct)
            if direct.broadcast is None:
                self._late_results.expect(engine, direct.header.msg_id)
            self.fail_share(direct, engine.uuid, died_while_running(engine, direct.header.msg_id))

    def engine_settled(self, engine: EngineConnector) -> None:
        """Do nothing: all shares were answered when the engine was lost."""

    def owes_answers(self, engine: EngineConnector) -> bool:
        """Return False: all shares were answered when the engine was lost."""
        return False

    # For the routes and for the failure boundary

    def outstanding(self, engine: EngineConnector) -> list[str]:
        """Return the msg_ids of the shares that an engine has not answered."""
        return list(engine.broadcast.pending)

    def give_up(self, ident: bytes, msg_id: str, error: HubError) -> None:
        """Answer a share with the error, if this engine has it."""
        direct = self.unanswered.answered(ident, msg_id)
        if direct is not None:
            self.fail_share(direct, ident.decode("utf-8", "replace"), error)

    def answer_lost(self, engine: EngineConnector, msg_id: str, cause: str) -> None:
        """Answer a share with an error: its answer was lost, and a second run might change the engine twice."""
        if not (engine.ident in self._attended and self._attention.lost(engine, msg_id)):
            self.give_up(engine.ident, msg_id, lost_on_its_way(engine, msg_id, cause))

    def repeatable(self, engine: EngineConnector, msg_ids: Sequence[str]) -> list[Direct]:
        """Return the unanswered shares among these: their broadcasts are recorded, so they can be sent again."""
        return [engine.broadcast.pending[msg_id] for msg_id in msg_ids if msg_id in engine.broadcast.pending]

    def frames_of(self, direct: Direct, record: TaskRecord) -> Frames:
        """Return the frames of a share, from the record of the share or of the broadcast. Raises `WireError`."""
        return share_frames(self._session, direct, record)

    def stop(self, error: HubError) -> None:
        """Answer all pending shares with the error."""
        for direct in list(self.unanswered.pending.values()):
            self.give_up(direct.lane.ident, direct.header.msg_id, error)

    # After a restart

    def count_restored(self) -> None:
        """Count a broadcast of an earlier hub, or a share of a broadcast whose answers are not gathered."""
        self.submitted += 1


def _ident(uuid: str) -> bytes:
    return uuid.encode("utf-8", "replace")


def _sent_to(engine: EngineConnector | None, direct: Direct) -> Direct:
    direct.behind = "" if engine is None else engine.newest_task
    return direct


def _lane_of(engine: EngineConnector | None) -> Lane:
    return Lane(b"") if engine is None else engine.broadcast
