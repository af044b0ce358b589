"""Hub and scheduler driven through registrations, deaths, submissions and replies of all kinds.

After every step the invariants hold: each task is in exactly one state, loads equal what is outstanding, no
table mentions an engine that is gone, and nothing is answered twice.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from trio_hub.hub import EngineConnector, EngineState
from trio_hub.schedulers.broadcast import sub_msg_id
from trio_hub.schedulers.schemes import SCHEMES
from trio_hub.schedulers.task import TaskState
from trio_hub.wire.messages import Message

from .world import Peer, World

pytestmark = pytest.mark.property

CLIENTS = [Peer(f"client{number}") for number in range(3)]


class HubMachine(RuleBasedStateMachine):
    """The machine plays three clients and any number of engines."""

    @initialize(hwm=st.sampled_from([0, 1, 2]), scheme=st.sampled_from(sorted(SCHEMES)))
    def start(self, hwm: int, scheme: str) -> None:
        self.world = World(hwm=hwm, scheme=scheme, max_heartmonitor_misses=1)
        self.hub = self.world.hub
        self.submitted: dict[str, str] = {}
        """The channel of each submitted request, by msg_id."""
        self.answers: Counter[str] = Counter()
        self.delivered: list[tuple[str, Message]] = []
        """The messages that engines were sent, each with its channel."""
        self.engines: list[EngineConnector] = []
        self.uuids = 0

    def collect(self) -> None:
        for channel, message in self.world.take():
            if channel.endswith("_out") and channel != "iopub_out":
                self.delivered.append((channel, message))
            elif channel in ("task_in", "mux_in", "control_in", "broadcast_in"):
                assert message.idents[0] in {client.ident for client in CLIENTS}
                self.answers[message.parent.msg_id] += 1
        self.engines += self.world.host.started
        self.world.host.started.clear()

    def pick(self, data: st.DataObject, *states: EngineState) -> EngineConnector | None:
        engines = [engine for engine in self.engines if engine.state in states]
        return data.draw(st.sampled_from(engines)) if engines else None

    # Engines

    @rule(requested=st.one_of(st.none(), st.integers(0, 5)), same=st.booleans(), data=st.data())
    def register(self, requested: int | None, same: bool, data: st.DataObject) -> None:
        self.uuids += 1
        uuid = f"engine{self.uuids}"
        if same and self.engines:
            uuid = data.draw(st.sampled_from(self.engines)).uuid
        in_use = uuid.encode() in self.hub.engines.by_ident or uuid.encode() in self.hub.engines.incoming_registrations
        used = {engine.id for engine in self.engines}
        reply = self.world.register(uuid, **({} if requested is None else {"id": requested}))
        assert (reply["status"] == "error") == in_use
        if not in_use and requested is None:
            assert reply["id"] not in used, "counted up, never used again"

    @rule(data=st.data())
    def beat(self, data: st.DataObject) -> None:
        if self.engines:
            self.world.beat(data.draw(st.sampled_from(self.engines)).uuid)  # an engine in any state

    @rule(data=st.data())
    def come_back(self, data: st.DataObject) -> None:
        """Have the heart of a gone engine beat, and have the engine prove that it is back."""
        engine = self.pick(data, EngineState.LOST, EngineState.SETTLED, EngineState.STALLED)
        if engine is None or self.hub.engines.gone.that_may_return(engine.ident) is not engine:
            return
        self.heard_and_asked(engine)
        assert engine.state is EngineState.ALIVE or engine.ident in self.world.host.unreachable

    def heard_and_asked(self, engine: EngineConnector) -> None:
        """Have the heart of a gone engine beat, and have the engine answer the hub's probe, if there is one."""
        self.world.beat(engine.uuid)
        self.hub.flush_route(engine, "task_out")
        question = engine.routes["task_out"].question if "task_out" in engine.routes else None
        self.collect()
        for channel, request in list(self.delivered):
            if request.header.msg_id == question:
                self.world.answer(engine.uuid, request, channel=channel)

    @rule()
    def weigh(self) -> None:
        self.hub.weigh_hearts()

    @rule(data=st.data())
    def stall(self, data: st.DataObject) -> None:
        if engine := self.pick(data, *EngineState):
            self.hub.purge_stalled_registration(engine)

    @rule(data=st.data(), how=st.sampled_from(["heart", "request", "iopub"]))
    def lose(self, data: st.DataObject, how: str) -> None:
        engine = self.pick(data, EngineState.ALIVE)
        if engine is None:
            return
        if how == "heart":
            self.hub.hearts.handle_heart_failure(engine.ident)
        elif how == "iopub":
            self.world.publish(engine.uuid, b"{}", "shutdown_reply", {"status": "ok"})
        else:
            frames = Peer(engine.uuid).session.write("unregistration_request", {"id": engine.id})
            self.hub.dispatch_query([engine.ident, *frames])
        assert engine.state is EngineState.LOST

    @rule(data=st.data())
    def settle(self, data: st.DataObject) -> None:
        if engine := self.pick(data, *EngineState):
            lost = engine.state is EngineState.LOST
            self.hub.handle_stranded(engine)
            assert not lost or engine.state is EngineState.SETTLED

    @rule(data=st.data())
    def out_of_reach(self, data: st.DataObject) -> None:
        if engine := self.pick(data, EngineState.ALIVE):
            self.world.host.unreachable ^= {engine.ident}

    @rule()
    def reach(self) -> None:
        for engine, channel in self.world.host.to_reach:
            reachable = engine.ident not in self.world.host.unreachable
            if self.hub.flush_route(engine, channel) or reachable:
                assert channel not in engine.routes or engine.routes[channel].question is not None
        self.world.host.to_reach = [route for route in self.world.host.to_reach if route[1] in route[0].routes]

    # Clients

    @rule(client=st.sampled_from(CLIENTS), retries=st.integers(0, 2), data=st.data())
    def submit(self, client: Peer, retries: int, data: st.DataObject) -> None:
        targets = data.draw(st.lists(st.sampled_from([e.uuid for e in self.engines] + ["nobody"]), max_size=3))
        self.submitted[self.world.submit(client, retries=retries, targets=targets)] = "task"

    @rule(client=st.sampled_from(CLIENTS), channel=st.sampled_from(["mux_in", "control_in"]), data=st.data())
    def call(self, client: Peer, channel: str, data: st.DataObject) -> None:
        uuid = data.draw(st.sampled_from([engine.uuid for engine in self.engines] + ["nobody"]))
        msg_type = "apply_request"
        if channel == "control_in":  # nowhere else do engines take the other
            msg_type = data.draw(st.sampled_from(["apply_request", "shutdown_request"]))
        self.submitted[self.world.call(uuid, client, msg_type, channel)] = channel

    @rule(client=st.sampled_from(CLIENTS), gather=st.booleans(), data=st.data())
    def broadcast(self, client: Peer, gather: bool, data: st.DataObject) -> None:
        known = sorted({engine.uuid for engine in self.engines} | {"nobody"})
        uuids = data.draw(st.lists(st.sampled_from(known), min_size=1, max_size=3, unique=True))
        metadata = {"targets": [(uuid, 0) for uuid in uuids], "is_broadcast": True, "is_coalescing": gather}
        frames = client.session.write("apply_request", {}, metadata=metadata)
        self.hub.dispatch_monitor_traffic("broadcast_in", [client.ident, *frames])
        msg_id = self.world.read(frames).header.msg_id
        for each in [msg_id] if gather else [sub_msg_id(msg_id, uuid) for uuid in uuids]:
            self.submitted[each] = "broadcast_in"

    # Replies: in time, late, twice, by others, forged

    @precondition(lambda self: self.delivered)
    @rule(
        data=st.data(),
        status=st.sampled_from(["ok", "error", "aborted"]),
        met=st.booleans(),
        by=st.sampled_from(["itself", "another", "a forger"]),
        keep=st.booleans(),
    )
    def answer(self, data: st.DataObject, status: str, met: bool, by: str, keep: bool) -> None:
        index = data.draw(st.integers(0, len(self.delivered) - 1))
        channel, request = self.delivered[index]
        settings: dict[str, Any] = {"dependencies_met": met or status == "ok"}
        uuid = request.idents[0].decode()
        if by == "a forger":
            settings["key"] = b"guess"
        elif by == "another" and len(self.engines) > 1:
            uuid = data.draw(st.sampled_from([engine.uuid for engine in self.engines]))
        elif not keep:
            del self.delivered[index]
        self.world.answer(uuid, request, {"status": status}, channel=channel, **settings)

    @rule()
    def status(self) -> None:
        self.collect()
        reply = self.world.query("queue_request", {"targets": None, "verbose": True})
        assert reply.pop("status") == "ok"
        assert set(reply.pop("unassigned")) == {task.msg_id for task in self.hub.tasks.scheduler.queue}
        assert set(reply) == {str(engine_id) for engine_id in self.hub.engines.alive}

    # Invariants

    @invariant()
    def nothing_is_answered_twice(self) -> None:
        self.collect()
        assert all(count == 1 for count in self.answers.values()), self.answers
        assert set(self.answers) <= set(self.submitted)

    @invariant()
    def each_request_is_in_exactly_one_state(self) -> None:
        self.collect()
        scheduler = self.hub.tasks.scheduler
        queued = [task.msg_id for task in scheduler.queue]
        running = [task.msg_id for task in scheduler.tasks.values() if task.state is TaskState.RUNNING]
        direct = (
            list(self.hub.direct.unanswered.pending)
            + list(self.hub.control.unanswered.pending)
            + list(self.hub.gathering.gathered)
        )
        direct += [
            msg_id for msg_id, share in self.hub.broadcasts.unanswered.pending.items() if share.broadcast is None
        ]
        states = Counter(queued) + Counter(running) + Counter(direct) + Counter(self.answers.keys())
        assert states == Counter(self.submitted.keys()), "lost, or in two states"
        assert len(queued) == len(scheduler.queue)

    @invariant()
    def gathered_broadcasts_wait_for_engines_that_are_there(self) -> None:
        self.collect()
        open_shares = {share.broadcast for share in self.hub.broadcasts.unanswered.pending.values() if share.broadcast}
        assert open_shares == set(self.hub.gathering.gathered.values())
        for broadcast in open_shares:
            owed = [share for share in self.hub.broadcasts.unanswered.pending.values() if share.broadcast is broadcast]
            assert len(owed) + len(broadcast.answers) == len(broadcast.targets)

    @invariant()
    def loads_equal_what_is_outstanding(self) -> None:
        self.collect()
        scheduler = self.hub.tasks.scheduler
        workers = {engine.worker for engine in self.engines if engine.worker is not None}
        outstanding: Counter[Any] = Counter(task.worker for task in scheduler.tasks.values() if task.worker)
        for worker in workers:
            assert worker.load == outstanding[worker]
            assert all(task.worker is worker for task in worker.running.values())
            if scheduler.hwm:
                assert worker.load <= scheduler.hwm
        assert set(outstanding) <= workers

    @invariant()
    def no_table_mentions_an_engine_that_is_gone(self) -> None:
        self.collect()
        hub = self.hub
        alive = {engine for engine in self.engines if engine.state is EngineState.ALIVE}
        registering = {engine for engine in self.engines if engine.state is EngineState.REGISTERING}
        lost = {engine for engine in self.engines if engine.state is EngineState.LOST}
        assert set(hub.engines.alive.values()) == set(hub.engines.by_ident.values()) == alive
        assert set(hub.engines.incoming_registrations.values()) == registering
        assert hub.engines.lost == lost
        assert set(hub.direct.late.values()) <= lost
        assert set(hub.tasks.scheduler.workers) == {engine.ident for engine in alive}
        assert len(hub.hearts.heartmonitor) == len(alive)
        assert all(engine.ident in hub.hearts.heartmonitor for engine in alive)
        for engine in self.engines:
            if engine.state in (EngineState.SETTLED, EngineState.STALLED):
                assert not engine.pending
                assert not engine.control.pending
            if engine.state is not EngineState.ALIVE:
                assert not engine.mux.pending
                assert not engine.broadcast.pending
                assert engine.routes.keys() <= {"task_out"}, "where a gone engine has to prove that it is back"
                assert not any(route.parked for route in engine.routes.values())

    @invariant()
    def no_engine_with_room_leaves_a_task_waiting_that_it_may_run(self) -> None:
        self.collect()
        scheduler = self.hub.tasks.scheduler
        for worker in scheduler.workers.values():
            has_room = not scheduler.hwm or worker.load < scheduler.hwm
            assert (worker in scheduler.with_room) == has_room
            if has_room:
                assert not any(task.accepts(worker.ident) for task in scheduler.queue)

    @invariant()
    def the_store_agrees(self) -> None:
        """Check that a record is completed exactly if its request is answered. Control requests have no record."""
        self.collect()
        store: Any = self.hub.store
        recorded = {msg_id for msg_id, channel in self.submitted.items() if channel != "control_in"}
        assert len(store) == len(recorded)

    def teardown(self) -> None:
        if not hasattr(self, "hub"):
            return
        self.hub.stop_serving()
        self.collect()
        assert set(self.answers) == set(self.submitted), "at the end everybody has been answered"
        for msg_id, channel in self.submitted.items():
            if channel != "control_in":
                assert self.world.record(msg_id)["completed"] is not None
        assert not any(error != "bad_signature" for error in self.hub.notices.wire_errors)


TestHubMachine = HubMachine.TestCase
TestHubMachine.settings = settings(max_examples=150, stateful_step_count=50, deadline=None)
