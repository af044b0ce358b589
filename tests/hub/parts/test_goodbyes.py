from __future__ import annotations

from typing import Any

import pytest

from trio_hub.hub import EngineState
from trio_hub.hub.goodbyes import Goodbyes

from .bench import Bench

NOBODY = b"\0made up by ZeroMQ"


def goodbyes_on(bench: Bench) -> Goodbyes:
    return Goodbyes(bench.host, bench.session, bench.notices, bench.engines)


def test_an_engine_that_names_itself_is_believed_at_once() -> None:
    bench = Bench()
    engine = bench.engine()
    goodbyes_on(bench).unregister_engine([b"a"], bench.message("unregistration_request", {"id": 0}))
    assert engine.state is EngineState.LOST
    assert bench.engines.gone.that_may_return(b"a") is None
    assert bench.host.asked_hearts == []


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ({}, "request"),
        ({"cause": "a client has asked for it", "killed": False}, "request"),
        ({"killed": "odd"}, "request"),
        ({"cause": "killed by signal 9 (SIGKILL)", "killed": True}, "died"),
    ],
)
def test_an_engine_that_was_killed_has_died(content: dict[str, Any], reason: str) -> None:
    bench = Bench()
    engine = bench.engine()
    named = {"id": 0, "uuid": "a"} | content
    goodbyes_on(bench).unregister_engine([NOBODY], bench.message("unregistration_request", named))
    assert (engine.state, engine.loss) == (EngineState.LOST, reason)
    assert engine.cause == content.get("cause", "it has unregistered")


@pytest.mark.parametrize("answered", [True, False])
def test_a_goodbye_with_only_an_id_depends_on_the_heart(answered: bool) -> None:
    bench = Bench()
    goodbyes = goodbyes_on(bench)
    engine = bench.engine()
    for _ in range(2):
        goodbyes.unregister_engine([NOBODY], bench.message("unregistration_request", {"id": 0}))
    assert engine.state is EngineState.ALIVE
    assert bench.host.asked_hearts == [engine]
    goodbyes.heart_asked(engine, answered=answered)
    assert engine.state is (EngineState.ALIVE if answered else EngineState.LOST)
    assert engine.loss == ("" if answered else "died"), "only a stock nanny speaks so, when its engine has died"
    assert (bench.engines.gone.that_may_return(b"a") is engine) is not answered
    assert not goodbyes.doubted


def test_an_engine_that_has_gone_meanwhile_stays_as_it_is() -> None:
    bench = Bench()
    goodbyes = goodbyes_on(bench)
    engine = bench.engine()
    goodbyes.unregister_engine([NOBODY], bench.message("unregistration_request", {"id": 0}))
    bench.engines.lose_engine(engine, "ended", "its process got signal 9")
    goodbyes.heart_asked(engine, answered=False)
    assert (engine.state, engine.cause, engine.may_return) == (EngineState.LOST, "its process got signal 9", False)


@pytest.mark.parametrize("known", ["", "killed by signal 9 (SIGKILL)"])
def test_a_cause_that_is_known_already_is_not_replaced_by_a_guess(known: str) -> None:
    bench = Bench()
    goodbyes = goodbyes_on(bench)
    engine = bench.engine()
    engine.cause = known
    goodbyes.unregister_engine([NOBODY], bench.message("unregistration_request", {"id": 0}))
    goodbyes.heart_asked(engine, answered=False)
    assert engine.cause == (known or "somebody has unregistered it, such as its nanny, and its heart did not answer")
