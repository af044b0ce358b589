"""Publishing to subscribers that read, and to subscribers that do not."""

from __future__ import annotations

import socket as sockets
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from typing import Any

import pytest
import trio
import zmq

from trio_hub.transport.publisher import MAX_SUBSCRIPTION, Publisher
from trio_hub.transport.receiver import Receiver
from trio_hub.transport.subscribers import MAX_PREFIXES, ROOM
from trio_hub.transport.tcp import bytes_written, end_connection

from ..runtime.support import LIMIT, eventually, within_limit

MB = 1_000_000


class Listener:
    """A subscriber that reads when it is told to."""

    def __init__(self, socket: zmq.Socket[Any]) -> None:
        self.socket = socket
        self.got: list[list[bytes]] = []

    def read(self) -> list[list[bytes]]:
        """Return the messages that have come so far, each without the topic by which it was sent."""
        while True:
            try:
                self.got.append(self.socket.recv_multipart(zmq.NOBLOCK)[1:])
            except zmq.Again:
                return self.got

    @property
    def texts(self) -> list[bytes]:
        """The beginning of the last frame of each message that has come."""
        return [message[-1][:8] for message in self.read()]


class Stage:
    """A running publisher, and its subscribers."""

    def __init__(self, publisher: Publisher, port: int, context: zmq.Context[zmq.Socket[Any]]) -> None:
        self.publisher = publisher
        self.subscribers = publisher.subscribers
        self.port = port
        self.context = context

    @contextmanager
    def peer(self, kind: int = zmq.SUB, *, room: int = 0) -> Iterator[Listener]:
        with self.context.socket(kind) as socket:
            socket.linger = 0
            socket.rcvhwm = room
            if room:
                socket.rcvbuf = 8192
            socket.reconnect_ivl = 10
            socket.connect(f"tcp://127.0.0.1:{self.port}")
            yield Listener(socket)

    @asynccontextmanager
    async def listener(self, *prefixes: bytes, room: int = 0) -> AsyncGenerator[Listener, None]:
        """Give a listener that has subscribed; with `room`, ZeroMQ takes no more messages for it until it reads."""
        before = len(self.subscribers)
        with self.peer(room=room) as listener:
            for prefix in prefixes or (b"",):
                listener.socket.subscribe(prefix)
            await eventually(lambda: len(self.subscribers) > before)
            [fd] = [fd for fd, _ in self.subscribers][before:]
            await eventually(lambda: len(self.subscribers[fd].topics) == len(prefixes or (b"",)))
            yield listener
        await eventually(lambda: fd not in dict(self.subscribers))

    def publish(self, text: bytes, topic: bytes = b"engine.0.stdout") -> None:
        assert self.publisher.send([topic, b"<IDS|MSG>", text])


@asynccontextmanager
async def stage(limit: int = 64 * 2**20) -> AsyncGenerator[Stage, None]:
    with zmq.Context() as context, zmq.Context() as theirs, context.socket(zmq.XPUB) as socket:
        publisher = Publisher(socket, limit, name="iopub_out")
        port = socket.bind_to_random_port("tcp://127.0.0.1")
        with publisher, Receiver() as receiver:
            receiver.add(publisher)
            receiver.add(publisher.monitor.channel)
            async with within_limit(), trio.open_nursery() as nursery:
                nursery.start_soon(receiver.run)
                nursery.start_soon(publisher.keep_sending)
                yield Stage(publisher, port, theirs)
                nursery.cancel_scope.cancel()


def number(i: int) -> bytes:
    return b"%08d" % i


def spin_until(condition: Callable[[], bool], turn: Callable[[], object] = lambda: None) -> None:
    """Wait for a condition while no task has its turn."""
    deadline = trio.current_time() + LIMIT
    while not condition():
        assert trio.current_time() < deadline
        turn()


async def test_a_subscriber_that_does_not_read_costs_so_much_and_another_nothing(
    caplog: pytest.LogCaptureFixture,
) -> None:
    limit = 8 * MB
    async with stage(limit) as scene, scene.listener() as reader, scene.listener(room=1) as sleeper:
        for i in range(100):
            scene.publish(number(i) + bytes(MB))
            await eventually(lambda i=i: len(reader.read()) > i)  # type: ignore[misc]
            assert scene.subscribers.waiting_bytes <= limit
        assert reader.texts == [number(i) for i in range(100)]
        assert [one.held <= ROOM for _, one in scene.subscribers] == [True, True]
        dropped = scene.subscribers.dropped
        assert scene.subscribers.dropping == 1
        assert dropped > 50
        assert scene.subscribers.dropped_bytes == pytest.approx(dropped * MB, rel=0.01)
        assert caplog.text.count("a client does not read the messages that it has subscribed to") == 1
        assert "kind=subscriber_behind address=127.0.0.1 channel=iopub_out messages=1" in caplog.text

        await eventually(lambda: len(sleeper.read()) == 100 - dropped)
        got = sleeper.texts
        assert got == sorted(got)
        assert got[-7:] == [number(i) for i in range(93, 100)]
        assert scene.subscribers.dropping == scene.subscribers.waiting_bytes == 0
        scene.publish(b"again")
        await eventually(lambda: sleeper.texts[-1:] == [b"again"])


async def test_a_burst_reaches_whoever_reads() -> None:
    async with stage() as scene, scene.listener() as one, scene.listener(b"engine") as two:
        for i in range(20_000):
            scene.publish(number(i) + bytes(1000))
        for reader in (one, two):
            await eventually(lambda reader=reader: len(reader.read()) == 20_000)  # type: ignore[misc]
            assert reader.texts == [number(i) for i in range(20_000)]
        assert scene.subscribers.dropped == 0


async def test_messages_larger_than_the_bound_reach_whoever_reads() -> None:
    async with stage(limit=MB) as scene, scene.listener() as reader:
        for i in range(4):
            scene.publish(number(i) + bytes(50 * MB))
            scene.publish(b"small")
            await eventually(lambda i=i: len(reader.read()) == 2 * i + 2)  # type: ignore[misc]
        assert reader.texts == [text for i in range(4) for text in (number(i), b"small")]


async def test_what_zeromq_received_is_sent_from_where_it_is() -> None:
    async with stage() as scene, scene.listener(room=1) as sleeper:
        large: Any = zmq.Frame(bytes(10 * MB), copy=True)
        frames = [b"engine.0.stdout", b"<IDS|MSG>", large]
        for _ in range(3):
            scene.publisher.send(frames)
        [(_, subscriber)] = scene.subscribers
        assert all(one.frames[-1] is large for one in subscriber.waiting)
        await eventually(lambda: len(sleeper.read()) == 3)


async def test_each_gets_once_what_it_has_asked_for() -> None:
    async with (
        stage() as scene,
        scene.listener() as everything,
        scene.listener(b"engine.1", b"engine.1.stdout", b"") as threefold,
        scene.listener(b"engine.1.", b"engine.2.") as some,
    ):
        topics = [b"engine.1.stdout", b"engine.1.stderr", b"engine.2.stdout", b"engine.10.stdout", b""]

        async def publish() -> None:
            for topic in topics:
                scene.publish(b"", topic)
            scene.publish(b"end", b"engine.2.")
            for listener in (everything, threefold, some):
                await eventually(lambda listener=listener: listener.texts[-1:] == [b"end"])  # type: ignore[misc]

        await publish()
        for listener in (everything, threefold):
            assert [message[0] for message in listener.got] == [*topics, b"engine.2."]
        assert [message[0] for message in some.got] == [*topics[:3], b"engine.2."]

        some.got.clear()
        some.socket.unsubscribe(b"engine.1.")
        threefold.socket.unsubscribe(b"engine.1.stdout")
        await eventually(lambda: sorted(len(one.topics) for _, one in scene.subscribers) == [1, 1, 2])
        threefold.got.clear()
        await publish()
        assert [message[0] for message in threefold.got] == [*topics, b"engine.2."]
        assert [message[0] for message in some.got] == [topics[2], b"engine.2."]


async def test_what_waits_is_sent_by_what_is_still_wanted() -> None:
    async with stage() as scene, scene.listener(b"a", b"b", room=1) as sleeper:
        for i in range(20):
            for topic in (b"a", b"b"):
                scene.publish(number(i) + bytes(MB), topic)
        [(_, subscriber)] = scene.subscribers
        assert subscriber.waiting
        sleeper.socket.unsubscribe(b"b")
        await eventually(lambda: list(subscriber.topics) == [b"a"])
        scene.publish(b"end", b"a")
        await eventually(lambda: sleeper.texts[-1:] == [b"end"])
        assert not subscriber.waiting
        assert [message[1:] and message[-1][:8] for message in sleeper.got if message[0] == b"a"] == [
            *map(number, range(20)),
            b"end",
        ]


async def test_without_subscribers_nothing_is_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    async with stage() as scene:
        async with scene.listener():
            pass
        monkeypatch.setattr(scene.publisher, "_send", None)
        scene.publish(b"to nobody")


async def test_who_has_subscribed_before_is_heard_before() -> None:
    """The publisher reads arrived subscriptions before it sends a message. No other task has its turn here."""
    async with stage() as scene:
        with scene.peer() as listener:
            listener.socket.subscribe(b"")
            spin_until(lambda: len(scene.subscribers) == 1, lambda: scene.publish(b"early"))


async def test_a_new_subscriber_alone_is_greeted_once_and_first() -> None:
    async with stage() as scene, scene.listener() as early:
        scene.publisher.greet = lambda: [[b"", b"<IDS|MSG>", number(i)] for i in range(3)]
        async with scene.listener(b"", b"more") as late:
            scene.publish(b"news")
            await eventually(lambda: late.texts[-1:] == [b"news"])
            assert late.texts == [*map(number, range(3)), b"news"]
            late.socket.unsubscribe(b"more")
            late.socket.subscribe(b"more")
            scene.publish(b"again")
            await eventually(lambda: late.texts[-1:] == [b"again"])
            assert len(late.texts) == 5
            await eventually(lambda: early.texts == [b"news", b"again"])


async def test_a_greeting_waits_for_a_subscriber_that_does_not_read() -> None:
    async with stage() as scene:
        scene.publisher.greet = lambda: [[b"", b"<IDS|MSG>", number(i) + bytes(MB)] for i in range(20)]
        async with scene.listener(room=1) as sleeper:
            assert scene.subscribers.waiting_bytes > MB
            await eventually(lambda: len(sleeper.read()) == 20)
            assert sleeper.texts == [number(i) for i in range(20)]


async def test_who_leaves_takes_along_what_waits() -> None:
    async with stage() as scene:
        async with scene.listener(room=1):
            for _ in range(30):
                scene.publish(bytes(MB))
            assert scene.subscribers.waiting_bytes > MB
        assert scene.subscribers.waiting_bytes == len(scene.subscribers) == 0


async def test_who_has_left_before_it_was_heard_is_no_subscriber() -> None:
    async with stage() as scene:
        monitor = scene.publisher.monitor
        with scene.peer() as listener:
            listener.socket.subscribe(b"")
            spin_until(scene.publisher.is_readable)
            spin_until(lambda: bool(monitor.connected), monitor.channel.drain)
        spin_until(lambda: not monitor.connected, monitor.channel.drain)
        scene.publish(b"to nobody")
        assert len(scene.subscribers) == 0


async def test_a_descriptor_that_is_used_again_means_a_new_connection() -> None:
    async with stage() as scene:
        seen: set[int] = set()
        for i in range(30):
            with scene.peer() as listener:
                listener.socket.subscribe(b"old" if i % 2 else b"")
                await eventually(lambda: bool(len(scene.subscribers)))
                seen.update(fd for fd, _ in scene.subscribers)
            # The next subscriber comes without waiting until the hub has noticed the end of this one.
            with scene.peer() as following:
                following.socket.subscribe(b"")
                sent = 0
                while not following.read():
                    scene.publish(number(sent))
                    sent += 1
                    await trio.lowlevel.checkpoint()
                scene.publish(number(sent))
                await eventually(lambda: following.texts[-1:] == [number(sent)])  # noqa: B023
                assert following.texts == [number(n) for n in range(sent + 1)][-len(following.texts) :]
                await eventually(lambda: len(scene.subscribers) == 1)
            await eventually(lambda: not len(scene.subscribers))
        assert len(seen) < 30


def too_many(peer: zmq.Socket[Any]) -> None:
    for i in range(MAX_PREFIXES + 1):
        peer.send(b"\1%d" % i)


def too_long(peer: zmq.Socket[Any]) -> None:
    peer.send(b"\1" + bytes(500))


def no_subscription(peer: zmq.Socket[Any]) -> None:
    peer.send(b"give me everything")


def parts(peer: zmq.Socket[Any]) -> None:
    peer.send_multipart([b"x", b"\1", b"\0", b""])


@pytest.mark.parametrize("misbehave", [too_many, too_long, no_subscription, parts])
async def test_strangers_that_ask_for_too_much_are_put_out(
    misbehave: Callable[[zmq.Socket[Any]], None], caplog: pytest.LogCaptureFixture
) -> None:
    async with stage() as scene, scene.listener() as reader:
        with scene.peer(zmq.XSUB) as stranger:
            misbehave(stranger.socket)
            await eventually(lambda: scene.publisher.counts["subscription_refused"] > 0)
            assert "ended the connection of a subscriber kind=subscription_refused channel=iopub_out" in caplog.text
        await eventually(lambda: len(scene.subscribers) == 1)
        scene.publish(b"hello")
        await eventually(lambda: reader.texts == [b"hello"])


async def test_a_subscription_beyond_all_measure_is_not_even_received() -> None:
    async with stage() as scene, scene.listener() as reader:
        with (
            scene.peer(zmq.XSUB) as stranger,
            stranger.socket.get_monitor_socket(zmq.EVENT_DISCONNECTED) as events,
        ):
            stranger.socket.send(b"\1" + bytes(MAX_SUBSCRIPTION))
            await eventually(lambda: bool(events.poll(0)))
            stranger.socket.disable_monitor()
        scene.publish(b"hello")
        await eventually(lambda: reader.texts == [b"hello"])
        assert len(scene.subscribers) == 1


async def test_a_stranger_cannot_have_others_subscriptions() -> None:
    """After a message that is not a subscription, libzmq attributes the next subscription to a wrong connection."""
    async with stage() as scene, scene.listener() as early:
        with scene.peer(zmq.XSUB) as stranger, scene.peer() as one, scene.peer() as two:
            # All of them arrive together: this task does not wait, so nobody receives meanwhile.
            stranger.socket.send(b"not a subscription")
            stranger.socket.send(b"\1")
            one.socket.subscribe(b"")
            two.socket.subscribe(b"")
            rounds = 0
            while not (one.read() and two.read() and early.read()):
                scene.publish(number(rounds))
                rounds += 1
                await trio.lowlevel.checkpoint()
            for listener in (one, two, early):
                assert listener.texts == sorted(set(listener.texts))
            assert early.texts[0] == number(0)


async def test_what_waits_leaves_with_the_last_words() -> None:
    with zmq.Context() as theirs, theirs.socket(zmq.SUB) as socket:
        socket.rcvhwm = 1
        socket.subscribe(b"")
        listener = Listener(socket)
        async with stage() as scene:
            socket.connect(f"tcp://127.0.0.1:{scene.port}")
            await eventually(lambda: bool(len(scene.subscribers)))
            for i in range(40):
                scene.publish(number(i) + bytes(MB))
            assert scene.subscribers.waiting_bytes > MB
            scene.publish(b"farewell")
            scene.publisher.close(linger=60_000)
            assert not scene.publisher.send([b"too late"])
            scene.publisher.close(linger=0)
            await eventually(lambda: len(listener.read()) == 41)
        assert listener.texts == [*map(number, range(40)), b"farewell"]


def test_the_system_tells_what_it_has_taken() -> None:
    with sockets.create_server(("127.0.0.1", 0)) as server, sockets.create_connection(server.getsockname()) as ours:
        theirs, _ = server.accept()
        with theirs:
            fd = ours.fileno()
            before = bytes_written(fd)
            assert before is not None
            total = before
            ours.setblocking(False)
            with suppress(BlockingIOError):
                while True:
                    total += ours.send(bytes(MB))
                    assert bytes_written(fd) == total
            assert total > before
            assert bytes_written(fd) == total
        ours.close()
        assert bytes_written(fd) == 0


def test_a_connection_of_another_port_is_not_ended() -> None:
    with (
        sockets.create_server(("127.0.0.1", 0)) as server,
        sockets.create_connection(server.getsockname()) as ours,
        zmq.Context() as context,
        context.socket(zmq.XPUB) as socket,
    ):
        socket.bind_to_random_port("tcp://127.0.0.1")
        theirs, _ = server.accept()
        with theirs:
            end_connection(theirs.fileno(), socket)
            end_connection(999_999, socket)
            ours.sendall(b"still here")
            assert theirs.recv(100) == b"still here"


async def test_what_is_wanted() -> None:
    async with stage() as on:
        assert not on.publisher.is_wanted([b"engine.0.status", b"x"])
        with on.peer() as listener:
            listener.socket.subscribe(b"engine.1")
            await eventually(lambda: on.publisher.is_wanted([b"engine.1.status", b"x"]))
            assert not on.publisher.is_wanted([b"engine.0.status", b"x"])
            listener.socket.subscribe(b"")
            await eventually(lambda: on.publisher.is_wanted([b"engine.0.status", b"x"]))
        await eventually(lambda: not on.publisher.is_wanted([b"engine.1.status", b"x"]))
        on.publisher.close(0)
        assert not on.publisher.is_wanted([b"engine.1.status", b"x"])
