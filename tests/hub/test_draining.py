"""Draining engines, and limits on the run time of tasks, in the core."""

from __future__ import annotations

from typing import Any

import pytest

from trio_hub.hub.events import EngineDraining
from trio_hub.wire.messages import Message

from .durable import DurableStore, crashed
from .test_cancelling import HIT, errors, kinds, land, pass_time, running, sent
from .world import Peer, World


def drain(world: World, *engines: Any, **options: Any) -> dict[str, str]:
    reply = world.query("drain_request", {"engines": list(engines)} | options)
    assert reply["status"] == "ok", reply
    done = reply["engines"]
    assert isinstance(done, dict)
    return done


def tasks_sent(world: World) -> list[tuple[bytes, str]]:
    """Return the engines and the msg_ids of the tasks that were sent."""
    found = [(message.idents[0], message) for message in sent(world, "task_out")]
    return [(bytes(ident), one.header.msg_id) for ident, one in found if one.header.msg_type == "apply_request"]


def test_a_drained_engine_gets_no_tasks_and_answers_direct_requests() -> None:
    world = World()
    engine = world.engine("a")
    _, request = running(world)
    assert drain(world, engine.id, "nobody", by="ann") == {str(engine.id): "draining", "nobody": "unknown"}
    assert EngineDraining(engine.id, "a", True, "ann") in world.host.events
    waiting = world.submit()
    world.answer("a", request)
    assert not tasks_sent(world)
    assert len(errors(world)) == 1
    world.call("a")
    assert kinds(sent(world, "mux_out")) == ["apply_request"]
    assert drain(world, "a", undrain=True) == {"a": "undrained"}
    assert tasks_sent(world) == [(b"a", waiting)]
    assert drain(world, "a", undrain=True) == {"a": "not drained"}


def test_a_drained_engine_is_told_to_end_when_it_is_idle() -> None:
    world = World()
    engine = world.engine("a")
    _, request = running(world)
    called = world.call("a")
    [direct] = sent(world, "mux_out")
    drain(world, "a", then="shutdown")
    world.answer("a", request)
    assert not sent(world, "control_out")
    world.answer("a", direct, channel="mux_out")
    assert errors(world, "mux_in") == [(called, "")]
    assert kinds(sent(world, "control_out")) == ["shutdown_request"]
    assert engine.told_to_stop


def test_an_idle_engine_is_told_to_end_at_once() -> None:
    world = World()
    world.engine("a")
    drain(world, "a", then="shutdown")
    assert kinds(sent(world, "control_out")) == ["shutdown_request"]


def test_at_the_deadline_tasks_are_run_elsewhere_and_no_attempt_counts() -> None:
    world = World()
    world.engine("a")
    msg_id, request = running(world)
    drain(world, "a", deadline=60, then="shutdown")
    world.engine("b")
    assert not tasks_sent(world)
    pass_time(world, 60)
    [signal] = sent(world, "control_out")
    assert world.content(signal) == {"sig": "SIGINT"}
    world.answer("a", request, HIT)
    assert tasks_sent(world) == [(b"b", msg_id)]
    assert world.hub.tasks.scheduler.tasks[msg_id].attempts == 1
    assert world.hub.work.interrupts.taken_away == 1
    assert kinds(sent(world, "control_out")) == ["shutdown_request"]
    assert not sent(world, "task_in")


def test_a_task_that_ends_at_the_deadline_is_answered() -> None:
    world = World()
    world.engine("a")
    msg_id, request = running(world)
    drain(world, "a", deadline=60)
    pass_time(world, 60)
    world.answer("a", request)
    assert errors(world) == [(msg_id, "")]
    assert world.hub.work.interrupts.taken_away == 0


def test_a_task_that_ignores_the_deadline_is_run_elsewhere_when_its_engine_is_killed() -> None:
    world = World()
    engine = world.engine("a")
    msg_id, _ = running(world)
    drain(world, "a", deadline=60)
    pass_time(world, 60)
    pass_time(world, 10)
    assert world.host.killed == [engine]
    world.hub.lose_engine(engine, "ended")
    world.engine("b")
    assert tasks_sent(world) == [(b"b", msg_id)]


def test_a_task_that_is_taken_away_can_be_cancelled() -> None:
    world = World()
    world.engine("a")
    msg_id, request = running(world)
    drain(world, "a", deadline=60)
    pass_time(world, 60)
    world.query("cancel_request", {"msg_ids": [msg_id]})
    world.answer("a", request, HIT)
    assert errors(world) == [(msg_id, "TaskCancelled")]


def test_ending_a_drain_takes_nothing_away() -> None:
    world = World()
    world.engine("a")
    running(world)
    drain(world, "a", deadline=60)
    drain(world, "a", undrain=True)
    pass_time(world, 60)
    assert not sent(world, "control_out")


def ask_as_engine(world: World, sender: str, content: dict[str, Any]) -> dict[str, Any]:
    return world.query("drain_request", content, Peer(sender))


def test_an_engine_asks_for_its_own_drain() -> None:
    world = World()
    engine = world.engine("a")
    assert ask_as_engine(world, "b", {"uuid": "a", "seconds_left": 30})["status"] == "error"
    assert not world.hub.work.draining.drains
    assert ask_as_engine(world, "a", {"uuid": "a", "seconds_left": 30})["status"] == "ok"
    assert engine.worker is not None
    assert engine.worker.draining
    assert 29 < world.hub.parts.assignments.seconds_left(engine.worker) <= 30


def test_an_engine_that_drains_itself_asks_whether_requests_are_on_their_way() -> None:
    world = World()
    engine = world.engine("a")
    _, request = running(world)
    called = world.call("a")
    [direct] = sent(world, "mux_out")
    facts = {"uuid": "a", "by": "the engine itself: it received signal 10"}
    assert ask_as_engine(world, "a", facts) == {
        "status": "ok",
        "engines": {"a": "draining"},
        "draining": True,
        "pending": 2,
    }
    assert EngineDraining(engine.id, "a", True, facts["by"]) in world.host.events
    world.host.events.clear()

    def asked() -> dict[str, Any]:
        return ask_as_engine(world, "a", {"uuid": "a", "drain": False})

    world.answer("a", request)
    assert asked()["pending"] == 1
    world.answer("a", direct, channel="mux_out")
    assert errors(world, "mux_in") == [(called, "")]
    assert asked() == {"status": "ok", "engines": {"a": "draining"}, "draining": True, "pending": 0}
    drain(world, "a", undrain=True)
    assert asked() == {"status": "ok", "engines": {"a": "not drained"}, "draining": False, "pending": 0}
    assert not engine.told_to_stop
    ask_as_engine(world, "a", {"uuid": "a", "final": True})
    assert engine.told_to_stop


def test_what_the_hub_knows_of_engines() -> None:
    world = World()
    first = world.engine("a", offers={"site": "a", "gpu": 2}, seconds_left=100, block="slurm-1")
    second = world.engine("b")
    drain(world, "b", deadline=60, by="ann")
    reply = world.query("engines_request", {})
    assert reply == {
        "status": "ok",
        "engines": {
            str(first.id): {
                "uuid": "a",
                "offers": {"gpu": 2.0, "site": "a"},
                "block": "slurm-1",
                "drain": None,
                "leaves": first.leaves_at,
            },
            str(second.id): {
                "uuid": "b",
                "offers": {},
                "block": "",
                "drain": {"by": "ann", "deadline": world.hub.work.draining.drains[b"b"].deadline, "then": ""},
                "leaves": None,
            },
        },
    }


def test_an_engine_says_how_long_it_is_there() -> None:
    world = World()
    engine = world.engine("a", seconds_left=100)
    assert engine.worker is not None
    assert 99 < world.hub.parts.assignments.seconds_left(engine.worker) <= 100
    ask_as_engine(world, "a", {"uuid": "a", "seconds_left": 50, "drain": False})
    assert 49 < world.hub.parts.assignments.seconds_left(engine.worker) <= 50
    assert not engine.worker.draining
    other = world.engine("b", seconds_left="soon")
    assert other.leaves_at is None


@pytest.mark.parametrize(
    "content", [{}, {"engines": ["a"], "then": "dance"}, {"engines": ["a"], "deadline": -1}, {"engines": "a"}]
)
def test_a_wrong_drain_is_refused(content: dict[str, Any]) -> None:
    world = World()
    world.engine("a")
    assert world.query("drain_request", content)["status"] == "error"
    assert not world.hub.work.draining.drains


def test_a_drain_outlives_the_hub() -> None:
    world = World(store=DurableStore())
    world.engine("a", aims_interrupts=True, seconds_left=500)
    drain(world, "a", deadline=100, then="shutdown")
    saved = world.hub.work.saved()
    world = crashed(world)
    world.hub.work.restore(saved)
    [engine] = world.hub.engines.alive.values()
    assert engine.aims_interrupts
    assert engine.worker is not None
    assert engine.worker.draining
    world.submit()
    world.beat("a")
    world.answer_questions()
    assert not tasks_sent(world)
    assert world.hub.work.saved() == saved


def test_a_drained_engine_that_was_lost_and_comes_back_is_still_drained() -> None:
    world = World()
    engine = world.engine("a")
    drain(world, "a")
    world.hub.lose_engine(engine, "heart")
    world.submit()
    world.beat("a")
    world.hub.flush_route(engine, "task_out")
    [question] = [one for one in sent(world, "task_out") if one.header.msg_type == "kernel_info_request"]
    world.answer("a", question)
    assert engine.state.is_registered
    assert not tasks_sent(world)
    drain(world, "a", undrain=True)
    assert len(tasks_sent(world)) == 1


def test_the_drain_of_an_engine_that_has_left_is_forgotten() -> None:
    world = World()
    engine = world.engine("a")
    drain(world, "a")
    world.hub.lose_engine(engine, "request")
    assert not world.hub.work.draining.drains
    assert not world.hub.parts.work.interrupts.open


def test_the_drain_of_an_engine_that_cannot_come_back_any_more_is_forgotten() -> None:
    world = World()
    engine, other = world.engine("a"), world.engine("b")
    drain(world, "a", "b")
    world.hub.lose_engine(engine, "heart")
    assert set(world.hub.work.draining.drains) == {b"a", b"b"}
    world.engine("c", id=engine.id)  # another engine has its id
    world.hub.lose_engine(other, "ended")
    assert not world.hub.work.draining.drains


# Limits


def limited(world: World, **rules: Any) -> tuple[str, Message]:
    return running(world, rules={"max_runtime": 5.0} | rules)


def test_no_timer_runs_for_a_task_without_a_limit() -> None:
    world = World()
    world.engine("a")
    running(world)
    assert not world.host.timers


def test_a_task_that_runs_for_too_long_is_interrupted() -> None:
    world = World()
    world.engine("a")
    msg_id, request = limited(world, max_attempts=5)
    assert [seconds for _, seconds, _ in world.host.timers] == [pytest.approx(5.0, abs=0.01)]
    pass_time(world, 5.0)
    [signal] = sent(world, "control_out")
    land(world, "a", signal)
    world.answer("a", request, HIT)
    assert errors(world) == [(msg_id, "TaskTimeout")]
    text = world.record(msg_id)["result_content"]["evalue"]
    assert text.startswith("the task ran for 0.0 s, and its max_runtime is 5 s: it was interrupted, and ended after")


def test_the_wait_does_not_count() -> None:
    world = World()
    world.submit(rules={"max_runtime": 5.0})
    assert not world.host.timers
    world.engine("a")
    assert len(world.host.timers) == 1


def test_the_timer_ends_with_the_task() -> None:
    world = World()
    world.engine("a")
    _, request = limited(world)
    world.answer("a", request)
    [(scope, _, _)] = world.host.timers
    assert scope.cancelled
    assert not world.hub.parts.assignments.limits.runs


def test_each_attempt_has_the_whole_time() -> None:
    world = World()
    engine = world.engine("a")
    msg_id, _ = running(world, rules={"max_runtime": 5.0}, retries=1)
    world.hub.lose_engine(engine, "ended")
    world.engine("b")
    world.hub.handle_stranded(engine)
    assert tasks_sent(world) == [(b"b", msg_id)]
    first, second = world.host.timers
    assert first[0].cancelled
    assert second[1] == pytest.approx(5.0, abs=0.01)


def test_the_grace_of_the_rules_counts() -> None:
    world = World()
    world.engine("a")
    limited(world, grace=2.0)
    pass_time(world, 5.0)
    pass_time(world, 2.0)
    assert world.host.killed


def test_after_a_restart_the_limit_counts_from_the_time_that_was_noted() -> None:
    world = World(store=DurableStore())
    world.engine("a")
    limited(world)
    began = next(iter(world.hub.parts.assignments.limits.runs.values())).began
    world = crashed(world)
    [run] = world.hub.parts.assignments.limits.runs.values()
    assert run.began == began
