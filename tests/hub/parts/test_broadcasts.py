from __future__ import annotations

import pytest

from trio_hub.hub.broadcasts import Broadcasts
from trio_hub.hub.gathering import Gathering
from trio_hub.hub.scattered import Scattered
from trio_hub.records.record import TaskRecord
from trio_hub.schedulers.broadcast import sub_msg_id
from trio_hub.wire.messages import Message

from ..durable import DurableStore
from .bench import Bench


def broadcasts_on(bench: Bench) -> tuple[Broadcasts, Gathering]:
    gathering = Gathering(
        bench.session,
        bench.store,
        notices=bench.notices,
        answers=bench.answers,
        request_ended=bench.request_ended,
    )
    broadcasts = Broadcasts(
        bench.host,
        bench.session,
        bench.clock,
        channels=("broadcast_out",),
        gathering=gathering,
        scattered=Scattered(bench.host, bench.session, notices=bench.notices, intake=bench.intake, owed=bench.owed),
        request_ended=bench.request_ended,
        **bench.below,
    )
    bench.routes.connect({"broadcast_out": broadcasts})
    return broadcasts, gathering


def sent_to(bench: Bench, broadcasts: Broadcasts, *uuids: str, gather: bool = True) -> Message:
    metadata = {"targets": [(uuid, 0) for uuid in uuids], "is_coalescing": gather}
    msg = bench.message(metadata=metadata)
    broadcasts.save_broadcast_request([b"client"], msg)
    return msg


def test_answers_are_gathered_in_the_order_of_the_targets() -> None:
    bench = Bench(DurableStore())
    broadcasts, gathering = broadcasts_on(bench)
    for number, uuid in enumerate("ab"):
        bench.engine(uuid, number)
    msg = sent_to(bench, broadcasts, "a", "b")
    shares = bench.sent("broadcast_out")
    for uuid, share in reversed(list(zip("ab", shares, strict=True))):
        assert gathering.gathered.keys() == {msg.header.msg_id}
        broadcasts.save_broadcast_result([uuid.encode()], bench.reply_to(uuid, share))
    [reply] = bench.sent("broadcast_in")
    assert reply.parent.msg_id == msg.header.msg_id
    assert bench.session.metadata(reply)["broadcast_targets"] == [["a", 0], ["b", 0]]
    assert gathering.gathered == {}
    assert len(bench.store._records) == 1, "the notes of shares are gone"  # type: ignore[attr-defined]


def test_each_engine_answers_for_itself() -> None:
    bench = Bench()
    broadcasts, _ = broadcasts_on(bench)
    engine = bench.engine()
    msg = sent_to(bench, broadcasts, "a", "nobody", gather=False)
    [share] = bench.sent("broadcast_out")
    broadcasts.save_broadcast_result([b"a"], bench.reply_to("a", share))
    assert [sent.parent.msg_id for sent in bench.sent("broadcast_in")] == [
        sub_msg_id(msg.header.msg_id, "nobody"),
        sub_msg_id(msg.header.msg_id, "a"),
    ]
    assert (broadcasts.submitted, engine.completed, broadcasts.outstanding(engine)) == (2, 1, [])


@pytest.mark.parametrize("uuids", [(), ("a", "a")])
def test_a_broadcast_to_nobody_or_to_one_engine_twice_is_refused(uuids: tuple[str, ...]) -> None:
    bench = Bench()
    broadcasts, _ = broadcasts_on(bench)
    sent_to(bench, broadcasts, *uuids)
    assert bench.contents("broadcast_in")[0]["ename"] == "EngineError"


@pytest.mark.parametrize("gather", [True, False])
def test_an_engine_that_dies_is_answered_for(gather: bool) -> None:
    bench = Bench()
    broadcasts, _ = broadcasts_on(bench)
    engine = bench.engine()
    sent_to(bench, broadcasts, "a", gather=gather)
    broadcasts.engine_lost(engine)
    broadcasts.engine_settled(engine)
    assert "died while running" in bench.contents("broadcast_in")[0]["evalue"]
    assert not broadcasts.owes_answers(engine)


@pytest.mark.parametrize("gather", [True, False])
def test_a_broadcast_that_cannot_be_recorded_is_answered(gather: bool) -> None:
    class Full(DurableStore):
        def add(self, record: TaskRecord) -> None:
            raise ZeroDivisionError("a bug")

    bench = Bench(Full())
    broadcasts, gathering = broadcasts_on(bench)
    bench.engine()
    sent_to(bench, broadcasts, "a", "b", gather=gather)
    assert [content["ename"] for content in bench.contents("broadcast_in")] == ["HubError"] * (1 if gather else 2)
    assert bench.sent("broadcast_out") == []
    assert gathering.gathered == {}


def test_a_share_can_be_sent_once_more() -> None:
    bench = Bench()
    broadcasts, _ = broadcasts_on(bench)
    engine = bench.engine()
    msg = sent_to(bench, broadcasts, "a")
    [share] = bench.sent("broadcast_out")
    [direct] = broadcasts.repeatable(engine, broadcasts.outstanding(engine))
    frames = broadcasts.frames_of(direct, bench.record(msg.header.msg_id))
    assert list(frames)[1:] == list(share.frames)[1:], "the same signature, so an engine that has had it drops it"
