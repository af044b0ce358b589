from __future__ import annotations

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
