"""Gone engines whose hearts are heard again, and the errors that name gone engines."""

from __future__ import annotations

from datetime import timedelta

import pytest

from trio_hub.hub import EngineConnector, EngineState
from trio_hub.hub.events import EngineRegistered, EngineReturned, TaskQueued
from trio_hub.hub.gone import GoneEngines
from trio_hub.wire.messages import Message

from .durable import DurableStore, answer_probes, crashed, probes, running_on
from .world import Peer, World


def requests(world: World, channel: str = "task_out") -> list[Message]:
    return [message for _, message in world.take(channel)]


def error_of(world: World, channel: str = "mux_in") -> str:
    """Return the text of the only error that clients have got since the last call."""
    [content] = world.replies(channel)
    assert content["ename"] == "EngineError"
    return str(content["evalue"])


def lose(world: World, engine: EngineConnector, *, settled: bool) -> None:
    world.hub.lose_engine(engine, "heart", "its heart was silent for 30 s")
    if settled:
        world.hub.handle_stranded(engine)
    world.take("notification")


def come_back(world: World, engine: EngineConnector) -> None:
    """Have the engine's heart beat, and have the engine answer the hub's probe."""
    world.beat(engine.uuid)
    world.hub.flush_route(engine, "task_out")
    assert answer_probes(world, engine.uuid) == 1


@pytest.mark.parametrize("settled", [True, False], ids=["after its grace", "within its grace"])
def test_an_engine_that_was_lost_is_usable_again_when_it_has_answered(settled: bool) -> None:
    world = World()
    engine = world.engine("a", id=7)
    lose(world, engine, settled=settled)
    queued = world.submit()
    world.beat("a")
    world.beat("a")
    assert world.host.to_reach == [(engine, "task_out")], "it is asked once"
    assert not world.hub.engines.alive, "hearts sign nothing"
    assert world.hub.flush_route(engine, "task_out")
    [(channel, question)] = probes(world, "a")
    world.answer("a", question, channel=channel, key=b"guess")
    assert not world.hub.engines.alive
    world.answer("a", question, channel=channel)
    assert world.hub.engines.alive == {7: engine}
    assert engine.state is EngineState.ALIVE
    assert (engine.cause, engine.may_return) == ("", False)
    assert world.replies("notification") == [{"id": 7, "uuid": "a"}]
    assert EngineReturned(7, "a") in world.host.events
    assert world.host.started == [engine, engine], "it has a new life"
    [task] = requests(world)
    assert task.header.msg_id == queued
    world.answer("a", task)
    assert len(world.hub.engines.gone) == 0


def test_an_engine_whose_registration_has_stalled_is_usable_when_its_heart_is_heard_and_it_has_answered() -> None:
    world = World()
    world.register("a")
    [engine] = world.host.started
    world.hub.purge_stalled_registration(engine)
    world.take("notification")
    come_back(world, engine)
    assert world.hub.engines.alive == {0: engine}
    assert world.replies("notification") == [{"id": 0, "uuid": "a"}]
    assert world.host.events[-1] == EngineRegistered(0, "a")
    assert world.hub.engines.engines_registered == 1
    assert world.host.started == [engine, engine], "it has a new life"


def test_an_engine_whose_registration_has_stalled_does_not_return_if_its_id_is_given_away() -> None:
    world = World()
    world.register("a")
    world.hub.purge_stalled_registration(world.host.started[0])
    other = world.engine("b", id=0)
    world.beat("a")
    assert world.hub.engines.alive == {0: other}
    assert world.hub.notices.ignored["unknown_heart"] == 1


def test_its_other_connections_have_to_be_proven_too() -> None:
    world = World()
    engine = world.engine("a")
    lose(world, engine, settled=True)
    come_back(world, engine)
    assert set(engine.routes) == {"mux_out", "broadcast_out", "control_out"}
    call = world.call("a")
    assert requests(world, "mux_out") == []
    world.hub.flush_route(engine, "mux_out")
    assert answer_probes(world, "a") == 1
    assert [request.header.msg_id for request in requests(world, "mux_out")] == [call]


def test_what_was_settled_meanwhile_stays_settled_and_late_results_are_recorded() -> None:
    world = World(hwm=2)
    engine = world.engine("a")
    task, again, call = world.submit(), world.submit(retries=1), world.call("a")
    frames = Peer("c").session.write("apply_request", {}, metadata={"targets": [("a", 0)], "is_broadcast": True})
    world.hub.dispatch_monitor_traffic("broadcast_in", [b"c", *frames])
    sent = {message.header.msg_id: (channel, message) for channel, message in world.take() if channel.endswith("_out")}
    [share] = sent.keys() - {task, again, call}
    lose(world, engine, settled=True)
    assert len(world.take()) == 3, "all but the task with a retry, which is queued"
    for channel, message in sent.values():
        world.answer("a", message, channel=channel)
        world.answer("b", message, channel=channel)
    assert world.take() == []
    for msg_id in (task, call, share):
        assert world.record(msg_id)["result_content"] == {"status": "ok"}
    assert world.record(again)["completed"] is None
    assert world.hub.notices.ignored == {"late_result": 3, "unexpected_result": 5}
    come_back(world, engine)
    assert [request.header.msg_id for request in requests(world)] == [again]
    assert len(world.hub.parts.late_results) == 0


def test_a_task_that_was_not_settled_is_run_again() -> None:
    world = World()
    engine = world.engine("a")
    task = world.submit()
    requests(world)
    lose(world, engine, settled=False)
    come_back(world, engine)
    [request] = requests(world)
    assert request.header.msg_id == task
    world.answer("a", request)
    assert [content["status"] for content in world.replies("task_in")] == ["ok"]


@pytest.mark.parametrize("reason", ["request", "shutdown", "ended"])
def test_an_engine_that_has_ended_does_not_come_back(reason: str, caplog: pytest.LogCaptureFixture) -> None:
    world = World()
    engine = world.engine("a")
    world.hub.lose_engine(engine, reason)
    caplog.clear()
    caplog.set_level("WARNING")
    world.beat("a")
    assert world.host.to_reach == []
    assert world.hub.notices.ignored == {"unknown_heart": 1}
    assert not caplog.messages, "nobody can or need do anything about it"
    world.beat("never seen")
    assert caplog.messages == ["ignored a message"]


def test_an_engine_does_not_come_back_under_an_id_that_another_has() -> None:
    world = World()
    old = world.engine("a", id=3)
    lose(world, old, settled=True)
    new = world.engine("b", id=3)
    world.beat("a")
    assert world.hub.engines.alive == {3: new}
    assert world.hub.notices.ignored == {"unknown_heart": 1}


def test_an_engine_that_registers_anew_does_not_come_back_as_well() -> None:
    world = World()
    old = world.engine("a")
    lose(world, old, settled=True)
    world.beat("a")
    world.hub.flush_route(old, "task_out")
    new = world.engine("a")
    assert answer_probes(world, "a") == 1
    assert world.hub.engines.alive == {1: new}
    assert old.state is EngineState.SETTLED


def test_no_more_engines_are_remembered_than_a_limit_allows() -> None:
    gone = GoneEngines(limit=2)
    for number in range(4):
        gone.remember(EngineConnector(number, f"engine {number}"), "it is gone", may_return=True)
    assert [engine.id for engine in gone] == [2, 3]
    gone.give_id_away(2)
    gone.give_id_away(0)
    assert [gone.that_may_return(f"engine {number}".encode()) is not None for number in range(4)] == [False] * 3 + [
        True
    ]


# The texts of errors


@pytest.mark.parametrize(
    ("reason", "cause", "said"),
    [
        ("heart", "its heart was silent for 30 s", "its heart was silent for 30 s"),
        ("request", "", "it has unregistered"),
        ("ended", "its process got signal 9 (SIGKILL)", "its process got signal 9 (SIGKILL)"),
    ],
)
def test_errors_name_the_id_and_the_cause(reason: str, cause: str, said: str) -> None:
    world = World()
    engine = world.engine("some-uuid", id=5)
    task, call = world.submit(), world.call("some-uuid")
    world.hub.lose_engine(engine, reason, cause)
    assert error_of(world) == f"Engine 5 died while running task {call}: {said}"
    world.hub.handle_stranded(engine)
    assert error_of(world, "task_in") == f"Engine 5 died while running task {task}: {said}"
    world.call("some-uuid")
    assert error_of(world) == f"Engine 5 is not registered any more: {said} (uuid some-uuid)"
    world.call("some-uuid", channel="control_in", msg_type="abort_request")
    assert error_of(world, "control_in") == f"Engine 5 is not registered any more: {said} (uuid some-uuid)"


def test_a_heart_that_stops_is_the_cause_with_its_time() -> None:
    world = World(max_heartmonitor_misses=3, hb_period=500)
    engine = world.engine("a")
    call = world.call("a")
    while engine.state is EngineState.ALIVE:
        world.hub.weigh_hearts()
    assert error_of(world) == f"Engine 0 died while running task {call}: its heart was silent for 2 s"


# Tasks that are queued again


@pytest.mark.parametrize("why", ["its engine died", "it was refused"])
def test_the_record_of_a_task_that_is_queued_again_names_no_engine(why: str) -> None:
    world = World(store=DurableStore())
    engine = world.engine("a")
    task = world.submit(retries=1, timeout=100.0)
    [request] = requests(world)
    assert world.record(task)["engine_uuid"] == "a"
    if why == "its engine died":
        lose(world, engine, settled=True)
    else:
        content = {"status": "error", "ename": "UnmetDependency"}
        world.answer("a", request, content, dependencies_met=False)
    assert world.record(task)["engine_uuid"] is None
    assert TaskQueued(task) in world.host.events
    after = crashed(world, engines={})
    assert not after.hub.engines.alive, "no engine has anything"
    assert running_on(after) == {}
    waiting = after.hub.tasks.scheduler.tasks[task]
    died = why == "its engine died"
    assert (waiting.retries, waiting.refused) == ((0, frozenset()) if died else (1, frozenset({b"a"})))
    after.engine("b")
    after.answer_questions()
    assert running_on(after) == {task: "b"}


# Timeouts


def wait(world: World, seconds: float) -> None:
    began = world.clock()
    while (world.clock() - began).total_seconds() < seconds:
        pass


@pytest.mark.parametrize("hours", [-1, 1])
def test_a_timeout_goes_by_the_clock_of_the_hub(hours: int) -> None:
    before = World(store=DurableStore())
    submitted = before.client.session.now
    before.clock.time = submitted()  # `crashed` does not set it back
    client = Peer("client")
    client.session.now = lambda: submitted() + timedelta(hours=hours)
    task = before.submit(client, timeout=10.0)
    wait(before, 4.0)
    world = crashed(before)
    [(_, seconds, time_is_up)] = world.host.timers
    assert seconds == pytest.approx(6.0, abs=0.5)
    time_is_up()
    assert world.record(task)["result_content"]["evalue"] == "the task has waited for longer than 10.0 s"


def test_a_wait_that_begins_anew_has_its_full_time() -> None:
    before = World(store=DurableStore())
    engine = before.engine("a")
    before.submit(timeout=2.0, retries=1)
    wait(before, 5.0)
    world = crashed(before)
    wait(world, 5.0)
    world.hub.purge_unheard()
    for engine in list(world.hub.engines.lost):
        world.hub.handle_stranded(engine)
    assert [seconds for _, seconds, _ in world.host.timers] == [2.0], "it has run all the time"
    world.answer_questions()
    wait(world, 1.5)
    third = crashed(world, engines={})
    assert not third.hub.engines.alive
    [(_, seconds, _)] = third.host.timers
    assert seconds == pytest.approx(0.5, abs=0.2)


# Engines of an earlier hub that had nothing to do


def test_only_engines_that_a_request_may_need_are_expected() -> None:
    before = World(store=DurableStore())
    for uuid in ("busy", "target", "idle"):
        before.engine(uuid)
    before.call("busy")
    before.submit(targets=["target"])
    engines = {engine.id: engine.uuid for engine in before.hub.engines.alive.values()}
    world = crashed(before, engines={}, remembered=engines)
    assert {engine.id: engine.uuid for engine in world.hub.engines.alive.values()} == {0: "busy", 1: "target"}
    [idle] = world.hub.engines.gone
    assert world.register("newcomer")["id"] == 3
    come_back(world, idle)
    assert world.hub.engines.alive[2].uuid == "idle"


def test_all_engines_are_expected_that_a_task_may_have_to_follow() -> None:
    before = World(store=DurableStore())
    for uuid in ("a", "b"):
        before.engine(uuid)
    first = before.submit(targets=["a"])
    [request] = requests(before)
    before.submit(follow=[first], after=[before.call("b")])
    before.answer("a", request)
    world = crashed(before, engines={}, remembered={0: "a", 1: "b"})
    assert [engine.uuid for engine in world.hub.engines.alive.values()] == ["a", "b"]
    assert len(world.hub.engines.gone) == 0
