from __future__ import annotations

from trio_hub.hub.late import LateResults

from .bench import Bench


def test_the_late_result_of_an_engine_that_may_return_is_recorded_once() -> None:
    bench = Bench()
    late = LateResults(bench.answers, bench.notices)
    engine = bench.engine()
    msg = bench.message()
    late.expect(engine, msg.header.msg_id)
    assert len(late) == 0, "it is not gone"
    engine.may_return = True
    late.expect(engine, msg.header.msg_id)
    assert not late.record(b"another", bench.reply_to("another", msg))
    assert late.record(b"a", bench.reply_to("a", msg))
    assert not late.record(b"a", bench.reply_to("a", msg))
    assert bench.notices.ignored == {"late_result": 1}


def test_no_more_is_remembered_than_a_limit_allows() -> None:
    bench = Bench()
    late = LateResults(bench.answers, bench.notices, limit=2)
    engine = bench.engine()
    engine.may_return = True
    messages = [bench.message() for _ in range(3)]
    for msg in messages:
        late.expect(engine, msg.header.msg_id)
    assert [late.record(b"a", bench.reply_to("a", msg)) for msg in messages] == [False, True, True]
