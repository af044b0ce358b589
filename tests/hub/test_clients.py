"""The identities of clients, and the results that are owed to them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from trio_hub.hub.clients import MAY_RETURN, Clients


def test_a_session_is_where_it_was_heard_last() -> None:
    clients = Clients()
    assert clients.places("s", "task_in") == []
    assert not clients.heard("s", "task_in", b"1")
    assert not clients.heard("s", "mux_in", b"2")
    assert clients.places("s", "mux_in") == [("mux_in", b"2"), ("task_in", b"1")]
    assert not clients.heard("s", "task_in", b"3")
    assert clients.places("s", "task_in") == [("task_in", b"3"), ("mux_in", b"2")]
    assert clients.places("another", "task_in") == []


def test_sessions_that_are_not_heard_any_more_are_forgotten() -> None:
    clients = Clients(sessions=2)
    for session in ("a", "b", "a", "c"):
        clients.heard(session, "task_in", b"here")
    assert [bool(clients.places(session, "task_in")) for session in "abc"] == [False, True, True]
    clients.heard("b", "task_in", b"elsewhere")  # the client has a new identity, so it counts as the latest
    clients.heard("a", "task_in", b"here")
    assert [bool(clients.places(session, "task_in")) for session in "abc"] == [True, True, False]


def test_what_is_owed_is_settled_once_and_in_order() -> None:
    clients = Clients()
    for msg_id in ("2", "1", "2", "3"):
        clients.owe("s", msg_id)
    clients.owe("t", "4")
    assert clients.owed == 4
    assert clients.owed_by_session() == {"s": 3, "t": 1}
    assert clients.heard("s", "mux_in", b"x")
    assert not clients.heard("u", "mux_in", b"x"), "others are owed nothing"
    assert clients.settle("s") == ["2", "1", "3"]
    assert clients.settle("s") == []
    assert clients.owed == 1
    assert clients.owed_by_session() == {"t": 1}
    assert not clients.heard("s", "mux_in", b"x")


def test_those_who_wait_for_longest_give_up_when_there_is_too_much() -> None:
    clients = Clients(results=3)
    for session, msg_id in (("s", "1"), ("s", "2"), ("t", "3"), ("t", "4")):
        clients.owe(session, msg_id)
    assert clients.owed == 2
    assert (clients.settle("s"), clients.settle("t")) == ([], ["3", "4"])
    for number in range(4):
        clients.owe("alone", str(number))
    assert clients.owed == 0


@given(st.lists(st.tuples(st.sampled_from(["owe", "owe", "settle"]), st.sampled_from("abc"), st.integers(0, 9))))
def test_the_count_is_that_of_what_is_owed(steps: list[tuple[str, str, int]]) -> None:
    clients = Clients(results=8)
    for step, session, number in steps:
        if step == "owe":
            clients.owe(session, str(number))
        else:
            clients.settle(session)
        assert clients.owed == sum(map(len, clients._owed.values())) <= 8
        assert all(clients._owed.values())


def test_a_client_on_a_new_connection_is_owed_what_it_may_not_have_settled() -> None:
    now = datetime(2026, 1, 1, tzinfo=UTC)
    clients = Clients()
    clients.heard("s", "mux_in", b"1", lambda: now)
    clients.presume_settled("s", "old", now)
    now += MAY_RETURN
    clients.presume_settled("s", "new", now)
    clients.presume_settled("t", "another's", now)
    assert not clients.heard("s", "mux_in", b"1", lambda: now), "its connection is the same"
    assert not clients.heard("s", "task_in", b"1", lambda: now), "it never had one here"
    now += timedelta(seconds=1)
    assert clients.heard("s", "mux_in", b"2", lambda: now)
    assert clients.settle("s") == ["new"]
    assert not clients.heard("s", "mux_in", b"3", lambda: now), "once"


def test_only_so_many_are_presumed_settled() -> None:
    now = datetime(2026, 1, 1, tzinfo=UTC)
    clients = Clients(results=2)
    clients.heard("s", "mux_in", b"1")
    for number in range(4):
        clients.presume_settled("s", str(number), now)
    clients.heard("s", "mux_in", b"2", lambda: now)
    assert clients.settle("s") == ["2", "3"]
