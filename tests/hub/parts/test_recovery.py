"""Requests and engines of an earlier hub. These tests use all parts, since recovery passes everything on to them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from trio_hub.hub import EngineState
from trio_hub.hub.recovery import Recovery
from trio_hub.hub.returning import ReturningEngines
from trio_hub.records.record import TaskRecord

from ..durable import DurableStore, carry_out
from ..world import World


def left_behind(*, engine: bool = True) -> tuple[DurableStore, list[str]]:
    """Return a store with an unanswered task and an unanswered direct request."""
    before = World(store=DurableStore())
    if engine:
        before.engine("a")
    msg_ids = [before.submit(), before.submit()]
    if engine:
        msg_ids.append(before.call("a"))
    assert isinstance(before.hub.store, DurableStore)
    return DurableStore(list(before.hub.store.committed.values())), msg_ids


def recovery_of(world: World) -> Recovery:
    hub = world.hub
    return Recovery(
        hub.session,
        hub.store,
        notices=hub.notices,
        redelivery=hub.redelivery,
        owed=hub.owed,
        answers=hub.answers,
        engines=hub.engines,
        tasks=hub.tasks,
        direct=hub.direct,
        broadcasts=hub.parts.restored,
        carry_on=hub.work.cancelling.cancel_again,
    )


def test_requests_are_taken_over_and_their_engine_is_expected() -> None:
    store, msg_ids = left_behind()
    world = World(store=store, session_id="hub'")
    assert carry_out(recovery_of(world).take_over()) == 3
    [engine] = world.hub.engines.alive.values()
    assert (engine.uuid, engine.state) == ("a", EngineState.EXPECTED)
    assert all(map(world.hub.is_pending, msg_ids))
    assert world.hub.submitted == {"task": 2, "mux": 1, "broadcast": 0}


def test_requests_are_written_off() -> None:
    store, msg_ids = left_behind()
    world = World(store=store, session_id="hub'")
    assert carry_out(recovery_of(world).write_off()) == 3
    assert all(record.completed for record in store.committed.values())
    assert not any(map(world.hub.is_pending, msg_ids))


@pytest.mark.parametrize("part", ["tasks", "direct"])
def test_what_cannot_be_taken_up_is_given_up_told_and_recorded(part: str) -> None:
    store, msg_ids = left_behind()
    world = World(store=store, session_id="hub'")

    def fail(*arguments: Any) -> None:
        raise ZeroDivisionError("a bug")

    setattr(getattr(world.hub, part), "take_over", fail)  # noqa: B010
    assert carry_out(recovery_of(world).take_over()) == 3
    given_up = msg_ids[:2] if part == "tasks" else msg_ids[2:]
    assert [msg_id for msg_id in msg_ids if not world.hub.is_pending(msg_id)] == given_up
    assert all((store.committed[msg_id].completed is not None) == (msg_id in given_up) for msg_id in msg_ids)
    assert world.hub.notices.internal_errors == {"recovery": len(given_up)}


def test_a_record_that_is_damaged_is_given_up() -> None:
    store = DurableStore([TaskRecord("x", queue="task", header=b"{", client_uuid="client")])
    world = World(store=store)
    assert carry_out(recovery_of(world).take_over()) == 1
    assert store.committed["x"].completed is not None


@pytest.mark.parametrize("asks", [True, False])
def test_an_engine_that_returns_is_sent_what_it_may_not_have_and_is_asked(asks: bool) -> None:
    store, _ = left_behind()
    world = World(store=store, session_id="hub'")
    hub = world.hub
    carry_out(hub.recovery.take_over())
    [engine] = hub.engines.alive.values()
    returning = ReturningEngines(
        world.host,
        notices=hub.notices,
        routes=hub.routes,
        engines=hub.engines,
        direct=hub.direct,
        broadcasts=hub.broadcasts,
        scheduler=hub.tasks.scheduler,
    )

    def broken(*arguments: Any) -> None:
        raise ZeroDivisionError("a bug")

    ask: Callable[..., Any] = world.host.ask_store
    setattr(world.host, "ask_store", ask if asks else broken)  # noqa: B010
    engine.state = EngineState.RETURNING
    returning.engine_returned(engine)
    world.answer_questions()
    assert engine.state is EngineState.ALIVE
    sent = [(channel, message.header.msg_type) for channel, message in world.take() if channel.endswith("_out")]
    questions = [("task_out", "kernel_info_request"), ("mux_out", "kernel_info_request")]
    assert sent == [("mux_out", "apply_request")] * asks + questions
