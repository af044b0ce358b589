"""The channels by which the hub publishes: a client that does not read costs the hub a bounded amount of memory.

By itself ZeroMQ keeps everything for a subscriber that does not read; or, if it is told to, a number of messages, of
which it then drops the newest. Here it is given no more than `ROOM` bytes for each subscriber at a time: what was
handed over, less what the system has taken of it, which is asked of the connection. What goes beyond that waits in
`Subscribers`, which drops the oldest beyond a bound.

So that one subscriber can be given less than the others, each of them has a topic of its own. ZeroMQ hands over the
subscriptions (``XPUB_MANUAL``), and a topic is given to the connection whose subscription it has handed over last.
"""

from __future__ import annotations

import secrets
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from math import inf
from time import perf_counter
from typing import Any

import trio
import zmq

from ..logs import get_logger
from ..wire.frames import Buffer
from .sockets import Channel
from .subscribers import Publication, Subscriber, Subscribers, wire_size
from .tcp import ConnectionMonitor, bytes_written, end_connection, peer_of

__all__ = ["Publisher"]

log = get_logger("trio_hub.runtime")

RECEIVE_ROOM = 100
"""Subscriptions of one peer that ZeroMQ takes before the hub does."""
MAX_SUBSCRIPTION = 1024
"""Bytes of what a peer may send: a subscription, or a part of the handshake. Who sends more is disconnected."""
TOKEN_BYTES = 8
HEARING_PERIOD = 0.001
"""Seconds. At this age of what is known of subscribers, ZeroMQ is asked before a message is sent to them. Between, they
are heard in their turn. By itself ZeroMQ looks for subscriptions as seldom, and to ask costs half as much as to send.
"""
LEAST_PAUSE = 0.01
"""Seconds from one attempt to send what waits to the next, as long as the subscriber takes something."""
MOST_PAUSE = 0.25
"""The same for a subscriber that takes nothing."""
WARNING_PERIOD = 10.0
"""Seconds between warnings about one subscriber."""

_NOBLOCK = int(zmq.NOBLOCK)
_MORE = int(zmq.NOBLOCK | zmq.SNDMORE)
_EVENTS = int(zmq.EVENTS)
_POLLIN = int(zmq.POLLIN)
_FRAME: type = zmq.Frame


class Publisher(Channel):
    """An XPUB socket that sends each message once to each connection that has asked for it, in order.

    What it receives are subscriptions, which it handles itself. Two more things are to be run with it: ``monitor``,
    which tells of connections that have ended, and `keep_sending`.

    - ``subscribers``: who they are, and what waits for them;
    - ``counts``: where the connections that were ended are counted, as ``subscription_refused``.

    Args:
        socket: an XPUB socket that is not bound yet.
        limit: bytes that may wait for each subscriber.
        name: for people.
    """

    def __init__(self, socket: zmq.Socket[Any], limit: int, *, name: str = "") -> None:
        super().__init__(socket, lambda frames: None, name=name)  # `drain` is this class's own
        self.subscribers = Subscribers(limit, partial(secrets.token_bytes, TOKEN_BYTES))
        self.counts: Counter[str] = Counter()
        socket.setsockopt(zmq.XPUB_MANUAL, 1)
        socket.setsockopt(zmq.MAXMSGSIZE, MAX_SUBSCRIPTION)
        socket.sndhwm = 0
        socket.rcvhwm = RECEIVE_ROOM
        self.monitor = ConnectionMonitor(socket, self._ended)
        # Whether ZeroMQ may have handed over a subscription together with the connection of another
        self._confused = False
        # Whether a subscription is being handled: until its topic is set, ZeroMQ must not be asked anything, since it
        # forgets whose subscription it was when it learns that another connection has ended.
        self._handling = False
        self._newly_behind = trio.Event()
        self._heard_at = -inf

    # Sending

    def send(self, frames: Sequence[Buffer]) -> bool:
        """Publish a message, without waiting; False if the channel is closed."""
        if self.closed:
            return False
        now = perf_counter()
        if now - self._heard_at > HEARING_PERIOD:
            self._heard_at = now
            self._hear()
        subscribers = self.subscribers
        if subscribers:
            size = wire_size(frames)
            if not subscribers.behind and self._all_have_room(size):
                self._send_to_all(frames, size)
            else:
                self._send_to_each(frames, size)
            self._look_again()
        return True

    def _all_have_room(self, size: int) -> bool:
        for fd, subscriber in self.subscribers:
            if not subscriber.has_room(size) and not self._makes_room(fd, subscriber, size):
                return False
        return True

    def _makes_room(self, fd: int, subscriber: Subscriber, size: int) -> bool:
        """Whether there is room for so many bytes, considering what the system has taken meanwhile."""
        subscriber.written(bytes_written(fd))
        return subscriber.has_room(size)

    def _send_to_all(self, frames: Sequence[Buffer], size: int) -> None:
        """Send a message to all who want it: once to those together who want everything."""
        common = False
        for _, subscriber in self.subscribers:
            if b"" in subscriber.topics:
                common = True
                subscriber.held += size
            else:
                topic = subscriber.topic_for(frames)
                if topic is not None:
                    self._send_to(topic, frames)
                    subscriber.held += size
        if common:
            self._send_to(self.subscribers.common_topic, frames)

    def _send_to_each(self, frames: Sequence[Buffer], size: int) -> None:
        """Send a message to all who want it, one by one; it waits for those who have no room."""
        publication: Publication | None = None
        for fd, subscriber in self.subscribers:
            topic = subscriber.topic_for(frames)
            if topic is None:
                continue
            if not subscriber.waiting and (subscriber.has_room(size) or self._makes_room(fd, subscriber, size)):
                self._send_to(topic, frames)
                subscriber.held += size
                continue
            if publication is None:
                publication = Publication(list(frames))
            self._wait(fd, subscriber, publication)

    def _look_again(self) -> None:
        """Whatever asks or sends something may take away the sign that a subscription has arrived."""
        if self._receiver is not None:
            self._receiver.look_again(self)

    def _send_to(self, topic: bytes, frames: Sequence[Buffer]) -> None:
        send = self._send
        send(topic, _MORE, True)
        left = len(frames)
        for frame in frames:
            left -= 1
            send(frame, _MORE if left else _NOBLOCK, type(frame) is not _FRAME)

    def _wait(self, fd: int, subscriber: Subscriber, publication: Publication) -> None:
        if subscriber.size + publication.size > self.subscribers.limit:
            self._catch_up(fd, subscriber)  # it may take something after all
        if not subscriber.waiting:
            subscriber.dropped = subscriber.dropped_bytes = 0
            subscriber.pause = LEAST_PAUSE
            subscriber.retry_at = trio.current_time() + LEAST_PAUSE
            self._newly_behind.set()
        if self.subscribers.wait(fd, publication):
            _tell_dropped(self.name, subscriber)

    # Sending what waits

    async def keep_sending(self) -> None:
        """Send what waits, for ever."""
        while True:
            behind = self.subscribers.behind
            pause = min((one.retry_at for one in behind.values()), default=float("inf")) - trio.current_time()
            self._newly_behind = trio.Event()
            with trio.move_on_after(max(pause, LEAST_PAUSE)):
                await self._newly_behind.wait()
            now = trio.current_time()
            for fd, subscriber in list(behind.items()):
                if subscriber.retry_at <= now:
                    self._catch_up(fd, subscriber)
                    self._look_again()

    def _catch_up(self, fd: int, subscriber: Subscriber) -> None:
        """Send what waits for a subscriber, as far as there is room."""
        moves = subscriber.written(bytes_written(fd))
        while subscriber.waiting:
            publication = subscriber.waiting[0]
            topic = subscriber.topic_for(publication.frames)
            if topic is not None:
                if not subscriber.has_room(publication.wire_size):
                    break
                self._send_to(topic, publication.frames)
                subscriber.held += publication.wire_size
                moves = True
            self.subscribers.sent(fd)
        subscriber.pause = LEAST_PAUSE if moves else min(2 * subscriber.pause, MOST_PAUSE)
        subscriber.retry_at = trio.current_time() + subscriber.pause
        if not subscriber.waiting and subscriber.warned_at is not None:
            _tell_caught_up(self.name, subscriber)

    # Hearing who subscribes

    def drain(self, budget: int | None = None, *, held: bool = False) -> bool:
        """Handle the subscriptions that have arrived, at most `budget`; whether there may be more."""
        return self._hear(budget)

    def _hear(self, budget: int | None = None) -> bool:
        heard = 0
        while not self.closed:
            if not self._getsockopt(_EVENTS) & _POLLIN:
                self._confused = False  # nothing is left that could be taken for something else
                return False
            if budget is not None and heard >= budget:
                return True
            heard += 1
            frame = self._receive(_NOBLOCK, False)
            self._handling = True
            self._heard(frame)
            self._handling = False
            while frame.more:
                frame = self._receive(_NOBLOCK, False)
        return False

    def _heard(self, frame: zmq.Frame) -> None:
        """A connection subscribes, or does not want something any more."""
        try:
            fd = int(frame.get(zmq.SRCFD))
        except zmq.ZMQError:
            return  # ZeroMQ itself says so, of a connection that has ended: ``monitor`` says which
        data = frame.bytes
        verb, prefix = data[:1], data[1:]
        if verb not in (b"\0", b"\1"):
            # libzmq takes the connection of the next subscription for that of this message, and so on.
            self._confused = True
        if self._confused:
            self._refuse(fd, frame, "a peer sent something that is no subscription")
            return
        self.monitor.channel.drain()
        if fd not in self.monitor.connected:
            return  # it has ended already
        if verb == b"\1":
            self._subscribe(fd, prefix, frame)
        else:
            topic = self.subscribers.unsubscribe(fd, prefix)
            if topic is not None:
                self._set_topic(zmq.UNSUBSCRIBE, topic)
                if not prefix:
                    self._set_topic(zmq.UNSUBSCRIBE, self.subscribers.common_topic)

    def _subscribe(self, fd: int, prefix: bytes, frame: zmq.Frame) -> None:
        topics = self.subscribers.subscribe(fd, prefix, peer_of(frame))
        if topics is None:
            self._refuse(fd, frame, "it subscribes to too much")
            return
        topic, before = topics
        self._set_topic(zmq.SUBSCRIBE, topic)
        if before is not None:
            self._set_topic(zmq.UNSUBSCRIBE, before)
        if not prefix:
            self._set_topic(zmq.SUBSCRIBE, self.subscribers.common_topic)
        self.subscribers[fd].written(bytes_written(fd))

    def _set_topic(self, option: int, topic: bytes) -> None:
        """Set a topic of the connection whose subscription was received last."""
        with suppress(zmq.ZMQError):  # it has ended already
            self.socket.setsockopt(option, topic)

    def _refuse(self, fd: int, frame: zmq.Frame, why: str) -> None:
        """End a connection. A peer whose subscription another one has spoilt comes back, and subscribes again."""
        self.counts["subscription_refused"] += 1
        log.warning(
            "ended the connection of a subscriber",
            kind="subscription_refused",
            channel=self.name,
            address=peer_of(frame),
            reason=why,
        )
        self.subscribers.forget(fd)
        end_connection(fd, self.socket)

    def _ended(self, fd: int) -> None:
        self.subscribers.forget(fd)
        if not self.closed and not self._handling:
            self._getsockopt(_EVENTS)  # lets ZeroMQ release what it holds for that connection
            self._look_again()

    def close(self, linger: int) -> None:
        """Close the socket; what was published has `linger` milliseconds to leave, what waits included. Idempotent."""
        if not self.closed:
            for fd, subscriber in list(self.subscribers.behind.items()):
                for publication in subscriber.waiting:
                    topic = subscriber.topic_for(publication.frames)
                    if topic is not None:
                        self._send_to(topic, publication.frames)
                self.subscribers.forget(fd)
            self.monitor.close()
        super().close(linger)


def _tell_dropped(channel: str, subscriber: Subscriber) -> None:
    now = trio.current_time()
    if subscriber.warned_at is None or now - subscriber.warned_at >= WARNING_PERIOD:
        subscriber.warned_at = now
        log.warning(
            "a client does not read what it has subscribed to, so the oldest of it is dropped: resume or close that "
            "client; or raise subscriber_queue, if it reads but is slow",
            kind="subscriber_behind",
            address=subscriber.address,
            channel=channel,
            messages=subscriber.dropped,
            bytes=subscriber.dropped_bytes,
        )


def _tell_caught_up(channel: str, subscriber: Subscriber) -> None:
    subscriber.warned_at = None
    log.info(
        "a client that did not read what it has subscribed to does so again",
        address=subscriber.address,
        channel=channel,
        messages=subscriber.dropped,
        bytes=subscriber.dropped_bytes,
    )
