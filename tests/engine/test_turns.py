"""The turn, which two threads share, and the reader of the main thread."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import trio
import trio.testing
import zmq

from trio_hub.engine.output import Printed
from trio_hub.engine.turns import InterruptedTurn, ShellReader, Turn
from trio_hub.transport.channel import Channel
from trio_hub.wire.frames import Frames

LIMIT = 60.0


@pytest.fixture
def printed() -> Printed:
    return Printed(lambda: None)


@contextmanager
def shell(reader: ShellReader, turn: Turn, got: list[Frames]) -> Iterator[zmq.Socket[bytes]]:
    """Have the reader receive from a channel; yield a socket that is connected to it."""
    with zmq.Context() as context, context.socket(zmq.DEALER) as peer:
        peer.linger = 0
        channel = Channel(context.socket(zmq.ROUTER), got.append)
        channel.socket.bind("inproc://shell")
        peer.connect("inproc://shell")
        with turn:
            reader.add(channel)
        yield peer
        with turn:
            channel.close(0)


def test_an_interrupted_turn_says_so_and_is_given_back(printed: Printed) -> None:
    turn = Turn(printed)
    with pytest.raises(InterruptedTurn, match="ZeroDivisionError"), turn:
        _ = 1 / 0
    with turn:
        assert printed.owner == threading.get_ident(), "this thread can send output now, so it does not wait for room"
    assert printed.owner == 0


def test_a_trio_thread_has_the_turn_except_while_it_waits(printed: Printed) -> None:
    turn, owners = Turn(printed), []
    waits, goes_on = threading.Event(), threading.Event()

    async def main() -> None:
        owners.append(printed.owner)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(lambda: trio.to_thread.run_sync(goes_on.wait))
            await trio.testing.wait_all_tasks_blocked()
            waits.set()
        owners.append(printed.owner)

    thread = threading.Thread(target=lambda: trio.run(main, instruments=[turn]))
    thread.start()
    assert waits.wait(LIMIT)
    with turn:
        assert printed.owner == threading.get_ident()
        goes_on.set()
    thread.join(LIMIT)
    assert owners == [thread.ident, thread.ident]
    with turn:
        pass  # the turn is free after the end of the run


def test_the_main_thread_receives_one_request_at_a_time(printed: Printed) -> None:
    turn, got = Turn(printed), list[Frames]()
    reader = ShellReader(turn)
    with shell(reader, turn, got) as peer:
        for text in (b"a", b"b", b"c", b"d"):
            peer.send(text)
        while not got:
            reader.wait(lambda: got)
        assert [frames[1] for frames in got] == [b"a"]
        with turn:
            reader.collect()
        assert [frames[1] for frames in got] == [b"a", b"b", b"c", b"d"], "as before an abort"


def test_all_requests_are_collected_behind_a_long_one(printed: Printed) -> None:
    """A message of many frames is received in slices. An abort needs the requests behind it, too."""
    turn, got = Turn(printed), list[Frames]()
    reader = ShellReader(turn)
    with shell(reader, turn, got) as peer:
        peer.send_multipart([b"long"] * 3000)
        peer.send(b"short")
        with turn:
            reader.collect()
        assert [len(frames) for frames in got] == [3001, 2]


def test_a_message_without_work_does_not_hide_the_next_one(printed: Printed) -> None:
    """A replay is dropped. The request behind it has come with the same edge, so nothing else tells of it."""
    turn, got = Turn(printed), list[Frames]()
    reader = ShellReader(turn)
    with shell(reader, turn, got) as peer:
        for frame in (b"replay", b"request"):
            peer.send(frame)
        waiting = threading.Thread(target=reader.wait, args=(lambda: len(got) == 2,), daemon=True)
        waiting.start()
        waiting.join(LIMIT)
        assert [frames[-1] for frames in got] == [b"replay", b"request"]
        assert not waiting.is_alive()


def test_work_of_another_thread_wakes_the_main_thread(printed: Printed) -> None:
    turn, got, work = Turn(printed), list[Frames](), list[int]()
    reader = ShellReader(turn)

    def works() -> None:
        with turn:
            work.append(1)
            reader.ring()

    with shell(reader, turn, got):
        for number in range(1, 101):
            thread = threading.Thread(target=works)
            thread.start()
            while len(work) < number:
                reader.wait(lambda number=number: len(work) >= number)  # type: ignore[misc]
            thread.join(LIMIT)
    reader.wait(lambda: work)
    assert got == []
