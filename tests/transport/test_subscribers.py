"""Messages that wait for subscribers, without sockets."""

from __future__ import annotations

from itertools import count

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trio_hub.transport.subscribers import (
    MAX_PREFIX_BYTES,
    MAX_PREFIXES,
    ROOM,
    Publication,
    Subscriber,
    Subscribers,
    wire_size,
)

FD = 7


def make(limit: int = 10_000) -> Subscribers:
    numbers = count()
    return Subscribers(limit, lambda: b"%08d" % next(numbers))


def publication(size: int) -> Publication:
    return Publication([b"topic", bytes(size)])


@pytest.mark.property
@given(
    limit=st.integers(1, 20_000),
    steps=st.lists(st.one_of(st.integers(0, 8_000), st.none())),
)
def test_the_oldest_are_dropped_and_no_more_than_must_be(limit: int, steps: list[int | None]) -> None:
    """A step is the size of a message that has to wait; or None: the oldest one is sent."""
    subscribers = make(limit)
    subscribers.subscribe(FD, b"", "here")
    subscriber = subscribers[FD]
    put: list[Publication] = []
    sent: list[Publication] = []
    for step in steps:
        before = list(subscriber.waiting)
        if step is not None:
            put.append(publication(step))
            dropped_now = subscribers.wait(FD, put[-1])
            kept = list(subscriber.waiting)
            assert kept == [*before, put[-1]][-len(kept) :]
            gone = [*before, put[-1]][: -len(kept)]
            assert dropped_now == bool(gone)
            if gone:  # the last of these messages would have exceeded the limit
                assert subscriber.size + gone[-1].size > limit
        elif before:
            sent.append(before[0])
            subscribers.sent(FD)
            assert list(subscriber.waiting) == before[1:]
        waiting = list(subscriber.waiting)
        assert subscriber.size == sum(one.size for one in waiting) == subscribers.waiting_bytes
        assert subscriber.size <= limit or len(waiting) == 1
        assert (FD in subscribers.behind) == bool(waiting)
        assert len(put) == len(sent) + subscriber.dropped + len(waiting)
        assert subscribers.dropped == subscriber.dropped
        total = sum(one.size for one in put)
        assert total == sum(one.size for one in (*sent, *waiting)) + subscribers.dropped_bytes
        assert subscribers.dropping == (subscriber.dropped > 0 and bool(waiting))


@pytest.mark.property
@given(st.lists(st.tuples(st.integers(1, 2 * ROOM), st.floats(0, 1))))
def test_zeromq_never_holds_more_than_its_room_or_one_message(steps: list[tuple[int, float]]) -> None:
    """Each step hands over a message if there is room; then the system takes a part of what ZeroMQ holds."""
    subscriber = Subscriber("here")
    held = total = 0
    for size, part in steps:
        if subscriber.has_room(size):
            held += size
            subscriber.held += size
            assert held <= max(ROOM, size)
        taken = int(part * held)
        held -= taken
        total += taken
        assert subscriber.written(total) == (taken > 0)
        assert subscriber.held == held


def test_what_is_no_message_does_not_make_room_for_more() -> None:
    subscriber = Subscriber("here")
    subscriber.held = 100
    assert subscriber.written(1_000)  # 900 of these bytes were no messages
    assert subscriber.held == 0
    subscriber.held = 50
    assert not subscriber.written(1_000)
    assert subscriber.held == 50


def test_a_descriptor_that_is_anothers_now_takes_nothing() -> None:
    subscriber = Subscriber("here")
    subscriber.written(1_000)
    subscriber.held = 50
    assert not subscriber.written(0)
    assert subscriber.held == 50


def test_an_old_system_says_only_that_it_has_taken_everything() -> None:
    subscriber = Subscriber("here")
    subscriber.held = 50
    assert subscriber.written(None)
    assert subscriber.held == 0


def test_one_message_waits_for_many_as_one_object() -> None:
    subscribers = make()
    message = publication(100)
    for fd in (1, 2):
        subscribers.subscribe(fd, b"", "here")
        subscribers.wait(fd, message)
    assert subscribers[1].waiting[0] is subscribers[2].waiting[0]
    assert subscribers.waiting_bytes == 2 * message.size
    assert message.wire_size == wire_size(message.frames) < message.size


def test_topics_begin_with_what_was_asked_for_and_belong_to_one_connection() -> None:
    subscribers = make()
    given = [subscribers.subscribe(fd, prefix, "here") for fd in (1, 2) for prefix in (b"", b"engine.1")]
    topics = [one[0] for one in given if one is not None]
    assert [topic[:8] for topic in topics[1::2]] == [b"engine.1"] * 2
    everybodys = [*topics, subscribers.common_topic]
    assert not [(a, b) for a in everybodys for b in everybodys if a is not b and b.startswith(a)]


def test_the_newest_topic_that_fits_is_used() -> None:
    subscribers = make()
    everything = subscribers.subscribe(FD, b"", "here")
    engine = subscribers.subscribe(FD, b"engine.1", "here")
    assert everything is not None
    assert engine is not None
    subscriber = subscribers[FD]
    assert subscriber.topic_for([b"engine.1.stdout"]) == engine[0]
    assert subscriber.topic_for([b"engine.2.stdout"]) == everything[0]
    again = subscribers.subscribe(FD, b"", "here")
    assert again is not None
    assert again[1] == everything[0] != again[0]
    assert subscriber.topic_for([b"engine.1.stdout"]) == again[0]
    assert subscribers.unsubscribe(FD, b"") == again[0]
    assert subscriber.topic_for([b"engine.2.stdout"]) is None


def test_who_wants_nothing_any_more_is_forgotten_with_what_waits() -> None:
    subscribers = make()
    subscribers.subscribe(FD, b"a", "here")
    subscribers.wait(FD, publication(1))
    assert subscribers.unsubscribe(FD, b"b") is None
    assert subscribers.unsubscribe(99, b"a") is None
    assert len(subscribers) == 1
    assert subscribers.unsubscribe(FD, b"a") is not None
    assert len(subscribers) == len(subscribers.behind) == subscribers.waiting_bytes == 0
    subscribers.forget(FD)


def test_one_connection_can_ask_for_so_much_and_no_more() -> None:
    subscribers = make()
    assert subscribers.subscribe(FD, bytes(MAX_PREFIX_BYTES + 1), "here") is None
    assert subscribers.subscribe(FD, subscribers.common_topic + b"x", "here") is None
    assert len(subscribers) == 0
    for number in range(MAX_PREFIXES):
        assert subscribers.subscribe(FD, b"%d" % number, "here") is not None
    assert subscribers.subscribe(FD, bytes(MAX_PREFIX_BYTES), "here") is None
    assert subscribers.subscribe(FD + 1, bytes(MAX_PREFIX_BYTES), "here") is not None
