"""The queues as the hub sees them: every request and reply is relayed and recorded in one step.

A message on its way out keeps the frames it came in; only its routing identities change.
"""

from __future__ import annotations

from sys import intern
from typing import Any

from ..errors import EngineError, HubError, InvalidDependency, WireError
from ..schedulers.dependencies import Outcome
from ..schedulers.relay import Direct, Relay
from ..schedulers.task import Task, TaskState, Worker
from ..store.record import TaskRecord
from ..wire.frames import Frames, to_bytes
from ..wire.messages import Message, TaskMetadata
from .admitting import Admitting
from .answering import STOPPED, no_such_engine
from .connector import EngineConnector
from .custody import Custody
from .events import TaskAssigned, TaskSubmitted
from .records import init_record, outcome_of

__all__ = ["Monitoring"]

HUB = b"trio-hub"
"""Stands where a client's identity does in what the hub itself asks of an engine."""


class Monitoring(Admitting):
    """The part of the hub through which requests and replies pass. Each handler gets identities and message."""

    # The task queue

    def save_task_request(self, idents: list[bytes], msg: Message, *, admitted: bool = False) -> None:
        """A client submits a task: record it, and give it to the scheduler."""
        if not admitted and not self.admit("task_in", idents, msg, self.save_task_request):
            return
        if self.stopping:
            self._refuse("task_in", idents, msg, EngineError(STOPPED))
            return
        packer = self.session.packer
        try:
            metadata = self.session.task_metadata(msg)
            record = init_record(msg, packer, queue="task", now=self.now(), label=metadata.label)
            task = self.make_task(idents, msg, metadata)
        except (WireError, InvalidDependency) as error:
            self._refuse("task_in", idents, msg, error)
            return
        self.record(record, idents, msg)
        self.when_recorded(record.msg_id, lambda: self.submit_task(task, metadata.label))

    def make_task(self, idents: list[bytes], msg: Message, metadata: TaskMetadata) -> Task:
        """Raises `WireError` and `InvalidDependency`."""
        header = msg.header
        return Task(
            header.msg_id,
            idents,
            msg.frames,
            session=intern(header.session),
            msg_type=header.msg_type,
            raw_header=msg.raw_header,
            metadata=metadata,
        )

    def submit_task(self, task: Task, label: Any = None) -> None:
        """A task that is recorded already goes to the scheduler."""
        if self.carried_on:
            return
        self.submitted["task"] += 1
        if self.host.listening:
            label = self.labels.of(label, task.msg_type, () if task.frames is None else task.frames[6:])
            self.host.emit(TaskSubmitted(task.msg_id, "task", label, task.session))
        if self.stopping:
            self.task_failed(task, None, EngineError(STOPPED))
            return
        self.scheduler.submit(task)
        if task.worker is None and task.state is not TaskState.DONE:
            self.hold(task)

    def task_assigned(self, task: Task, worker: Worker) -> None:
        engine = self.by_ident[worker.ident]
        if self.probes:
            self.sent_behind_probes(task, worker)
        self.save_task_destination(task, engine)
        if task.held:
            self.let_go(task)
        if task.frames is None:
            self.fetch(task)
        else:
            self.send_task(task, engine, task.frames)

    def send_task(self, task: Task, engine: EngineConnector, frames: Frames) -> None:
        """Send a task to the engine that the scheduler has chosen."""
        if task.again:
            if self.store.durable:
                self.store.update(task.msg_id, {"custody": self._custody_of(task, frames).pack()})
            frames = self._next_attempt(task, frames)
        task.again = True
        self.send_to_engine(engine, "task_out", [*task.idents, *frames])

    def _next_attempt(self, task: Task, frames: Frames) -> Frames:
        """The task as a new message, with the retries that are left.

        It may go to an engine that has had it before, and an engine drops what it has seen before. So no two attempts
        are the same, those of different hubs included.
        """
        packer = self.session.packer
        _, _, header, parent, metadata, content, *buffers = frames
        changes = {"retries": task.retries, "attempt": self.session.new_msg_id()}
        metadata = packer.repacked(to_bytes(metadata), changes)
        return self.session.seal([header, parent, metadata, content], buffers)

    def _custody_of(self, task: Task, frames: Frames) -> Custody:
        _, _, header, parent, metadata, content, *_ = map(to_bytes, frames[:6])
        return Custody(
            task.idents,
            parent,
            None if self.session.packer.is_json else (header, metadata, content),
            task.retries,
            sorted(task.refused),
            sorted(task.unmet),
        )

    def save_task_destination(self, task: Task, engine: EngineConnector) -> None:
        """The scheduler has chosen an engine: record which."""
        self.store.update(task.msg_id, {"engine_uuid": engine.uuid})
        if self.host.listening:
            self.host.emit(TaskAssigned(task.msg_id, engine.uuid))

    def save_task_result(self, idents: list[bytes], msg: Message) -> None:
        """An engine answers a task: record it and pass it on, or let another engine try."""
        ident = idents[0]
        msg_id = msg.parent.msg_id
        task = self.scheduler.running_on(ident, msg_id) or self.adopted(ident, msg_id)
        if task is None:
            if not self.heard_probe(ident, msg_id):
                self.ignore("unexpected_result", "a reply to a task that it does not run", uuid=ident, task=msg_id)
            return
        metadata = self._result_metadata(msg)
        status = metadata.status or self._status_in_content(msg)
        final = self.scheduler.result(
            task, ok=status == "ok", aborted=status == "aborted", dependencies_met=metadata.dependencies_met
        )
        if final:
            self._save_result("task", ident, msg, msg_id, task.raw_header, metadata.started, status)
            self._deliver("task_in", task.idents, task.session, msg_id, [ident, *msg.frames])

    def task_failed(self, task: Task, worker: Worker | None, error: HubError) -> None:
        if task.held:
            self.let_go(task)
        uuid = worker.ident.decode("utf-8", "replace") if worker else None
        self._answer_with_error(
            "task_in", task.idents, task.session, task.msg_id, task.raw_header, task.msg_type, uuid, error
        )

    def ask_outcomes(self, task: Task, msg_ids: list[str]) -> None:
        """Tasks depend on requests that ended so long ago that only the store may know them."""

        def tell(answer: Any) -> None:
            records: dict[str, TaskRecord] = {} if isinstance(answer, Exception) else answer
            outcomes = {msg_id: outcome_of(record) for msg_id, record in records.items() if record.completed}
            self.scheduler.outcomes_known(task, outcomes)

        self.host.ask_store(lambda store: store.get(msg_ids), tell)

    # The direct queue

    def save_queue_request(self, idents: list[bytes], msg: Message, *, admitted: bool = False) -> None:
        """A client sends a request to one engine: record it and pass it on, or say that there is no such engine."""
        if not admitted and not self.admit("mux_in", idents, msg, self.save_queue_request):
            return
        sender = idents[:1] + idents[2:]
        if self.stopping:
            self._refuse("mux_in", sender, msg, EngineError(STOPPED))
            return
        try:
            label = self.session.task_metadata(msg).label
            record = init_record(msg, self.session.packer, queue="mux", now=self.now(), label=label)
        except WireError as error:
            self._refuse("mux_in", sender, msg, error)
            return
        if not msg.header.msg_type.endswith("_request"):  # a message of a comm, which nobody answers
            self.when_safe(lambda: self._relay_comm(idents, msg))
            return
        if len(idents) < 2:  # nothing to be recorded: no engine could have had it
            self._refuse("mux_in", sender, msg, no_such_engine(idents))
            return
        record.engine_uuid = idents[1].decode("utf-8", "replace")
        self.record(record, sender, msg)
        self.when_recorded(record.msg_id, lambda: self.submit_direct(idents, msg, label))

    def _relay_comm(self, idents: list[bytes], msg: Message) -> None:
        self._relay_request("mux", self.mux, idents, msg)

    def submit_direct(self, idents: list[bytes], msg: Message, label: Any = None) -> None:
        """A direct request that is recorded already goes to its engine."""
        if self.carried_on:
            return
        header = msg.header
        self.submitted["mux"] += 1
        if self.host.listening:
            name = self.labels.of(label, header.msg_type, msg.buffers)
            uuid = idents[1].decode("utf-8", "replace")
            self.host.emit(TaskSubmitted(header.msg_id, "mux", name, header.session, uuid))
        engine = None if self.stopping else self._relay_request("mux", self.mux, idents, msg)
        if engine is None:
            self._answer_with_error(
                "mux_in",
                idents[:1] + idents[2:],
                header.session,
                header.msg_id,
                msg.raw_header,
                header.msg_type,
                idents[1].decode("utf-8", "replace"),
                EngineError(STOPPED) if self.stopping else no_such_engine(idents),
            )

    def save_queue_result(self, idents: list[bytes], msg: Message) -> None:
        """An engine answers a direct request: record it and pass it on."""
        ident = idents[0]
        msg_id = msg.parent.msg_id
        direct = self.mux.answered(ident, msg_id)
        if direct is not None:
            metadata = self._result_metadata(msg)
            status = metadata.status or self._status_in_content(msg)
            self._save_result("mux", ident, msg, msg_id, direct.raw_header, metadata.started, status)
            self._deliver("mux_in", direct.idents, direct.header.session, msg_id, [ident, *msg.frames])
            self._direct_ended(msg_id, Outcome(status == "ok", ident))
        elif msg_id in self.late and self.late[msg_id].ident == ident:
            # The client has its EngineError; the record gets the truth.
            del self.late[msg_id]
            self._record_result(ident, msg, msg_id, b"", self._result_metadata(msg).started)
            self.ignore("late_result", "a reply of an engine that was lost; it is recorded", uuid=ident, task=msg_id)
        elif not self.heard_probe(ident, msg_id):
            self.ignore("unexpected_result", "a reply to a request that it was not asked", uuid=ident, task=msg_id)

    def fail_direct(self, direct: Direct, engine_uuid: str, error: HubError) -> None:
        self._end_with_error("mux_in", direct, engine_uuid, error)

    def _end_with_error(self, channel: str, direct: Direct, engine_uuid: str, error: HubError, **metadata: Any) -> None:
        """Answer a request to one engine with an error, and tell the tasks that depend on it."""
        header = direct.header
        self._answer_with_error(
            channel,
            direct.idents,
            header.session,
            header.msg_id,
            direct.raw_header,
            header.msg_type,
            engine_uuid,
            error,
            **metadata,
        )
        self._direct_ended(header.msg_id, Outcome(False, engine_uuid.encode("utf-8", "replace")))

    def _direct_ended(self, msg_id: str, outcome: Outcome) -> None:
        if msg_id in self.scheduler.dependents:
            self.scheduler.ended(msg_id, outcome)

    # The control channel: relayed, watched for engines that die, and not recorded

    def relay_control_request(self, idents: list[bytes], msg: Message, *, admitted: bool = False) -> None:
        """A client asks something of an engine's control channel."""
        if not admitted and not self.admit("control_in", idents, msg, self.relay_control_request):
            return
        engine = self._relay_request("control", self.control, idents, msg)
        if engine is None:
            self._refuse("control_in", idents[:1] + idents[2:], msg, no_such_engine(idents))

    def shutdown_engine(self, engine: EngineConnector) -> None:
        """Ask an engine to end, as a client does; nobody is told of its answer but by its end."""
        header = self.session.new_header("shutdown_request")
        frames = self.session.write("shutdown_request", {"restart": False}, header=header)
        self.session.note(frames, lasting=True)
        message = self.session.read_trusted([], frames)
        self.control.sent(Direct([], message.header, message.raw_header, engine.control))
        self.send_to_engine(engine, "control_out", [HUB, *frames])

    def relay_control_result(self, idents: list[bytes], msg: Message) -> None:
        """An engine answers on its control channel."""
        direct = self.control.answered(idents[0], msg.parent.msg_id)
        if direct is None:
            if not self.heard_probe(idents[0], msg.parent.msg_id):
                self.ignore(
                    "unexpected_result",
                    "a control reply that was not asked for",
                    uuid=idents[0],
                    task=msg.parent.msg_id,
                )
        else:
            self._send_back("control_in", direct.idents, [idents[0], *msg.frames])

    # IOPub

    def monitor_iopub_message(self, topics: list[bytes], msg: Message) -> None:
        """An engine publishes output: pass it on to all clients, and record it."""
        msg_type = msg.header.msg_type
        if msg_type.endswith(("_request", "_reply")) and msg_type != "shutdown_reply":
            self.ignore("not_output", f"{msg_type!r} is no output", task=msg.parent.msg_id, channel="iopub")
            return
        self.host.send("iopub_out", [*topics, *msg.frames])
        if msg_type == "shutdown_reply":
            engine = self.by_ident.get(msg.header.session.encode("utf-8", "replace"))
            if engine is not None:
                self.lose_engine(engine, "shutdown")
        elif msg_type in _OUTPUT and msg.parent.msg_id:
            self.save_iopub_message(topics, msg)

    def save_iopub_message(self, topics: list[bytes], msg: Message) -> None:
        """Record the output of a request."""
        msg_id = msg.parent.msg_id
        try:
            content = self.session.content(msg)
            if msg.header.msg_type == "stream":
                name, text = content.get("name"), content.get("text")
                if name not in ("stdout", "stderr") or not isinstance(text, str):
                    raise WireError("wrong_type", f"a stream message must name stdout or stderr, not {name!r}")
                self.store.append(msg_id, name, text)
            elif msg.header.msg_type == "execute_input":
                code = content.get("code")
                if not isinstance(code, str):
                    raise WireError("wrong_type", "an execute_input message without code")
                self.store.update(msg_id, {"execute_input": code})
            else:
                self.store.update(msg_id, {msg.header.msg_type: self.session.packer.to_json(msg.raw_content)})
        except WireError as error:
            self.unreadable("iopub", error)

    # The end

    def stop_serving(self, *, carried_on: bool = False) -> None:
        """The hub stops: answer whoever waits, and whoever comes from now on, and tell all clients. Idempotent.

        If another hub is to carry on, what is recorded is left to that one, and clients are not told, since a stock
        client then closes its connections; only requests that are not recorded are answered.
        """
        if self.stopping:
            return
        self.stopping = True
        self.carried_on = carried_on
        error = EngineError(STOPPED)
        self.stop_waiting(error)
        engines = [*self.engines.values(), *self.lost]
        for engine in engines:
            for direct in self.control.strand(engine.control):
                self.answer_control_of_lost(direct, engine)
        if carried_on:
            return
        self.scheduler.abandon_all(error)
        for engine in engines:
            for direct in self.mux.strand(engine.mux):
                self.fail_direct(direct, engine.uuid, error)
            for direct in self.broadcast.strand(engine.broadcast):
                self.fail_share(direct, engine.uuid, error)
        self.notify("shutdown_notification", {"status": "ok"})

    def _relay_request(self, name: str, relay: Relay, idents: list[bytes], msg: Message) -> EngineConnector | None:
        """Pass a request on to the engine that its second identity names; None if there is no such engine."""
        engine = self.by_ident.get(idents[1]) if len(idents) > 1 else None
        if engine is None:
            return None
        sender = idents[:1] + idents[2:]
        if msg.header.msg_type.endswith("_request"):
            lane = engine.mux if relay is self.mux else engine.control
            if not relay.sent(Direct(sender, msg.header, msg.raw_header, lane)):
                self.ignore(
                    "duplicate_msg_id", "the request is on its way already", task=msg.header.msg_id, engine=engine.id
                )
                return engine
        self.send_to_engine(engine, f"{name}_out", [*sender, *msg.frames])
        return engine


_OUTPUT = frozenset(("stream", "error", "execute_input", "execute_result"))
