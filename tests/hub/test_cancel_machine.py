"""Cancels, drains, deaths and answers in any order, with engines that handle signals late.

The engines of this machine do what stock engines do, and engines of ours: they carry out their requests one after the
other, and a signal hits the request that runs, or, if it is late, the next one.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from trio_hub.hub import EngineConnector, EngineState
from trio_hub.schedulers.broadcast import sub_msg_id
from trio_hub.wire.messages import Message

from .test_cancelling import HIT
from .world import World

pytestmark = pytest.mark.property

CLIENTS = ("task_in", "mux_in", "broadcast_in")


class Engine:
    """An engine with its nanny."""

    def __init__(self, connector: EngineConnector) -> None:
        self.connector = connector
        self.uuid = connector.uuid
        self.aims = connector.aims_interrupts
        self.queue: list[tuple[str, Message]] = []
        self.control: list[Message] = []
        self.aborted: set[str] = set()
        self.is_hit = False
        self.is_late = False
        """Whether a signal that came when nothing ran waits for the next request."""
        self.is_dead = False


class CancelMachine(RuleBasedStateMachine):
    @initialize(hwm=st.sampled_from([0, 1, 2, 3]))
    def start(self, hwm: int) -> None:
        self.world = World(hwm=hwm)
        self.engines: list[Engine] = []
        self.submitted: list[str] = []
        self.tasks: set[str] = set()
        self.cancelled: set[str] = set()
        self.stranded: set[str] = set()
        """The requests whose engines have died by themselves while they had them."""
        self.answers: dict[str, Any] = {}
        self.count: Counter[str] = Counter()
        self.began = 0

    def collect(self) -> None:
        """Give the engines what they were sent, and note the answers to clients."""
        for channel, message in self.world.take():
            if channel in CLIENTS:
                self.count[message.parent.msg_id] += 1
                self.answers[message.parent.msg_id] = self.world.content(message)
            elif channel.endswith("_out") and channel != "iopub_out":
                [engine] = [one for one in self.engines if one.connector.ident == message.idents[0]]
                if channel == "control_out":
                    engine.control.append(message)
                else:
                    engine.queue.append((channel, message))

    def pick(self, data: st.DataObject) -> Engine | None:
        alive = [engine for engine in self.engines if not engine.is_dead]
        return data.draw(st.sampled_from(alive)) if alive else None

    # Engines

    @rule(aims=st.booleans())
    def come(self, aims: bool) -> None:
        self.began += 1
        self.engines.append(Engine(self.world.engine(f"e{self.began}", aims_interrupts=aims)))
        self.collect()

    @rule(data=st.data())
    def carry_out(self, data: st.DataObject) -> None:
        """Have an engine carry out its next request."""
        engine = self.pick(data)
        if engine is not None and engine.queue:
            self.carry_out_next(engine, fails=data.draw(st.booleans()))

    def carry_out_next(self, engine: Engine, *, fails: bool = False) -> None:
        channel, request = engine.queue.pop(0)
        msg_id = request.header.msg_id
        content: dict[str, Any] = {"status": "ok"}
        if request.header.msg_type == "kernel_info_request":
            pass
        elif msg_id in engine.aborted:
            engine.aborted.discard(msg_id)
            content = {"status": "aborted"}
        elif engine.is_hit or engine.is_late:
            engine.is_hit = engine.is_late = False
            content = HIT
        elif fails:
            content = {"status": "error", "ename": "ValueError", "evalue": "x", "traceback": []}
        self.world.answer(engine.uuid, request, content, channel=channel)
        self.collect()

    @rule(data=st.data(), late=st.booleans(), fails=st.booleans())
    def hear(self, data: st.DataObject, late: bool, fails: bool) -> None:
        """Have an engine, or its nanny, carry out its next control request. It may fail to kill its engine."""
        engine = self.pick(data)
        if engine is not None and engine.control:
            self.hear_next(engine, late=late, fails=fails)

    def hear_next(self, engine: Engine, *, late: bool = False, fails: bool = False) -> None:
        request = engine.control.pop(0)
        content = self.world.content(request)
        reply: dict[str, Any] = {"status": "ok"}
        waiting = [message.header.msg_id for _, message in engine.queue]
        if request.header.msg_type == "abort_request":
            engine.aborted.update(content["msg_ids"])
        elif request.header.msg_type == "interrupt_request":
            if waiting[:1] == [content["msg_id"]]:
                reply["did"] = "interrupted"
                engine.is_hit = True
            elif content["withdraw"]:
                reply["did"] = "withdrawn"
                engine.aborted.add(content["msg_id"])
            else:
                reply["did"] = "nothing"
        elif request.header.msg_type == "signal_request" and content["sig"] == "SIGKILL":
            if not fails:
                self.kill(engine)
                return
            reply = {"status": "error", "ename": "PermissionError", "evalue": "", "traceback": []}
        elif request.header.msg_type == "signal_request":
            if engine.queue and not late:
                engine.is_hit = True
            else:
                engine.is_late = late  # without a request that runs, the engine ignores the signal, or is late
        elif request.header.msg_type == "shutdown_request":
            self.kill(engine)
            return
        self.world.answer(engine.uuid, request, reply, channel="control_out")
        self.collect()

    def kill(self, engine: Engine) -> None:
        engine.is_dead = True
        self.world.hub.lose_engine(engine.connector, "ended", "killed")
        self.collect()
        self.world.hub.handle_stranded(engine.connector)
        self.collect()

    @rule(data=st.data())
    def die(self, data: st.DataObject) -> None:
        engine = self.pick(data)
        if engine is not None and engine.connector.state is EngineState.ALIVE:
            self.stranded |= engine.connector.pending
            self.kill(engine)

    # Clients

    @rule(retries=st.integers(0, 1))
    def submit(self, retries: int) -> None:
        msg_id = self.world.submit(retries=retries)
        self.submitted.append(msg_id)
        self.tasks.add(msg_id)
        self.collect()

    @rule(data=st.data())
    def call(self, data: st.DataObject) -> None:
        engine = self.pick(data)
        if engine is not None:
            self.submitted.append(self.world.call(engine.uuid))
            self.collect()

    @rule(data=st.data(), gather=st.booleans())
    def broadcast(self, data: st.DataObject, gather: bool) -> None:
        alive = [engine.uuid for engine in self.engines if not engine.is_dead]
        if not alive:
            return
        uuids = data.draw(st.lists(st.sampled_from(alive), min_size=1, max_size=3, unique=True))
        metadata = {"targets": [(uuid, 0) for uuid in uuids], "is_broadcast": True, "is_coalescing": gather}
        frames = self.world.client.session.write("apply_request", {}, metadata=metadata)
        self.world.hub.dispatch_monitor_traffic("broadcast_in", [self.world.client.ident, *frames])
        msg_id = self.world.read(frames).header.msg_id
        self.submitted += [msg_id] if gather else [sub_msg_id(msg_id, uuid) for uuid in uuids]
        self.collect()

    @rule(data=st.data(), grace=st.sampled_from([0.0, 5.0]))
    def cancel(self, data: st.DataObject, grace: float) -> None:
        if not self.submitted:
            return
        msg_id = data.draw(st.sampled_from(self.submitted))
        self.collect()
        finished = msg_id in self.answers
        [done] = self.world.hub.work.cancelling.cancel([msg_id], by="somebody", grace=grace).values()
        assert done == "unknown" if finished else done in ("withdrawn", "interrupted")
        if not finished:
            self.cancelled.add(msg_id)
        self.collect()

    @rule(data=st.data(), deadline=st.sampled_from([None, 5.0]), then=st.sampled_from(["", "shutdown"]))
    def drain(self, data: st.DataObject, deadline: float | None, then: str) -> None:
        engine = self.pick(data)
        if engine is None:
            return
        draining = self.world.hub.work.draining
        if engine.connector.ident in draining.drains:
            draining.undrain(engine.connector, by="somebody")
        else:
            draining.drain(engine.connector, by="somebody", deadline=deadline, then=then)
        self.collect()

    @rule(data=st.data())
    def time_passes(self, data: st.DataObject) -> None:
        """Have one of the timers end."""
        timers = [timer for timer in self.world.host.timers if not timer[0].cancelled]
        if timers:
            timer = data.draw(st.sampled_from(timers))
            self.end(timer)

    def end(self, timer: Any) -> None:
        self.world.host.timers.remove(timer)
        timer[2]()
        self.collect()
        for engine in self.engines:
            if not engine.is_dead and not engine.connector.state.is_registered:
                self.kill(engine)  # it could not be killed, and the hub has lost it

    # Invariants

    @invariant()
    def nothing_is_answered_twice(self) -> None:
        assert all(count == 1 for count in self.count.values()), self.count

    @invariant()
    def the_answers_are_right(self) -> None:
        for msg_id, content in self.answers.items():
            contents = [*content["errors"].values()] if "errors" in content else [content]
            enames = {one.get("ename") for one in contents}
            assert "KeyboardInterrupt" not in enames, "an interrupt was passed on"
            if msg_id in self.cancelled:
                # The answer may have been on the way to the client in part: other shares had ended before.
                assert "TaskCancelled" in enames, (msg_id, enames)
            else:
                assert "TaskCancelled" not in enames
                if msg_id in self.tasks and msg_id not in self.stranded:
                    assert enames <= {None, "ValueError"}, (msg_id, content)

    @invariant()
    def only_engines_with_a_reason_are_looked_at(self) -> None:
        attended = set(self.world.hub.parts.work.interrupts._attention.engines)
        alive = {engine.connector.ident for engine in self.engines if not engine.is_dead}
        drains = set(self.world.hub.work.draining.drains)
        assert attended <= alive | drains
        may_return = {ident for ident in drains if self.world.hub.engines.gone.that_may_return(ident)}
        assert drains <= alive | may_return, "an engine that was lost by mistake is still drained when it is back"
        for engine in self.engines:
            worker = engine.connector.worker
            assert worker is not None
            assert worker.holds == int(engine.connector.held)

    def teardown(self) -> None:
        if not hasattr(self, "world"):
            return
        self.come(aims=False)
        for _ in range(10_000):
            alive = [engine for engine in self.engines if not engine.is_dead]
            if not alive:
                self.come(aims=False)
            elif busy := [engine for engine in alive if engine.control]:
                self.hear_next(busy[0])
            elif busy := [engine for engine in alive if engine.queue]:
                self.carry_out_next(busy[0])
            elif self.world.hub.tasks.scheduler.tasks and all(
                engine.connector.ident in self.world.hub.work.draining.drains for engine in alive
            ):
                self.come(aims=False)
            else:
                timers = [timer for timer in self.world.host.timers if not timer[0].cancelled]
                if not timers:
                    break
                self.end(timers[0])
        assert set(self.answers) == set(self.submitted), "everybody is answered at the end"
        self.nothing_is_answered_twice()
        self.the_answers_are_right()
        hub = self.world.hub
        assert not hub.work.interrupts.open
        assert not any(engine.connector.held for engine in self.engines)
        assert not hub.notices.internal_errors


TestCancelMachine = CancelMachine.TestCase
TestCancelMachine.settings = settings(max_examples=200, stateful_step_count=40, deadline=None)
