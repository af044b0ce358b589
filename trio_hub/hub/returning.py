"""After a restart: carrying on with what an earlier hub has left, in the store and on the engines.

The store knows which requests are not answered, and which engine each was for. What became of them there is found out
when the engine's heart is heard:

- an answer that the engine still holds comes by itself, once its connection is back;
- direct requests are sent once more, with the same bytes. An engine that has had one drops it;
- then the engine is asked something trivial, by the same channel. It answers in the order in which it was asked: when
  that answer is here, every answer that it had before is here too, and what is still open was lost on its way.

A load-balanced task whose answer was lost is run again. A direct request, or a share of a broadcast, is not, since it
may have changed the engine's state: its client gets an error that says so.
"""

from __future__ import annotations

from collections.abc import Awaitable, Container, Generator
from datetime import timedelta
from typing import Any

from ..errors import EngineError, HubError, WireError
from ..logs import get_logger
from ..schedulers.broadcast import Broadcast, sub_msg_id
from ..schedulers.relay import Direct, Lane
from ..schedulers.task import Task, Worker
from ..store.record import TaskRecord
from ..wire.frames import Frames
from ..wire.messages import Message
from .broadcasting import Broadcasting, noted_share
from .connector import EngineConnector, EngineState, Probe, Route
from .custody import custody_of, identities, request_frames
from .state import queue_of

__all__ = ["Returning"]

log = get_logger("trio_hub.hub")

JUST_NOW = timedelta(seconds=2)
"""A result that is older than the last one by more than this has been sent, if it was not noted as owed."""
SENT_AT_A_TIME = 100
"""Direct requests that are read from the store at a time."""
PROBE = "kernel_info_request"
RESTARTED = "the hub was started anew"
DISCONNECTED = "the connection to the engine broke"
"""What requests can be lost by."""


class Returning(Broadcasting):
    """The part of the hub that takes over from another."""

    # Requests

    def take_over(self) -> Generator[Awaitable[Any], Any, int]:
        """Carry on with the requests in the store; before anything is received, and after `restore_engines`.

        Yields what is to be awaited, like a query, and returns how many requests there are.
        """
        records: list[TaskRecord] = yield self.store.unfinished()
        messages = {record.msg_id: self._message_of(record) for record in records}
        for msg_id, session in (yield self.store.undelivered(JUST_NOW)):
            if self._was_delivered(msg_id):
                self.store.update(msg_id, {"owed": False})  # which may not have reached the disk, and notes do not last
            else:
                # The hub before may have been killed before it noted that. Should this one be, too, it may be so late
                # then that the next does not think of it.
                self.owe(session, msg_id)
        self._expect_engines(records, messages)
        shares: dict[str, TaskRecord] = yield self.store.get(
            [
                sub_msg_id(record.msg_id, uuid)
                for record in records
                if record.queue == "broadcast" and record.engine_uuid is None
                for uuid in self._targets(messages[record.msg_id])
            ]
        )
        waiting: list[Task] = []
        for record in records:
            message = messages[record.msg_id]
            try:
                if message is None:
                    raise WireError("malformed", "its record is damaged")
                self.submitted[queue_of(record.queue)] += 1
                if record.queue == "task":
                    self._take_over_task(record, message, waiting)
                elif record.queue == "mux" or record.engine_uuid is not None:
                    self._take_over_direct(record, message)
                else:
                    self._take_over_broadcast(message, shares)
            except HubError as error:
                self._give_up(record, message, EngineError(f"the hub cannot carry on with {record.msg_id}: {error}"))
        for task in waiting:
            self.scheduler.submit(task)
        return len(records)

    def write_off(self) -> Generator[Awaitable[Any], Any, int]:
        """Nobody will answer the requests in the store: record that. Yields and returns like `take_over`."""
        records: list[TaskRecord] = yield self.store.unfinished()
        for record in records:
            message = self._message_of(record)
            for uuid in self._targets(message) if record.queue == "broadcast" and record.engine_uuid is None else ():
                self.store.discard(sub_msg_id(record.msg_id, uuid))
            self._give_up(
                record, message, EngineError("the hub ended before it was answered, and was not told to carry on")
            )
        return len(records)

    def _was_delivered(self, msg_id: str) -> bool:
        return self.deliveries is not None and self.deliveries.was_delivered(msg_id)

    def _message_of(self, record: TaskRecord) -> Message | None:
        """The request, without content and buffers; None if the record is damaged."""
        try:
            return self.session.read_trusted(self._identities(record), request_frames(record, self.session))
        except WireError as error:
            log.warning("a record is damaged", task=record.msg_id, error=error)
            return None

    def _identities(self, record: TaskRecord) -> list[bytes]:
        """Whom to answer: nobody, if the client has got the result, and only the record has not."""
        if self._was_delivered(record.msg_id):
            self.presumed[record.msg_id] = record.client_uuid or ""
            return []
        return identities(custody_of(record))

    def asked_about(self, session: str, records: list[TaskRecord]) -> None:
        """A client asks whether these are completed. Of those that are its own, it waits for the results.

        The hub before may have noted that it sent one, and been killed before it left: then it is sent now, once.
        """
        for record in records:
            msg_id = record.msg_id
            if record.client_uuid != session or msg_id in self.sent_again or not self._was_delivered(msg_id):
                continue
            self.sent_again.add(msg_id)
            self.clients.owe(session, msg_id)
            for channel, place in self.clients.places(session, f"{record.queue}_in")[:1]:
                self._deliver_owed(channel, place, session, self.clients.settle(session))

    def _targets(self, message: Message | None) -> list[str]:
        try:
            return [] if message is None else [uuid for uuid, _ in self.session.broadcast_metadata(message).targets]
        except WireError:
            return []

    def _expect_engines(self, records: list[TaskRecord], messages: dict[str, Message | None]) -> None:
        """Engines that have requests, and that no list of engines names: they may have come at the very last."""
        uuids = {record.engine_uuid for record in records if record.engine_uuid is not None}
        for record in records:
            if record.queue == "broadcast" and record.engine_uuid is None:
                uuids.update(self._targets(messages[record.msg_id]))
        for uuid in sorted(uuids):
            if uuid.encode("utf-8", "replace") not in self.by_ident:
                self.restore_engine(None, uuid)

    def _give_up(self, record: TaskRecord, message: Message | None, error: HubError) -> None:
        session = record.client_uuid or ""
        if message is None:
            msg_type = "apply_request"
            raw_header = self.session.packer.pack({"msg_id": record.msg_id, "msg_type": msg_type, "session": session})
            idents = self._identities(record)
        else:
            msg_type, raw_header, idents = message.header.msg_type, message.raw_header, message.idents
        self._answer_with_error(
            f"{record.queue}_in", idents, session, record.msg_id, raw_header, msg_type, record.engine_uuid, error
        )

    def _take_over_task(self, record: TaskRecord, message: Message, waiting: list[Task]) -> None:
        custody = custody_of(record)
        task = self.make_task(message.idents, message, self.session.task_metadata(message))
        task.frames = None
        task.restored = task.again = True
        if custody.retries is not None:
            task.retries = custody.retries
        task.refused = frozenset(custody.refused)
        task.unmet = frozenset(custody.unmet)
        if task.timeout and record.submitted is not None:
            waited = (self.now() - record.submitted).total_seconds()
            task.timeout = max(task.timeout - max(waited, 0.0), 0.001)
        engine = self._engine_of(record.engine_uuid)
        if engine is None or engine.worker is None:
            waiting.append(task)
        else:
            self.scheduler.inherit(task, engine.worker)

    def _engine_of(self, uuid: str | None) -> EngineConnector | None:
        return None if uuid is None else self.by_ident.get(uuid.encode("utf-8", "replace"))

    def _take_over_direct(self, record: TaskRecord, message: Message) -> None:
        engine = self._engine_of(record.engine_uuid)
        if engine is None:
            raise EngineError("it names no engine")
        relay, lane = (self.mux, engine.mux) if record.queue == "mux" else (self.broadcast, engine.broadcast)
        direct = Direct(message.idents, message.header, message.raw_header, lane)
        direct.restored = True
        relay.sent(direct)

    def _take_over_broadcast(self, message: Message, shares: dict[str, TaskRecord]) -> None:
        header = message.header
        broadcast = Broadcast(
            message.idents, header, message.raw_header, self.session.broadcast_metadata(message).targets
        )
        self.gathered[header.msg_id] = broadcast
        open_shares = []
        for uuid, _ in broadcast.targets:
            msg_id = sub_msg_id(header.msg_id, uuid)
            answer = noted_share(shares[msg_id]) if msg_id in shares else None
            if answer is not None:
                broadcast.answered(uuid, answer)
            else:
                engine = self._engine_of(uuid)
                lane = Lane(b"") if engine is None else engine.broadcast
                direct = Direct(message.idents, header.renamed(msg_id), message.raw_header, lane, broadcast)
                direct.restored = True
                open_shares.append((uuid, direct))
        if not open_shares:
            self.finish_broadcast(broadcast)
        for uuid, direct in open_shares:
            if direct.lane.ident:
                self.broadcast.sent(direct)
            else:
                self.fail_share(direct, uuid, EngineError(f"Engine {uuid} is not registered (any more)"))

    # Engines

    def engine_returned(self, engine: EngineConnector) -> None:
        directs = [*engine.mux.pending.values(), *engine.broadcast.pending.values()]
        self._send_again(engine, [direct for direct in directs if direct.restored], [])

    def _send_again(self, engine: EngineConnector, directs: list[Direct], unsent: list[tuple[str, Frames]]) -> None:
        """Send an engine what it may not have got, then ask it whether it has.

        Its connections may be open later than its heart is heard: what cannot be sent yet is kept in `unsent`.
        """
        now, later = directs[:SENT_AT_A_TIME], directs[SENT_AT_A_TIME:]
        if not now:
            self._sort_out(engine, unsent)
            return

        def send(answer: Any) -> None:
            if engine.state is not EngineState.ALIVE:
                return
            records: dict[str, TaskRecord] = {} if isinstance(answer, Exception) else answer
            for direct in now:
                record = records.get(_recorded_as(direct))
                if record is not None:
                    channel = "mux_out" if direct.lane is engine.mux else self.broadcast_channel(engine)
                    frames = [*direct.idents, *self._request_frames(direct, record)]
                    if unsent or not self.host.send(channel, [engine.ident, *frames]):
                        unsent.append((channel, frames))
            self._send_again(engine, later, unsent)

        msg_ids = list({_recorded_as(direct): None for direct in now})
        self.host.ask_store(lambda store: store.get(msg_ids), send)

    def _request_frames(self, direct: Direct, record: TaskRecord) -> Frames:
        frames = request_frames(record, self.session)
        if direct.broadcast is None:
            return frames
        [share] = self.divide(self.session.read_trusted([], frames), [direct.lane.ident.decode("utf-8", "replace")])
        return share.frames

    def _sort_out(self, engine: EngineConnector, unsent: list[tuple[str, Frames]]) -> None:
        """An engine has been sent all that it was to have: ask it whether it has answered, and give it new work."""
        engine.awaited = False
        worker = engine.worker
        assert worker is not None
        parked, engine.parked = engine.parked, []
        for channel, frames in unsent:
            self.send_to_engine(engine, channel, frames)
        self._probe(engine, "task_out", list(worker.running), RESTARTED, last=True)
        self._probe(engine, "mux_out", _restored(engine.mux), RESTARTED, last=True)
        self._probe(engine, self.broadcast_channel(engine), _restored(engine.broadcast), RESTARTED, last=True)
        for channel, frames in parked:
            self.send_to_engine(engine, channel, frames)
        self.scheduler.engine_back(worker)

    def _probe(self, engine: EngineConnector, channel: str, msg_ids: list[str], cause: str, *, last: bool) -> None:
        if msg_ids:
            header = self.session.new_header(PROBE)
            self.probes[header["msg_id"]] = Probe(engine, channel, dict.fromkeys(msg_ids), cause, last)
            self.send_to_engine(engine, channel, self.session.write(PROBE, {}, header=header))

    def handle_stranded(self, engine: EngineConnector) -> None:
        super().handle_stranded(engine)
        if engine.state is EngineState.SETTLED:
            self.probes = {msg_id: probe for msg_id, probe in self.probes.items() if probe.engine is not engine}

    def heard_probe(self, ident: bytes, msg_id: str) -> bool:
        probe = self.probes.get(msg_id)
        if probe is None or probe.engine.ident != ident:
            return False
        del self.probes[msg_id]
        engine, channel = probe.engine, probe.channel
        open_lane = engine.mux if channel == "mux_out" else engine.broadcast
        again = (
            [open_lane.pending[lost] for lost in probe.msg_ids if lost in open_lane.pending] if not probe.last else []
        )
        for lost in () if again else probe.msg_ids:
            if channel == "task_out":
                task = self.scheduler.running_on(ident, lost)
                if task is not None:
                    log.warning("a result was lost: the task is run again", task=lost, engine=engine.id)
                    self.scheduler.run_again(task)
                continue
            error = EngineError(
                f"{probe.cause} while {lost} was under way, and its result was lost: engine {engine.id} "
                "has had the request, and may have carried it out"
            )
            if channel == "mux_out":
                if (direct := self.mux.answered(ident, lost)) is not None:
                    self.fail_direct(direct, engine.uuid, error)
            elif channel == "control_out":
                if (direct := self.control.answered(ident, lost)) is not None:
                    self.answer_control_with_error(direct, engine, error)
            elif (direct := self.broadcast.answered(ident, lost)) is not None:
                self.fail_share(direct, engine.uuid, error)
        route = engine.routes.get(channel)
        if route is not None and route.question == msg_id:
            route.suspect, route.question = False, None
            if again:
                self._send_once_more(engine, channel, again)
            self.flush_route(engine, channel)
            route.look()
        elif again:
            self._send_once_more(engine, channel, again)
        return True

    def _send_once_more(self, engine: EngineConnector, channel: str, directs: list[Direct]) -> None:
        """Send requests again that may never have arrived, with the same bytes: an engine drops what it has had.

        If the engine has had one, its answer was lost on its way. So the next question is the last.
        """

        def send(answer: Any) -> None:
            if engine.state is not EngineState.ALIVE:
                return
            records: dict[str, TaskRecord] = {} if isinstance(answer, Exception) else answer
            for direct in directs:
                record = records.get(_recorded_as(direct))
                if record is not None and direct.header.msg_id in direct.lane.pending:
                    self.send_to_engine(engine, channel, [*direct.idents, *self._request_frames(direct, record)])
            self._probe(engine, channel, [direct.header.msg_id for direct in directs], DISCONNECTED, last=True)

        msg_ids = list({_recorded_as(direct): None for direct in directs})
        self.host.ask_store(lambda store: store.get(msg_ids), send)

    # Connections that break while the engine lives

    def connection_lost(self, channel: str, ident: bytes | None, others: Container[bytes] = ()) -> None:
        """The connection of an engine on a channel has broken, and its heart may go on.

        What was sent into it may be lost, and so may what the engine has answered. And whoever connects next under the
        engine's name need not be the engine. So a question goes out first, as soon as the engine can be reached again:
        the answer is signed, and comes after all that the engine had answered before.

        Args:
            channel: by which the hub sends to engines, such as ``"task_out"``.
            ident: whose connection it was; None if nothing was ever received by it.
            others: if `ident` is None, engines whose connections on this channel it was not.
        """
        if ident is not None:
            engine = self.by_ident.get(ident)
            if engine is not None and not engine.awaited:
                self._suspect(engine, channel)
            return
        for engine in list(self.engines.values()):
            if engine.ident not in others and not engine.awaited and channel not in engine.routes:
                self._probe(engine, channel, self._outstanding(engine, channel), DISCONNECTED, last=False)

    def _suspect(self, engine: EngineConnector, channel: str) -> None:
        route = engine.routes.get(channel)
        if route is None:
            engine.routes[channel] = Route(suspect=True)
            self.host.reach_engine(engine, channel)
            return
        self.probes.pop(route.question or "", None)
        route.suspect, route.question = True, None
        route.look()

    def ask_for_proof(self, engine: EngineConnector, channel: str, route: Route) -> bool:
        header = self.session.new_header(PROBE)
        frames = self.session.write(PROBE, {}, header=header)
        msg_ids = dict.fromkeys(self._outstanding(engine, channel))
        if not self.host.send(channel, [engine.ident, *frames]):
            return False
        route.question = header["msg_id"]
        self.probes[header["msg_id"]] = Probe(engine, channel, msg_ids, DISCONNECTED, False)
        return True

    def _outstanding(self, engine: EngineConnector, channel: str) -> list[str]:
        """What an engine has been sent on a channel and not answered."""
        if channel == "task_out":
            return list(engine.worker.running) if engine.worker else []
        lane = {"mux_out": engine.mux, "control_out": engine.control}.get(channel, engine.broadcast)
        return list(lane.pending)

    def sent_behind_probes(self, task: Task, worker: Worker) -> None:
        for probe in self.probes.values():
            if probe.engine.ident == worker.ident:
                probe.msg_ids.pop(task.msg_id, None)

    def give_up_control(self, engine: EngineConnector) -> None:
        """The control channel of an engine cannot be reached: its requests fail, and the engine goes on working."""
        route = engine.routes.pop("control_out", None)
        if route is not None:
            self.probes.pop(route.question or "", None)
            log.warning("the control channel of an engine cannot be reached", engine=engine.id, uuid=engine.uuid)
            error = EngineError(f"engine {engine.id} cannot be reached on its control channel: has its nanny ended?")
            for direct in self.control.strand(engine.control):
                self.answer_control_with_error(direct, engine, error)

    def adopted(self, ident: bytes, msg_id: str) -> Task | None:
        task = self.scheduler.tasks.get(msg_id)
        engine = self.by_ident.get(ident)
        if task is None or not task.restored or engine is None or engine.worker is None:
            return None
        if task.held:
            self.let_go(task)
        self.scheduler.adopt(task, engine.worker)
        return task


def _restored(lane: Lane) -> list[str]:
    return [msg_id for msg_id, direct in lane.pending.items() if direct.restored]


def _recorded_as(direct: Direct) -> str:
    return direct.header.msg_id if direct.broadcast is None else direct.broadcast.header.msg_id
