from __future__ import annotations

from typing import Any

import pytest

from trio_hub.hub import EngineConnector, EngineState
from trio_hub.hub.hearts import Hearts

from .bench import Bench, FakeWatcher


def registered(bench: Bench, uuid: str = "a", **content: Any) -> EngineConnector | None:
    msg = bench.message("registration_request", {"uuid": uuid} | content)
    return bench.engines.register_engine([uuid.encode()], msg)


def test_an_engine_registers_joins_and_goes() -> None:
    bench = Bench()
    told: list[str] = []
    bench.engines.connect(lambda engine: told.append("joined"), lambda engine: None, [FakeWatcher(told)])
    engine = registered(bench, id=5)
    assert engine is not None
    assert bench.host.started == [engine]
    assert bench.contents("query")[0]["id"] == 5
    bench.engines.finish_registration(b"a")
    assert bench.engines.alive == {5: engine}
    bench.engines.lose_engine(engine, "heart")
    bench.engines.handle_stranded(engine)
    assert told == ["joined", "lost a", "settled a"]
    assert bench.engines.engines_lost["heart"] == 1
    assert engine.state is EngineState.SETTLED


def test_a_uuid_in_use_is_refused_and_ids_are_not_used_again() -> None:
    bench = Bench()
    first = registered(bench)
    assert registered(bench) is None
    assert bench.contents("query")[-1]["ename"] == "KeyError"
    assert first is not None
    bench.engines.purge_stalled_registration(first)
    second = registered(bench)
    assert second is not None
    assert (first.id, second.id, bench.engines.next_engine_id) == (0, 1, 2)


def test_a_watcher_that_fails_does_not_keep_the_others_from_being_told() -> None:
    bench = Bench()
    told: list[str] = []
    watchers = [FakeWatcher(told, fails=True), FakeWatcher(told, owes=True)]
    bench.engines.connect(lambda engine: None, lambda engine: None, watchers)
    engine = bench.engine()
    bench.engines.lose_engine(engine, "request")
    assert bench.engines.owes_answers(engine)
    bench.engines.handle_stranded(engine)
    assert told == ["lost a", "lost a", "settled a", "settled a"]
    assert bench.notices.internal_errors == {"end of an engine": 2}
    assert len(bench.sent("notification")) == 1


@pytest.mark.parametrize("broken", ["send", "start_engine"])
def test_a_registration_that_fails_leaves_nothing(broken: str) -> None:
    bench = Bench()

    def fail(*arguments: Any) -> None:
        raise ZeroDivisionError("a bug")

    setattr(bench.host, broken, fail)
    with pytest.raises(ZeroDivisionError):
        registered(bench)
    assert bench.engines.incoming_registrations == {}


def test_hearts_make_engines_usable_and_are_missed() -> None:
    bench = Bench()
    hearts = Hearts(bench.heartmonitor, bench.engines, bench.notices, bench.clock)
    engine = registered(bench)
    assert engine is not None
    assert hearts.awaits_hearts
    hearts.handle_pong([b"a", bench.heartmonitor.ping()])
    hearts.handle_pong([b"nobody", bench.heartmonitor.ping()])
    hearts.handle_pong([b"a", b"forged"])
    assert bench.engines.alive == {0: engine}
    assert bench.notices.ignored == {"unknown_heart": 1, "bad_heartbeat": 1}
    for _ in range(bench.heartmonitor.max_misses + 2):
        hearts.weigh_hearts()
    assert engine.state is EngineState.LOST


def test_restored_engines_are_expected_and_let_go() -> None:
    bench = Bench()
    returned: list[int] = []
    bench.engines.connect(lambda engine: None, lambda engine: returned.append(engine.id), [])
    hearts = Hearts(bench.heartmonitor, bench.engines, bench.notices, bench.clock)
    for engine_id, uuid in {3: "a", 4: "b", 5: ""}.items():
        bench.engines.restore_engine(engine_id, uuid)
    bench.engines.reserve_ids(9)
    engines = list(bench.engines.alive.values())
    assert [(engine.id, engine.state) for engine in engines] == [(3, EngineState.EXPECTED), (4, EngineState.EXPECTED)]
    hearts.handle_pong([b"a", bench.heartmonitor.ping()])
    hearts.purge_unheard()
    assert returned == [3]
    assert [engine.state for engine in engines] == [EngineState.RETURNING, EngineState.LOST]
    assert list(bench.engines.alive) == [3]
    assert bench.engines.next_engine_id == 9
