"""Unanswered direct requests: each is answered once, by the engine that was asked."""

from __future__ import annotations

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from trio_hub.schedulers.unanswered import Direct, Lane, UnansweredRequests
from trio_hub.wire.messages import Header


def make(lane: Lane, msg_id: str) -> Direct:
    return Direct([b"client"], Header(msg_id, "apply_request"), b"{}", lane)


def test_a_request_is_answered_once() -> None:
    unanswered, lane = UnansweredRequests(), Lane(b"a")
    direct = make(lane, "1")
    assert unanswered.sent(direct)
    assert len(lane) == 1
    assert unanswered.answered(b"a", "1") is direct
    assert unanswered.answered(b"a", "1") is None
    assert len(lane) == 0
    assert not unanswered.pending


def test_only_the_engine_that_was_asked_answers() -> None:
    unanswered, lane, other = UnansweredRequests(), Lane(b"a"), Lane(b"b")
    unanswered.sent(make(lane, "1"))
    unanswered.sent(make(other, "2"))
    assert unanswered.answered(b"b", "1") is None
    assert unanswered.answered(b"a", "unknown") is None
    assert (len(lane), len(other)) == (1, 1)


def test_a_msg_id_is_on_its_way_once() -> None:
    unanswered, lane, other = UnansweredRequests(), Lane(b"a"), Lane(b"b")
    first = make(lane, "1")
    assert unanswered.sent(first)
    assert not unanswered.sent(make(lane, "1"))
    assert not unanswered.sent(make(other, "1"))
    assert (len(lane), len(other)) == (1, 0)
    assert unanswered.answered(b"a", "1") is first
    assert unanswered.sent(make(other, "1")), "once it is answered it may be used again"


def test_requests_that_a_gone_engine_has_not_answered() -> None:
    unanswered, lane, other = UnansweredRequests(), Lane(b"a"), Lane(b"b")
    requests = [make(lane, "1"), make(other, "2"), make(lane, "3")]
    for direct in requests:
        unanswered.sent(direct)
    assert unanswered.strand(lane) == [requests[0], requests[2]], "in the order in which it was asked"
    assert unanswered.strand(lane) == []
    assert unanswered.answered(b"a", "1") is None, "too late"
    assert unanswered.answered(b"b", "2") is requests[1]


def test_tables_do_not_share_their_requests() -> None:
    mux, control, lane, control_lane = UnansweredRequests(), UnansweredRequests(), Lane(b"a"), Lane(b"a")
    assert mux.sent(make(lane, "1"))
    assert control.sent(make(control_lane, "1"))
    assert mux.answered(b"a", "1") is not control.answered(b"a", "1")


def test_a_direct_request_shows_what_it_is() -> None:
    assert repr(make(Lane(b"a"), "1")) == "<Direct apply_request 1 to b'a'>"


class UnansweredMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.unanswered = UnansweredRequests()
        self.lanes = {name: Lane(name) for name in (b"a", b"b", b"c")}
        self.model: dict[str, Direct] = {}

    @rule(name=st.sampled_from([b"a", b"b", b"c"]), number=st.integers(0, 5))
    def send(self, name: bytes, number: int) -> None:
        direct = make(self.lanes[name], str(number))
        assert self.unanswered.sent(direct) == (str(number) not in self.model)
        self.model.setdefault(str(number), direct)

    @rule(name=st.sampled_from([b"a", b"b", b"c"]), number=st.integers(0, 5))
    def answer(self, name: bytes, number: int) -> None:
        direct = self.model.get(str(number))
        wanted = direct if direct is not None and direct.lane.ident == name else None
        assert self.unanswered.answered(name, str(number)) is wanted
        if wanted is not None:
            del self.model[str(number)]

    @rule(name=st.sampled_from([b"a", b"b", b"c"]))
    def strand(self, name: bytes) -> None:
        wanted = [direct for direct in self.model.values() if direct.lane.ident == name]
        assert self.unanswered.strand(self.lanes[name]) == wanted
        for direct in wanted:
            del self.model[direct.header.msg_id]
        self.lanes[name] = Lane(name)  # the engine may come back, without unanswered requests

    @invariant()
    def same(self) -> None:
        assert self.unanswered.pending == self.model
        owed = [direct for lane in self.lanes.values() for direct in lane.pending.values()]
        assert sorted(map(id, owed)) == sorted(map(id, self.model.values()))
        assert sum(map(len, self.lanes.values())) == len(self.model)


@pytest.mark.property
def test_against_a_model() -> None:
    run_state_machine_as_test(UnansweredMachine, settings=settings(max_examples=20))
