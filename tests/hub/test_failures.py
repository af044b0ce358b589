"""The failure boundary: an unexpected error affects only the message or request that was being handled.

The machine of `test_state_machine` goes on while the store, the packer or the host raises at its k-th call, at any
place and in any order of messages. After each step its invariants hold: each request is answered exactly once, or is
owed, or is still somewhere. And the hub answers the next query.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import initialize, invariant, rule

from trio_hub.hub import EngineState
from trio_hub.records import MemoryStore, Store
from trio_hub.schedulers.broadcast import sub_msg_id
from trio_hub.schedulers.schemes import SCHEMES
from trio_hub.schedulers.task import TaskState
from trio_hub.wire.messages import Message, Session

from .durable import DurableStore
from .test_state_machine import CLIENTS, HubMachine
from .world import FakeHost, Peer, World

HOST = ("send", "soon", "start_engine", "reach_engine", "emit", "ask_store", "hold_intake", "call_later")
STORE = ("add", "update", "append", "discard", "after_commit")
PACKER = ("pack", "unpack_untrusted", "to_json")


pytestmark = pytest.mark.property


class Broken(Exception):
    """An unexpected exception."""


class Fault:
    """Makes the host, the store and the packer of a hub raise: once, at the k-th of their calls."""

    def __init__(self) -> None:
        self.left = 0
        """The number of calls until one raises; 0 if none will raise."""
        self.raised: list[str] = []

    def prepare(self, host: FakeHost, session: Session, store: Store) -> None:
        for owner, names in ((host, HOST), (store, STORE), (session.packer, PACKER)):
            for name in names:
                setattr(owner, name, self._breakable(name, getattr(owner, name)))

    def _breakable(self, name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def call_or_raise(*args: Any, **kwargs: Any) -> Any:
            if self.left:
                self.left -= 1
                if not self.left:
                    self.raised.append(name)
                    raise Broken(f"{name} is broken")
            return call(*args, **kwargs)

        return call_or_raise

    @contextmanager
    def held(self) -> Iterator[None]:
        """Keep all calls from failing during the block."""
        left, self.left = self.left, 0
        try:
            yield
        finally:
            self.left = left


class FaultyMachine(HubMachine):
    """The `HubMachine`, with a host, a store and a packer that may raise at any call."""

    @initialize(
        hwm=st.sampled_from([0, 1, 2]),
        scheme=st.sampled_from(sorted(SCHEMES)),
        kind=st.sampled_from(["memory", "durable", "strict"]),
        packer=st.sampled_from(["json", "msgpack"]),
    )
    def start(self, hwm: int, scheme: str, kind: str, packer: str) -> None:
        self.fault = Fault()
        self.kept: MemoryStore = MemoryStore() if kind == "memory" else DurableStore(auto=kind == "durable")
        self.world = World(
            store=self.kept,
            packer=packer,
            prepare=self.fault.prepare,
            hwm=hwm,
            scheme=scheme,
            max_heartmonitor_misses=1,
            strict=kind == "strict",
        )
        self.hub = self.world.hub
        self.clients = [Peer(client.name, packer=packer) for client in CLIENTS]
        self.submitted: dict[str, str] = {}
        self.answers: Counter[str] = Counter()
        self.delivered: list[tuple[str, Message]] = []
        self.engines = []
        self.uuids = 0
        self.shares: dict[str, list[str]] = {}
        """The shares of broadcasts that are not gathered, by the broadcasts' msg_ids."""

    @rule(k=st.integers(1, 12))
    def something_is_going_to_fail(self, k: int) -> None:
        self.fault.left = k

    @rule()
    def the_disk_has_it(self) -> None:
        if isinstance(self.kept, DurableStore):
            self.kept.commit()

    @rule()
    def the_store_answers(self) -> None:
        self.world.answer_questions()

    @rule()
    def time_is_up(self) -> None:
        timers, self.world.host.timers = self.world.host.timers, []
        for scope, _, call in timers:
            if not scope.cancelled:
                call()

    # The invariants of `HubMachine`, except that a failing step may have no effect

    @rule(requested=st.one_of(st.none(), st.integers(0, 5)), same=st.booleans(), data=st.data())
    def register(self, requested: int | None, same: bool, data: st.DataObject) -> None:
        self.uuids += 1
        uuid = f"engine{self.uuids}"
        if same and self.engines:
            uuid = data.draw(st.sampled_from(self.engines)).uuid
        peer = Peer(uuid, packer=self.world.packer)
        frames = peer.session.write("registration_request", {"uuid": uuid, "id": requested})
        self.hub.dispatch_query([peer.ident, *frames])

    @rule(data=st.data(), how=st.sampled_from(["heart", "unreachable", "iopub"]))
    def lose(self, data: st.DataObject, how: str) -> None:
        engine = self.pick(data, EngineState.ALIVE)
        if engine is not None and how == "iopub":
            self.world.publish(engine.uuid, b"{}", "shutdown_reply", {"status": "ok"})
        elif engine is not None:
            self.hub.lose_engine(engine, how)
            assert engine.state is EngineState.LOST

    @rule(data=st.data())
    def come_back(self, data: st.DataObject) -> None:
        """If a call fails while a gone engine comes back, the engine comes back when its heart is next heard."""
        engine = self.pick(data, EngineState.LOST, EngineState.SETTLED, EngineState.STALLED)
        if engine is None or self.hub.engines.gone.that_may_return(engine.ident) is not engine:
            return
        failures = len(self.fault.raised)
        self.heard_and_asked(engine)
        if engine.ident in self.world.host.unreachable:
            return
        if engine.state is not EngineState.ALIVE:
            assert len(self.fault.raised) > failures
            with self.fault.held():
                self.heard_and_asked(engine)
        assert engine.state is EngineState.ALIVE

    @rule()
    def reach(self) -> None:
        for engine, channel in self.world.host.to_reach:
            self.hub.flush_route(engine, channel)
        self.world.host.to_reach = [route for route in self.world.host.to_reach if route[1] in route[0].routes]

    @rule(data=st.data(), channel=st.sampled_from(["task_out", "mux_out", "control_out", "broadcast_out"]))
    def cut(self, data: st.DataObject, channel: str) -> None:
        if engine := self.pick(data, EngineState.ALIVE):
            self.hub.connection_lost(channel, engine.ident)

    @rule(client=st.integers(0, 2), retries=st.integers(0, 2), after=st.booleans(), data=st.data())
    def submit(self, client: int, retries: int, after: bool, data: st.DataObject) -> None:
        targets = data.draw(st.lists(st.sampled_from([e.uuid for e in self.engines] + ["nobody"]), max_size=3))
        others: dict[str, Any] = {"retries": retries, "targets": targets}
        if self.world.packer == "json":
            others["label"] = "\udcff"
        if after:
            others |= {"after": data.draw(st.sampled_from(sorted(self.submitted) or ["unknown"])), "timeout": 5.0}
        self.submitted[self.world.submit(self.clients[client], **others)] = "task_in"

    @rule(client=st.integers(0, 2), channel=st.sampled_from(["mux_in", "control_in"]), data=st.data())
    def call(self, client: int, channel: str, data: st.DataObject) -> None:
        uuid = data.draw(st.sampled_from([engine.uuid for engine in self.engines] + ["nobody"]))
        self.submitted[self.world.call(uuid, self.clients[client], "apply_request", channel)] = channel

    @rule(client=st.integers(0, 2), gather=st.booleans(), data=st.data())
    def broadcast(self, client: int, gather: bool, data: st.DataObject) -> None:
        known = sorted({engine.uuid for engine in self.engines} | {"nobody"})
        uuids = data.draw(st.lists(st.sampled_from(known), min_size=1, max_size=3, unique=True))
        metadata = {"targets": [(uuid, 0) for uuid in uuids], "is_broadcast": True, "is_coalescing": gather}
        peer = self.clients[client]
        frames = peer.session.write("apply_request", {}, metadata=metadata)
        self.hub.dispatch_monitor_traffic("broadcast_in", [peer.ident, *frames])
        msg_id = self.world.read(frames).header.msg_id
        self.collect()
        if gather or msg_id in self.answers:  # the broadcast as a whole was refused
            self.submitted[msg_id] = "broadcast_in"
        else:
            self.shares[msg_id] = [sub_msg_id(msg_id, uuid) for uuid in uuids]
            self.submitted |= dict.fromkeys(self.shares[msg_id], "broadcast_in")

    @rule()
    def status(self) -> None:
        """See `the_hub_answers_the_next_query`."""

    # Invariants

    def collect(self) -> None:
        probes = []
        for item in list(self.world.host.sent):
            if item[0].endswith("_out") and self.world.read(item[1]).header.msg_type == "kernel_info_request":
                self.world.host.sent.remove(item)
                probes.append(item)
        super().collect()
        self.delivered += [(channel, self.world.read(frames)) for channel, frames in probes]

    @invariant()
    def each_request_is_in_exactly_one_state(self) -> None:
        self.collect()
        hub = self.hub
        tasks = hub.tasks.scheduler.tasks.values()
        queued = [task.msg_id for task in hub.tasks.scheduler.queue]
        assert sorted(queued) == sorted(task.msg_id for task in tasks if task.state is TaskState.QUEUED)
        states = Counter(task.msg_id for task in tasks)
        states.update([*hub.direct.unanswered.pending, *hub.control.unanswered.pending, *hub.gathering.gathered])
        states.update(msg_id for msg_id, share in hub.broadcasts.unanswered.pending.items() if share.broadcast is None)
        for msg_id in hub.intake.uncommitted:
            states.update(self.shares.get(msg_id, [msg_id]))
        states.update(hub.answers.unsaved)
        states.update(msg_id for results in hub.owed.clients._owed.values() for msg_id in results)
        states.update(self.answers.keys())
        assert not states - Counter(self.submitted.keys()), "in two states, or never submitted"
        missing = self.submitted.keys() - states.keys()
        assert not missing or self.world.host.questions, "lost, and not an owed result that is being read"

    @invariant()
    def the_store_agrees(self) -> None:
        """Check that a record is completed exactly if its request is answered, or if its answer is on its way."""
        self.collect()
        for msg_id, kept in self.kept._records.items():
            if msg_id in self.submitted:
                assert (kept.record.completed is not None) == (not self.is_open(msg_id)), msg_id

    def is_open(self, msg_id: str) -> bool:
        hub = self.hub
        waits = hub.is_pending(msg_id) or msg_id in hub.control.unanswered.pending
        return waits or any(msg_id in self.shares.get(broadcast, ()) for broadcast in hub.intake.uncommitted)

    @invariant()
    def the_hub_answers_the_next_query(self) -> None:
        self.collect()
        with self.fault.held():
            reply = self.world.query("connection_request", client=Peer("asks", packer=self.world.packer))
        assert reply["engines"] == {str(engine.id): engine.uuid for engine in self.hub.engines.alive.values()}

    @invariant()
    def each_failure_is_counted(self) -> None:
        assert sum(self.hub.notices.internal_errors.values()) >= len(self.fault.raised)

    def teardown(self) -> None:
        if not hasattr(self, "hub"):
            return
        self.fault.left = 0
        self.hub.stop_serving()
        for _ in range(2):  # an answer after a commit causes a further record
            self.the_disk_has_it()
            self.the_store_answers()
        self.each_request_is_in_exactly_one_state()
        self.the_store_agrees()
        owed = {msg_id for results in self.hub.owed.clients._owed.values() for msg_id in results}
        assert set(self.answers) | owed == set(self.submitted), "at the end everybody has been answered"


TestFaultyMachine = FaultyMachine.TestCase
TestFaultyMachine.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
