"""`Channel` and `Receiver`: every wait can be cancelled, closing wakes waiting tasks, and no wake-up is lost."""

from __future__ import annotations

import gc
import random
import select
import threading
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import asynccontextmanager
from typing import Any

import anyio
import pytest
import trio
import trio.testing
import zmq

from tests.runtime.support import LIMIT, Footprint, within_limit
from trio_hub.transport.channel import LARGE_FRAME, Channel
from trio_hub.transport.receiver import BUDGET, Receiver, receive_from
from trio_hub.wire.frames import Frames

Pair = tuple[Channel, Channel]
OpenPair = Callable[..., Pair]


@pytest.fixture
def context() -> Iterator[zmq.Context[Any]]:
    context: zmq.Context[Any] = zmq.Context()
    yield context
    context.destroy(linger=0)


@pytest.fixture
def open_pair(context: zmq.Context[Any]) -> Iterator[OpenPair]:
    """Makes two connected channels, and closes them in the end."""
    channels: list[Channel] = []

    def open_pair(one: int = zmq.PAIR, other: int = zmq.PAIR) -> Pair:
        bound, connected = context.socket(one), context.socket(other)
        for socket in (bound, connected):
            socket.sndhwm = socket.rcvhwm = 0
        if other == zmq.DEALER:
            connected.identity = b"dealer"
        port = bound.bind_to_random_port("tcp://127.0.0.1")
        connected.connect(f"tcp://127.0.0.1:{port}")
        pair = Channel(bound, name="bound"), Channel(connected, name="connected")
        channels.extend(pair)
        return pair

    yield open_pair
    for channel in channels:
        channel.socket.close(linger=0)  # Trio has stopped: there is nobody left for `Channel.close` to wake


# Cancelling


class Cancelling(trio.abc.Instrument):
    """Cancels a scope when the task steps of this process have been counted down."""

    def __init__(self, steps: int) -> None:
        self.left = steps
        self.scope = trio.CancelScope()

    def after_task_step(self, task: trio.lowlevel.Task) -> None:
        self.left -= 1
        if self.left == 0:
            self.scope.cancel()


async def test_a_cancelled_reader_loses_no_message(open_pair: OpenPair) -> None:
    bound, connected = open_pair()
    received: list[bytes] = []
    bound.handle = lambda frames: received.append(bytes(frames[0]))
    sent = 0
    async with within_limit():
        for steps in range(1, 200):
            for _ in range(steps % 7):
                connected.send([b"%d" % sent])
                sent += 1
            cancelling = Cancelling(steps % 11 + 1)
            trio.lowlevel.add_instrument(cancelling)
            try:
                with cancelling.scope:
                    async with trio.open_nursery() as nursery:
                        nursery.start_soon(receive_from, bound)
                        await trio.lowlevel.checkpoint()
                        connected.send([b"%d" % sent])
                        sent += 1
                        await trio.testing.wait_all_tasks_blocked()
                        nursery.cancel_scope.cancel()  # the task has reached this line without a cancellation
            finally:
                trio.lowlevel.remove_instrument(cancelling)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(receive_from, bound)
            while len(received) < sent:
                await trio.testing.wait_all_tasks_blocked(0.002)
            bound.close(linger=0)
    assert received == [b"%d" % number for number in range(sent)]


async def test_a_cancelled_wait_leaves_the_channel_usable(open_pair: OpenPair) -> None:
    bound, connected = open_pair()
    received: list[Frames] = []
    bound.handle = received.append
    async with within_limit():
        for _ in range(3):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(receive_from, bound)
                await trio.testing.wait_all_tasks_blocked()
                nursery.cancel_scope.cancel()
        assert bound.receiver is None
        async with trio.open_nursery() as nursery:
            nursery.start_soon(receive_from, bound)
            connected.send([b"after"])
            while not received:
                await trio.testing.wait_all_tasks_blocked(0.002)
            nursery.cancel_scope.cancel()
    assert received == [[b"after"]]


async def test_a_cancellation_from_the_handler_comes_after_the_message(open_pair: OpenPair) -> None:
    bound, connected = open_pair()
    received: list[Frames] = []
    for number in range(10):
        connected.send([b"%d" % number])
    async with within_limit(), trio.open_nursery() as nursery:

        def handle(frames: Frames) -> None:
            received.append(frames)
            nursery.cancel_scope.cancel()

        bound.handle = handle
        nursery.start_soon(receive_from, bound)
    assert received
    bound.handle = received.append
    bound.drain()
    while len(received) < 10:
        await anyio.wait_readable(bound.fd)
        bound.drain()
    assert received == [[b"%d" % number] for number in range(10)]


# Closing


async def test_closing_wakes_the_reader(open_pair: OpenPair) -> None:
    bound, _ = open_pair()
    async with within_limit(), trio.open_nursery() as nursery:
        nursery.start_soon(receive_from, bound)
        await trio.testing.wait_all_tasks_blocked()
        bound.close(linger=0)
        bound.close(linger=0)
    assert bound.closed
    assert repr(bound) == "<Channel bound closed>"


async def test_a_handler_may_close_its_channel(open_pair: OpenPair) -> None:
    for waiting in (True, False):
        bound, connected = open_pair()
        handled: list[Frames] = []

        def handle(frames: Frames, channel: Channel = bound, handled: list[Frames] = handled) -> None:
            handled.append(frames)
            channel.close(linger=0)

        bound.handle = handle
        async with within_limit(), trio.open_nursery() as nursery:
            if waiting:
                nursery.start_soon(receive_from, bound)
                await trio.testing.wait_all_tasks_blocked()
            connected.send([b"1"])
            connected.send([b"2"])
            nursery.start_soon(receive_from, bound) if not waiting else None
        assert handled == [[b"1"]]


async def test_a_closed_channel(open_pair: OpenPair) -> None:
    bound, connected = open_pair()
    with bound:
        pass
    assert bound.closed
    async with within_limit():
        await receive_from(bound)
    assert bound.send([b"x"]) is False
    assert bound.drain() is False
    assert connected.closed is False


async def test_closing_while_another_task_is_about_to_wait(open_pair: OpenPair) -> None:
    for steps in range(1, 12):
        bound, connected = open_pair()
        connected.send([b"x"])
        async with within_limit(), trio.open_nursery() as nursery:
            nursery.start_soon(receive_from, bound)
            for _ in range(steps):
                await trio.lowlevel.checkpoint()
            bound.close(linger=0)
            connected.close(linger=0)


def test_a_context_ends_although_a_connection_broke_while_it_was_sent_on() -> None:
    rng = random.Random(1)
    for _ in range(400):  # a message arrives at the critical moment once in some dozens of rounds
        near: zmq.Context[Any] = zmq.Context()
        bound = Channel(near.socket(zmq.PUB))
        port = bound.socket.bind_to_random_port("tcp://127.0.0.1")
        with zmq.Context() as far, far.socket(zmq.SUB) as connected:
            connected.subscribe(b"")
            connected.connect(f"tcp://127.0.0.1:{port}")
            while not connected.poll(1):
                bound.send([b"are you there?"])
            connected.close(linger=0)
        bound.send([b"to nobody"])
        for _ in range(rng.randrange(1000)):
            pass
        bound.close(linger=100)
        ending = threading.Thread(target=near.term, daemon=True)  # a thread that hangs would outlive the test
        ending.start()
        ending.join(LIMIT)
        assert not ending.is_alive()


async def test_only_one_task_may_receive(open_pair: OpenPair) -> None:
    bound, _ = open_pair()

    async def receive_twice() -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(receive_from, bound)
            nursery.start_soon(receive_from, bound)

    async with within_limit():
        with pytest.RaisesGroup(anyio.BusyResourceError):
            await receive_twice()


# Sending


async def test_sending_to_nobody_is_told(context: zmq.Context[Any], open_pair: OpenPair) -> None:
    router, dealer = open_pair(zmq.ROUTER, zmq.DEALER)
    router.socket.router_mandatory = True
    assert router.send([b"nobody", b"x"]) is False
    assert router.send([b"nobody", b"x", b"y"]) is False
    received: list[Frames] = []
    dealer.handle = received.append
    router.handle = lambda frames: None
    async with within_limit(), trio.open_nursery() as nursery:
        nursery.start_soon(receive_from, dealer)
        nursery.start_soon(receive_from, router)
        while not router.send([b"dealer", b"hello", b"there"]):
            await trio.testing.wait_all_tasks_blocked(0.002)
        while not received:
            await trio.testing.wait_all_tasks_blocked(0.002)
        nursery.cancel_scope.cancel()
    assert received == [[b"hello", b"there"]], "nothing of what could not be sent is left in front of it"


async def test_no_room_is_told(open_pair: OpenPair) -> None:
    bound, connected = open_pair(zmq.PUSH, zmq.PULL)
    bound.socket.sndhwm = 1
    with bound, connected:
        pass
    context: zmq.Context[Any] = zmq.Context()
    with Channel(context.socket(zmq.DEALER)) as unconnected:
        assert unconnected.send([b"a", b"b"]) is False
    context.term()


@pytest.mark.parametrize("senders", [1, 2, 5])
async def test_a_send_from_another_task_does_not_take_the_readers_wake_up(open_pair: OpenPair, senders: int) -> None:
    """Both ends send from tasks of their own while another task of theirs waits to read.

    Each send may consume the descriptor's edge; without a look at EVENTS after it, this stalls.
    """
    n = 5000
    router, dealer = open_pair(zmq.ROUTER, zmq.DEALER)
    at_router: list[bytes] = []
    at_dealer: list[bytes] = []

    def echo(frames: Frames) -> None:
        at_router.append(bytes(frames[1]))
        router.send(frames)

    router.handle = echo
    dealer.handle = lambda frames: at_dealer.append(bytes(frames[0]))

    async def send(channel: Channel, *prefix: bytes) -> None:
        for number in range(n // senders):
            channel.send([*prefix, b"%d" % number])
            if number % 3 == 0:
                await trio.lowlevel.checkpoint()

    async with within_limit(), trio.open_nursery() as nursery:
        nursery.start_soon(receive_from, router)
        nursery.start_soon(receive_from, dealer)
        dealer.send([b"first"])
        while not at_dealer:
            await trio.testing.wait_all_tasks_blocked(0.002)
        async with trio.open_nursery() as sending:
            for _ in range(senders):
                sending.start_soon(send, dealer)
                sending.start_soon(send, router, b"dealer")
        expected = 2 * (n // senders) * senders + 1
        while len(at_dealer) < expected:
            await trio.testing.wait_all_tasks_blocked(0.002)
        nursery.cancel_scope.cancel()
    assert len(at_dealer) == expected
    assert len(at_router) == expected // 2 + 1


async def test_a_request_at_a_time_never_stalls(open_pair: OpenPair) -> None:
    """The handler of each message sends the next message. If one wake-up is lost, no further message comes."""
    router, dealer = open_pair(zmq.ROUTER, zmq.DEALER)
    router.handle = lambda frames: void(router.send(frames))
    left = 3000

    def again(frames: Frames) -> None:
        nonlocal left
        left -= 1
        if left:
            dealer.send(frames)
        else:
            router.close(linger=0)
            dealer.close(linger=0)

    dealer.handle = again
    async with within_limit(), trio.open_nursery() as nursery:
        nursery.start_soon(receive_from, router)
        nursery.start_soon(receive_from, dealer)
        dealer.send([b"x"])
    assert left == 0


def void(_: object) -> None:
    pass


async def test_two_senders_do_not_mix_their_frames(open_pair: OpenPair) -> None:
    bound, connected = open_pair()
    received: list[Frames] = []
    bound.handle = received.append

    async def send(name: bytes) -> None:
        for number in range(200):
            connected.send([name] * (number % 5 + 1))
            await trio.lowlevel.checkpoint()

    async with within_limit(), trio.open_nursery() as nursery:
        nursery.start_soon(receive_from, bound)
        async with trio.open_nursery() as sending:
            sending.start_soon(send, b"one")
            sending.start_soon(send, b"two")
        while len(received) < 400:
            await trio.testing.wait_all_tasks_blocked(0.002)
        bound.close(linger=0)
    for name in (b"one", b"two"):
        theirs = [frames for frames in received if frames[0] == name]
        assert theirs == [[name] * (number % 5 + 1) for number in range(200)]


async def test_one_busy_channel_does_not_starve_others(open_pair: OpenPair) -> None:
    bound, connected = open_pair()
    for _ in range(5000):
        connected.send([b"x"])
    handled = [0]
    turns = 0
    bound.handle = lambda frames: handled.__setitem__(0, handled[0] + 1)
    async with within_limit(), trio.open_nursery() as nursery:
        nursery.start_soon(receive_from, bound)
        while handled[0] < 5000:
            before = handled[0]
            await trio.lowlevel.checkpoint()
            turns += 1
            assert handled[0] - before <= 2 * 200  # Trio may let it run twice between two turns of ours
        bound.close(linger=0)
    assert turns >= 5000 / 400


# Large frames


async def test_large_frames_pass_uncopied(open_pair: OpenPair) -> None:
    """A received `zmq.Frame` is sent on unchanged: its memory is shared, not copied."""
    first, second = open_pair(), open_pair()
    received: list[Frames] = []
    passed: list[Frames] = []
    payload = b"\1" * (8 << 20)

    def pass_on(frames: Frames) -> None:
        passed.append(frames)
        second[1].send(frames)

    first[0].handle = pass_on
    second[0].handle = received.append
    async with within_limit(), trio.open_nursery() as nursery:
        nursery.start_soon(receive_from, first[0])
        nursery.start_soon(receive_from, second[0])
        small = b"s" * (LARGE_FRAME - 1)
        first[1].send([b"head", payload, small, payload[:LARGE_FRAME]])
        while not received:
            await trio.testing.wait_all_tasks_blocked(0.002)
        nursery.cancel_scope.cancel()
    for (frames,) in (passed, received):
        assert [type(frame) for frame in frames] == [bytes, zmq.Frame, bytes, zmq.Frame]
        assert bytes(frames[1]) == payload
        assert frames[0] == b"head"
        assert frames[2] == small
    # what was passed on can still be read here, as the record keeper does
    frame = passed[0][1]
    assert isinstance(frame, zmq.Frame)
    assert frame.buffer.nbytes == len(payload)


async def test_channels_leave_nothing_behind() -> None:
    gc.collect()
    before = Footprint.now()
    for _ in range(20):
        context: zmq.Context[Any] = zmq.Context()
        with Channel(context.socket(zmq.ROUTER)) as channel:
            async with within_limit(), trio.open_nursery() as nursery:
                nursery.start_soon(receive_from, channel)
                await trio.testing.wait_all_tasks_blocked()
                nursery.cancel_scope.cancel()
        context.term()
    async with within_limit():
        await before.restored()


# One receiver for many channels


@asynccontextmanager
async def receiving(*channels: Channel) -> AsyncGenerator[None, None]:
    """Run one receiver for these channels during the block."""
    with Receiver() as receiver:
        for channel in channels:
            receiver.add(channel)
        async with within_limit(), trio.open_nursery() as nursery:
            nursery.start_soon(receiver.run)
            yield
            nursery.cancel_scope.cancel()


async def test_a_receiver_takes_turns(open_pair: OpenPair) -> None:
    """However many messages come on one channel, the receiver handles a few, and then turns to the other channel."""
    busy, flood = open_pair()
    quiet, speaker = open_pair()
    handled: list[str] = []
    busy.handle = lambda frames: handled.append("busy")
    quiet.handle = lambda frames: handled.append("quiet")
    for _ in range(1000):
        flood.send([b"x"])
    speaker.send([b"y"])
    while not (busy.is_readable() and quiet.is_readable()):
        assert select.select([busy.fd, quiet.fd], [], [], LIMIT)[0]
    async with receiving(busy, quiet):
        while len(handled) < 1001:
            await trio.testing.wait_all_tasks_blocked(0.002)
    assert handled.index("quiet") < 500


async def test_what_has_just_come_goes_before_the_rest_of_a_flood(open_pair: OpenPair) -> None:
    busy, flood = open_pair()
    quiet, speaker = open_pair()
    handled: list[str] = []

    def handle_busy(frames: Frames) -> None:
        handled.append("busy")
        if len(handled) == 2:
            speaker.send([b"y"])
            assert select.select([quiet.fd], [], [], LIMIT)[0]

    busy.handle = handle_busy
    quiet.handle = lambda frames: handled.append("quiet")
    async with receiving(busy, quiet):
        speaker.send([b"hello"])
        while not handled:
            await trio.testing.wait_all_tasks_blocked(0.002)
        while select.select([quiet.fd], [], [], 0)[0]:
            assert not quiet.is_readable()  # this reads the state of the socket until now
        for _ in range(1000):
            flood.send([b"x"])
        while len(handled) < 1002:
            await trio.testing.wait_all_tasks_blocked(0.002)
    assert handled.index("quiet", 1) <= 1 + BUDGET


async def test_a_receiver_ends_when_all_channels_are_closed(open_pair: OpenPair) -> None:
    pairs = [open_pair() for _ in range(3)]
    async with within_limit():
        with Receiver() as receiver:
            for bound, _ in pairs:
                receiver.add(bound)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(receiver.run)
                for bound, _ in pairs:
                    await trio.testing.wait_all_tasks_blocked()
                    bound.close(linger=0)


async def test_a_held_channel_is_received_from_when_it_is_released(open_pair: OpenPair) -> None:
    held, to_held = open_pair()
    free, to_free = open_pair()
    received: list[bytes] = []
    held.handle = free.handle = lambda frames: received.append(bytes(frames[0]))
    held.hold()
    held.hold()
    async with receiving(held, free):
        to_held.send([b"held"])
        to_free.send([b"free"])
        held.send([b"a send may consume the edge"])
        while not received:
            await trio.testing.wait_all_tasks_blocked(0.002)
        await trio.testing.wait_all_tasks_blocked(0.01)
        assert received == [b"free"]
        held.release()
        held.release()
        while len(received) < 2:
            await trio.testing.wait_all_tasks_blocked(0.002)
        assert received == [b"free", b"held"]
        free.handle = lambda frames: free.hold()
        to_free.send([b"1"])
        to_free.send([b"2"])
        while not free.held:
            await trio.testing.wait_all_tasks_blocked(0.002)
        free.handle = lambda frames: received.append(bytes(frames[0]))
        free.release()
        while len(received) < 3:
            await trio.testing.wait_all_tasks_blocked(0.002)
    assert received[2:] == [b"2"]


async def test_what_is_to_be_done_soon_is_done_after_the_messages_and_in_order(open_pair: OpenPair) -> None:
    bound, connected = open_pair()
    done: list[str] = []
    with Receiver() as receiver:
        receiver.soon(lambda: done.append("at once"))
        assert done == ["at once"]

        def handle(frames: Frames) -> None:
            name = bytes(frames[0]).decode()
            done.append(name)
            receiver.soon(lambda: done.append(f"after {name}"))

        bound.handle = handle
        receiver.add(bound)
        for name in ("a", "b"):
            connected.send([name.encode()])
        while not bound.is_readable():
            await trio.testing.wait_all_tasks_blocked(0.002)
        async with within_limit(), trio.open_nursery() as nursery:
            nursery.start_soon(receiver.run)
            while len(done) < 5:
                await trio.testing.wait_all_tasks_blocked(0.002)
            nursery.cancel_scope.cancel()
    assert [entry for entry in done if entry in "ab"] == ["a", "b"]
    assert [entry for entry in done if entry.startswith("after")] == ["after a", "after b"]


async def test_what_is_to_be_done_soon_is_done_even_if_a_handler_fails(open_pair: OpenPair) -> None:
    bound, connected = open_pair()
    done: list[str] = []
    with Receiver() as receiver:

        def handle(frames: Frames) -> None:
            receiver.soon(lambda: done.append("sent"))
            raise ZeroDivisionError

        bound.handle = handle
        receiver.add(bound)
        connected.send([b"x"])
        async with within_limit():
            with pytest.raises(ZeroDivisionError):
                await receiver.run()
    assert done == ["sent"]


async def test_a_receiver_that_runs_cannot_be_closed(open_pair: OpenPair) -> None:
    """A cancelled task may have been woken already, and then goes on to the descriptors that were closed."""
    bound, _ = open_pair()
    with Receiver() as receiver:
        receiver.add(bound)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(receiver.run)
            await trio.testing.wait_all_tasks_blocked()
            nursery.cancel_scope.cancel()
            with pytest.raises(AssertionError, match="while it runs"):
                receiver.close()


async def test_a_receiver_that_is_closed_leaves_the_channels_open(open_pair: OpenPair) -> None:
    bound, connected = open_pair()
    received: list[Frames] = []
    bound.handle = received.append
    with Receiver() as receiver:
        receiver.add(bound)
    receiver.close()
    receiver.remove(bound)
    connected.send([b"x"])
    async with within_limit(), trio.open_nursery() as nursery:
        nursery.start_soon(receive_from, bound)
        while not received:
            await trio.testing.wait_all_tasks_blocked(0.002)
        nursery.cancel_scope.cancel()
    assert not bound.closed
