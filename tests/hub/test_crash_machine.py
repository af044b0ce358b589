"""Hubs that are killed at any point, one after the other, with clients and engines that live on.

Whatever is done in between, in the end every request that has reached the disk is answered, and none twice.
"""

from __future__ import annotations

from collections import Counter
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from trio_hub.hub import EngineState
from trio_hub.hub.custody import AWAY
from trio_hub.schedulers.broadcast import sub_msg_id
from trio_hub.schedulers.rules import TaskRules, parse_rules
from trio_hub.schedulers.task import WorkerState
from trio_hub.wire.frames import Frames, to_bytes

from .durable import DurableStore, Notes, crashed
from .world import Peer, World

pytestmark = pytest.mark.property

RULES: list[dict[str, Any]] = [
    {},
    {},
    {"priority": 5},
    {"priority": -5, "weight": 2},
    {"needs": {"gpu": 1}},
    {"needs": {"site": "a"}, "max_deaths": 1},
    {"max_attempts": 2, "retry_on": ["death"]},
    {"max_attempts": 3, "retry_pause": 5},
    {"max_runtime": 5, "grace": 1},
]
OFFERS: list[dict[str, Any]] = [{}, {"gpu": 1}, {"gpu": 2, "site": "a"}]
FAILURE = {"status": "error", "ename": "E", "evalue": "v"}


class Engine:
    """An engine's process. It answers the requests of each channel in order, and drops requests that it has had before.

    ``connected`` is the hub that it talks to. What it has not sent when that is killed waits for the next, or is lost.
    """

    def __init__(self, uuid: str) -> None:
        self.uuid = uuid
        self.seen: set[bytes] = set()
        self.inbox: list[tuple[str, Frames]] = []
        self.outbox: list[tuple[str, Frames]] = []
        self.alive = True
        self.connected = True

    def receive(self, channel: str, frames: Frames) -> None:
        signature = to_bytes(frames[frames.index(b"<IDS|MSG>") + 1])
        if signature not in self.seen:
            self.seen.add(signature)
            self.inbox.append((channel, frames))


class Client:
    """A client, with the replies that it has got and its ZeroMQ identity."""

    def __init__(self, name: str, *, own_identity: bool) -> None:
        self.peer = Peer(name)
        self.own_identity = own_identity
        self.earlier: set[bytes] = set()
        """The client's earlier identities, if ZeroMQ makes its identities up."""
        self.got: Counter[str] = Counter()
        self.move()

    def move(self) -> None:
        """Connect the client again, under a new identity if ZeroMQ makes it up."""
        if not self.own_identity:
            self.earlier.add(self.peer.ident)
            self.peer.ident = b"\0%d of %b" % (len(self.earlier), self.peer.name.encode())


class CrashMachine(RuleBasedStateMachine):
    """Plays the clients, the engines and the disk, and kills the hub."""

    strict = True

    @initialize(hwm=st.sampled_from([0, 1, 2]), memory=st.sampled_from([0, 1000, 1 << 20]))
    def start(self, hwm: int, memory: int) -> None:
        self.memory = memory
        self.store = DurableStore(auto=False)
        self.world = World(
            store=self.store, strict=self.strict, hwm=hwm, queue_memory=memory, sent_results=Notes(), session_id="hub"
        )
        self.clients = [Client(f"client{number}", own_identity=number == 0) for number in range(3)]
        self.engines: dict[str, Engine] = {}
        self.requests: dict[str, Client] = {}
        """The client of each request, by msg_id."""
        self.said: dict[str, TaskRules] = {}
        """The rules of each task, by msg_id."""
        self.crashes = 0

    @property
    def hub(self) -> Any:
        return self.world.hub

    def alive(self) -> list[str]:
        return [uuid for uuid, engine in self.engines.items() if engine.alive and engine.connected]

    def move_messages(self) -> None:
        """Deliver the messages that the hub has sent."""
        sent, self.world.host.sent = self.world.host.sent, []
        for channel, frames in sent:
            first = to_bytes(frames[0])
            if channel.endswith("_out") and channel != "iopub_out":
                engine = self.engines.get(first.decode())
                if engine is not None and engine.alive and engine.connected:
                    engine.receive(channel, frames)
            elif channel in ("task_in", "mux_in", "broadcast_in"):
                [client] = [client for client in self.clients if client.peer.ident == first]
                msg_id = self.world.read(frames).parent.msg_id
                client.got[msg_id] += 1
                if self.strict:
                    assert self.store.committed[msg_id].completed is not None, "it is on disk before anybody sees it"

    def note_gone(self) -> None:
        """Make the earlier identities of clients unreachable."""
        self.world.host.gone = {AWAY}.union(*(client.earlier for client in self.clients))

    # Engines

    @precondition(lambda self: len(self.alive()) < 3)
    @rule(offers=st.sampled_from(OFFERS))
    def engine_comes(self, offers: dict[str, Any]) -> None:
        uuid = f"engine{len(self.engines)}"
        self.engines[uuid] = Engine(uuid)
        self.world.engine(uuid, offers=offers)

    @precondition(lambda self: self.engines)
    @rule(data=st.data())
    def engine_dies(self, data: st.DataObject) -> None:
        engine = self.engines[data.draw(st.sampled_from(sorted(self.engines)))]
        engine.alive = False
        known = self.hub.engines.by_ident.get(engine.uuid.encode())
        if known is not None and data.draw(st.booleans()):
            self.hub.lose_engine(known, "heart")

    @rule()
    def grace_is_over(self) -> None:
        for engine in list(self.hub.engines.lost):
            self.hub.handle_stranded(engine)

    @precondition(lambda self: any(engine.alive and not engine.connected for engine in self.engines.values()))
    @rule(data=st.data(), loses=st.booleans(), beats_first=st.booleans())
    def engine_comes_back(self, data: st.DataObject, loses: bool, beats_first: bool) -> None:
        away = sorted(uuid for uuid, engine in self.engines.items() if engine.alive and not engine.connected)
        engine = self.engines[data.draw(st.sampled_from(away))]
        engine.connected = True
        self.world.host.unreachable.discard(engine.uuid.encode())
        if loses:
            engine.outbox.clear()
        if beats_first:
            self.world.beat(engine.uuid)
        # replies that the engine could not send come with the new connection
        outbox, engine.outbox = engine.outbox, []
        for channel, frames in outbox:
            self.hub.dispatch_monitor_traffic(channel, frames)

    @precondition(lambda self: any(engine.alive for engine in self.engines.values()))
    @rule(data=st.data())
    def beat(self, data: st.DataObject) -> None:
        """Have an engine's heart beat, possibly before the engine's other connections are open."""
        living = sorted(uuid for uuid, engine in self.engines.items() if engine.alive)
        self.world.beat(data.draw(st.sampled_from(living)))

    @precondition(lambda self: any(engine.inbox for engine in self.engines.values() if engine.alive))
    @rule(data=st.data(), how=st.sampled_from(["ok", "ok", "failed", "unmet"]))
    def engine_answers(self, data: st.DataObject, how: str) -> None:
        busy = sorted(uuid for uuid, engine in self.engines.items() if engine.inbox and engine.alive)
        self.answer(self.engines[data.draw(st.sampled_from(busy))], how)

    def answer(self, engine: Engine, how: str) -> None:
        """Have the engine answer its oldest request, even while there is no hub."""
        channel, frames = engine.inbox.pop(0)
        request = self.world.read(frames)
        if request.header.msg_type == "kernel_info_request":
            how = "ok"
        status = "ok" if how == "ok" else "error"
        reply = Peer(engine.uuid).session.write(
            request.header.msg_type.replace("_request", "_reply"),
            {"status": "ok"} if how == "ok" else FAILURE,
            parent=request.frames[2],
            metadata={"status": status, "engine": engine.uuid, "dependencies_met": how != "unmet"},
        )
        answer = [engine.uuid.encode(), *request.idents[1:], *reply]
        if engine.connected:
            self.hub.dispatch_monitor_traffic(channel, answer)
        else:
            engine.outbox.append((channel, answer))

    @rule()
    def reach(self) -> None:
        for engine, channel in self.world.host.to_reach:
            if engine.state is EngineState.ALIVE:
                self.hub.flush_route(engine, channel)
        self.world.host.to_reach = [route for route in self.world.host.to_reach if route[1] in route[0].routes]

    # Clients

    def client(self, data: st.DataObject) -> Client:
        return data.draw(st.sampled_from(self.clients))

    @rule(
        data=st.data(),
        retries=st.sampled_from([0, 0, 1, 2]),
        depends=st.sampled_from(["", "", "", "after", "follow"]),
        timeout=st.sampled_from([None, None, None, 60.0]),
        aimed=st.booleans(),
        rules=st.sampled_from(RULES),
        count=st.integers(1, 3),
    )
    def submit(
        self,
        data: st.DataObject,
        retries: int,
        depends: str,
        timeout: float | None,
        aimed: bool,
        rules: dict[str, Any],
        count: int,
    ) -> None:
        client = self.client(data)
        metadata: dict[str, Any] = {"retries": retries, "timeout": timeout, "label": rules}
        if aimed and self.engines:
            metadata["targets"] = data.draw(st.lists(st.sampled_from(sorted(self.engines)), min_size=1, max_size=2))
        if depends and self.requests:
            others = data.draw(st.lists(st.sampled_from(sorted(self.requests)), min_size=1, max_size=2))
            metadata[depends] = {"dependencies": others, "failure": True, "all": data.draw(st.booleans())}
        for _ in range(count):
            msg_id = self.world.submit(client.peer, **metadata)
            self.requests[msg_id] = client
            self.said[msg_id] = parse_rules(rules)

    @rule(data=st.data())
    def call(self, data: st.DataObject) -> None:
        client = self.client(data)
        uuid = data.draw(st.sampled_from([*sorted(self.engines), "nobody"]))
        self.requests[self.world.call(uuid, client.peer)] = client

    @rule(data=st.data(), gather=st.booleans())
    def broadcast(self, data: st.DataObject, gather: bool) -> None:
        client = self.client(data)
        known = [*sorted(self.engines), "nobody"]
        uuids = data.draw(st.lists(st.sampled_from(known), min_size=1, max_size=3, unique=True))
        metadata = {"targets": [(uuid, 0) for uuid in uuids], "is_broadcast": True, "is_coalescing": gather}
        frames = client.peer.session.write("apply_request", {}, metadata=metadata)
        self.hub.dispatch_monitor_traffic("broadcast_in", [client.peer.ident, *frames])
        msg_id = self.world.read(frames).header.msg_id
        for each in [msg_id] if gather else [sub_msg_id(msg_id, uuid) for uuid in uuids]:
            self.requests[each] = client

    @precondition(lambda self: self.requests)
    @rule(data=st.data(), grace=st.sampled_from([None, 1.0]))
    def cancel(self, data: st.DataObject, grace: float | None) -> None:
        msg_id = data.draw(st.sampled_from(sorted(self.requests)))
        was_answered = any(client.got[msg_id] for client in self.clients)
        [done] = self.hub.work.cancelling.cancel([msg_id], by="somebody", grace=grace).values()
        if self.strict:  # otherwise the answer may have been lost with the hub, and the task is carried on with
            assert not was_answered or done == "unknown"

    @precondition(lambda self: self.alive())
    @rule(data=st.data(), deadline=st.sampled_from([None, 5.0]))
    def drain(self, data: st.DataObject, deadline: float | None) -> None:
        engine = self.hub.engines.by_ident.get(data.draw(st.sampled_from(self.alive())).encode())
        draining = self.hub.work.draining
        if engine is None:
            return
        if engine.ident in draining.drains:
            draining.undrain(engine, by="somebody")
        else:
            draining.drain(engine, by="somebody", deadline=deadline)

    @rule(data=st.data())
    def client_is_connected_anew(self, data: st.DataObject) -> None:
        client = self.client(data)
        client.move()
        self.note_gone()

    @rule(data=st.data(), channel=st.sampled_from(["task_in", "mux_in", "broadcast_in"]))
    def client_speaks(self, data: st.DataObject, channel: str) -> None:
        client = self.client(data)
        self.hub.owed.heard_of(channel, [client.peer.ident], client.peer.session.session_id)

    @precondition(lambda self: self.world.host.timers)
    @rule(data=st.data())
    def time_is_up(self, data: st.DataObject) -> None:
        index = data.draw(st.integers(0, len(self.world.host.timers) - 1))
        scope, _, call = self.world.host.timers.pop(index)
        if not scope.cancelled:
            call()

    # The disk, and the end of a hub

    @rule()
    def commit(self) -> None:
        self.store.commit()

    @precondition(lambda self: self.world.host.questions)
    @rule()
    def store_answers(self) -> None:
        self.world.host.questions.pop(0)()

    @rule(lists_engines=st.booleans(), stops=st.sampled_from([False, False, True]))
    def crash(self, lists_engines: bool, stops: bool) -> None:
        if stops:
            self.hub.stop_serving(carried_on=True)
            self.store.commit()
        self.move_messages()
        self.crashes += 1
        for engine in self.engines.values():
            engine.connected = False
        for client in self.clients:
            client.move()
        lost = {msg_id for msg_id in self.requests if msg_id not in self.store.committed}
        for msg_id in lost:
            client = self.requests.pop(msg_id)
            assert self.strict is False or not client.got[msg_id]
            client.got.pop(msg_id, None)
        self.world = crashed(
            self.world,
            engines=None if lists_engines else {},
            queue_memory=self.memory,
            session_id=f"hub{self.crashes}",
        )
        store = self.hub.store
        assert isinstance(store, DurableStore)
        self.store = store
        self.world.host.unreachable = {uuid.encode() for uuid in self.engines}
        self.note_gone()

    @rule()
    def an_hour_passes(self) -> None:
        """Let an hour pass, so that all records have been on disk for a long time."""
        while self.store._writes:
            self.store.commit()
        self.world.clock.time += timedelta(hours=1)

    @precondition(lambda self: self.crashes)
    @rule()
    def engines_had_their_time(self) -> None:
        self.hub.purge_unheard()

    # Invariants

    @invariant()
    def nothing_is_answered_twice(self) -> None:
        if not hasattr(self, "world"):
            return
        self.move_messages()
        for client in self.clients:
            assert all(count == 1 for count in client.got.values())
            mine = {msg_id for msg_id, owner in self.requests.items() if owner is client}
            assert {msg_id for msg_id in client.got if msg_id not in mine} == set()

    @invariant()
    def tables_agree(self) -> None:
        if not hasattr(self, "world"):
            return
        hub = self.hub
        assert hub.intake.held_bytes == sum(task.queue_bytes for task in hub.tasks.scheduler.tasks.values())
        assert hub.intake.held_bytes <= self.memory
        assert hub.owed.clients.owed == sum(map(len, hub.owed.clients._owed.values()))
        known = {*hub.engines.alive.values(), *hub.engines.lost}
        assert all(probe.engine in known for probe in hub.routes.probes.values())
        assert set(hub.intake.to_fetch) <= set(self.store._records)
        for task in hub.tasks.scheduler.tasks.values():
            assert task.rules == self.said[task.msg_id], "the rules stay, over any number of hubs"
        for worker in hub.tasks.scheduler.workers.values():
            if worker in hub.tasks.scheduler.with_room:
                assert worker.state is WorkerState.USABLE
                assert not any(task.accepts(worker.ident) for task in hub.tasks.scheduler.queue if task.demand is None)

    def quiesce(self) -> None:
        """Let the hub, the clients, the engines and the disk work until nothing is left to do."""
        for _ in range(10_000):
            self.store.commit()
            self.move_messages()
            self.reach()
            if self.world.host.questions:
                self.world.answer_questions()
                continue
            busy = [engine for engine in self.engines.values() if engine.alive and engine.inbox]
            if not busy and not self.store._writes and not self.world.host.sent:
                return
            for engine in busy:
                self.answer(engine, "ok")
        raise AssertionError("it never ends")

    def teardown(self) -> None:
        if not hasattr(self, "world"):
            return
        for engine in self.engines.values():
            if engine.alive and not engine.connected:
                engine.connected = True
                self.world.host.unreachable.discard(engine.uuid.encode())
                outbox, engine.outbox = engine.outbox, []
                for channel, frames in outbox:
                    self.hub.dispatch_monitor_traffic(channel, frames)
            if engine.alive:
                self.world.beat(engine.uuid)
        self.quiesce()
        for uuid, engine in self.engines.items():
            known = self.hub.engines.by_ident.get(uuid.encode())
            if known is not None and not engine.alive:
                self.hub.lose_engine(known, "heart")
        self.hub.purge_unheard()
        self.grace_is_over()
        self.quiesce()
        self.engines["last"] = Engine("last")
        self.world.engine("last")
        for known in list(self.hub.engines.alive.values()):  # so that no task waits for ever for what its targets lack
            self.hub.parts.offers.tag(known, OFFERS[-1])
            self.hub.work.draining.undrain(known, by="somebody")
        self.quiesce()
        for _ in range(10):  # a request that is interrupted has a grace, and an engine that is killed some time to die
            timers, self.world.host.timers = self.world.host.timers, []
            for scope, _, call in timers:
                if not scope.cancelled:
                    call()
            self.quiesce()
            self.grace_is_over()
            self.quiesce()
        assert all(scope.cancelled for scope, _, _ in self.world.host.timers)
        for client in self.clients:
            self.hub.owed.heard_of("task_in", [client.peer.ident], client.peer.session.session_id)
        self.quiesce()
        self.nothing_is_answered_twice()
        self.tables_agree()
        hub = self.hub
        for table in (
            hub.tasks.scheduler.tasks,
            hub.tasks.scheduler.dependents,
            hub.direct.unanswered.pending,
            hub.broadcasts.unanswered.pending,
        ):
            assert not table
        for table in (
            hub.gathering.gathered,
            hub.direct.late,
            hub.engines.lost,
            hub.routes.probes,
            hub.intake.uncommitted,
            hub.answers.unsaved,
            hub.intake.to_fetch,
        ):
            assert not table
        assert hub.intake.held_bytes == hub.owed.clients.owed == 0
        assert not any(engine.parked or engine.routes for engine in hub.engines.alive.values())
        assert set(self.store.committed) == set(self.requests), "no record too few, and none too many"
        for msg_id, client in self.requests.items():
            record = self.store.committed[msg_id]
            assert record.completed is not None
            assert not record.owed
            if self.strict:
                assert client.got[msg_id] == 1
        assert not hub.notices.wire_errors


class RelaxedCrashMachine(CrashMachine):
    strict = False


TestStrict = CrashMachine.TestCase
TestStrict.settings = settings(max_examples=80, stateful_step_count=50, deadline=None)
TestRelaxed = RelaxedCrashMachine.TestCase
TestRelaxed.settings = settings(max_examples=60, stateful_step_count=50, deadline=None)
