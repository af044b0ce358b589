"""The channels on which the hub publishes: a client that does not read costs the hub a bounded amount of memory.

ZeroMQ alone would keep all messages for a subscriber that does not read; or a limited number of messages, and drop the
newest. Here ZeroMQ holds at most `ROOM` bytes for each subscriber: the bytes that were handed to it, less the bytes
that the system has taken, which the hub asks of the connection. Further messages wait in `Subscribers`, which drops the
oldest beyond a limit.

Each subscriber has a topic of its own, so that a message can be sent to one subscriber and not to another. ZeroMQ hands
over subscriptions (``XPUB_MANUAL``), and setting a topic applies to the connection of the last subscription.
"""

from __future__ import annotations

import secrets
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from math import inf
from time import perf_counter
from typing import Any

import trio
import zmq

from ..logs import get_logger
from ..wire.frames import Buffer, Frames
from .channel import Channel, peer_of
from .subscribers import Publication, Subscriber, Subscribers, wire_size
from .tcp import ConnectionMonitor, bytes_written, end_connection

__all__ = ["Publisher"]

log = get_logger("trio_hub.runtime")

RECEIVE_ROOM = 100
"""The maximum number of subscriptions of one peer that ZeroMQ receives ahead of the hub."""
MAX_SUBSCRIPTION = 1024
"""The maximum size, in bytes, of a message that a peer sends: a subscription, or a part of the handshake.

A longer message ends the connection.
"""
TOKEN_BYTES = 8
HEARING_PERIOD = 0.001
"""The least seconds between two checks for new subscriptions before messages are sent. The receiver reads the others.

ZeroMQ itself checks as seldom, and a check costs half as much as sending a message.
"""
LEAST_PAUSE = 0.01
"""Seconds between attempts to send waiting messages to a subscriber that reads."""
MOST_PAUSE = 0.25
"""The longest pause, in seconds, between attempts to send waiting messages to a subscriber that does not read."""
WARNING_PERIOD = 10.0
"""Seconds between warnings about one subscriber."""

_NOBLOCK = int(zmq.NOBLOCK)
_MORE = int(zmq.NOBLOCK | zmq.SNDMORE)


class Publisher(Channel):
    """An XPUB socket that sends each message once to each connection that has asked for it, in order.

    It receives subscriptions, and handles them itself. The caller also has to receive from ``monitor``, which reports
    ended connections, and to run `keep_sending`.

    - ``subscribers``: the subscribers, and the messages that wait for them;
    - ``counts``: the number of connections that were ended, as ``subscription_refused``;
    - ``greet``: returns the messages that only a new subscriber is sent, before all others; None for no messages.

    Args:
        socket: an XPUB socket that is not bound yet.
        limit: bytes that may wait for each subscriber.
        name: the name of the channel, for the log.
    """

    def __init__(self, socket: zmq.Socket[Any], limit: int, *, name: str = "") -> None:
        super().__init__(socket, lambda frames: None, name=name)  # this class has its own `drain`
        self.subscribers = Subscribers(limit, partial(secrets.token_bytes, TOKEN_BYTES))
        self.counts: Counter[str] = Counter()
        self.greet: Callable[[], Sequence[Frames]] | None = None
        # The connections that have subscribed: each is greeted once, however often it subscribes.
        self._greeted: set[int] = set()
        self._newcomers: list[int] = []
        socket.setsockopt(zmq.XPUB_MANUAL, 1)
        socket.setsockopt(zmq.MAXMSGSIZE, MAX_SUBSCRIPTION)
        socket.sndhwm = 0
        socket.rcvhwm = RECEIVE_ROOM
        self.monitor = ConnectionMonitor(socket, self._ended)
        # Whether ZeroMQ may attribute subscriptions to wrong connections
        self._confused = False
        # Whether a subscription is being handled. Until its topic is set, the socket must not be used otherwise: ZeroMQ
        # forgets the connection of the subscription when it learns that another connection has ended.
        self._handling = False
        self._newly_behind = trio.Event()
        self._heard_at = -inf

    # Sending

    def send(self, frames: Sequence[Buffer]) -> bool:
        """Publish a message, without waiting. Return False if the channel is closed."""
        if self.closed:
            return False
        self._hear_now_and_then()
        subscribers = self.subscribers
        if subscribers:
            size = wire_size(frames)
            if not subscribers.behind and self._all_have_room(size):
                self._send_to_all(frames, size)
            else:
                self._send_to_each(frames, size)
            self._look_again()
        return True

    def is_wanted(self, frames: Sequence[Buffer]) -> bool:
        """Return whether any subscriber has asked for a message."""
        if self.closed:
            return False
        self._hear_now_and_then()
        return any(subscriber.topic_for(frames) is not None for _, subscriber in self.subscribers)

    def _hear_now_and_then(self) -> None:
        now = perf_counter()
        if now - self._heard_at > HEARING_PERIOD:
            self._heard_at = now
            self._hear()

    def _all_have_room(self, size: int) -> bool:
        for fd, subscriber in self.subscribers:
            if not subscriber.has_room(size) and not self._makes_room(fd, subscriber, size):
                return False
        return True

    def _makes_room(self, fd: int, subscriber: Subscriber, size: int) -> bool:
        """Return whether there is room for so many bytes, after asking how many bytes the system has taken."""
        subscriber.written(bytes_written(fd))
        return subscriber.has_room(size)

    def _send_to_all(self, frames: Sequence[Buffer], size: int) -> None:
        """Send a message to all its subscribers: once to all that want everything, and once to each of the others."""
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
        """Send a message to its subscribers one by one. It waits for subscribers that have no room."""
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

    def _send_to(self, topic: bytes, frames: Sequence[Buffer]) -> None:
        send = self._send
        send(topic, _MORE)
        left = len(frames)
        for frame in frames:
            left -= 1
            send(frame, _MORE if left else _NOBLOCK)

    def _wait(self, fd: int, subscriber: Subscriber, publication: Publication) -> None:
        if subscriber.size + publication.size > self.subscribers.limit:
            self._catch_up(fd, subscriber)  # the subscriber may have read meanwhile
        if not subscriber.waiting:
            subscriber.dropped = subscriber.dropped_bytes = 0
            subscriber.pause = LEAST_PAUSE
            subscriber.retry_at = trio.current_time() + LEAST_PAUSE
            self._newly_behind.set()
        if self.subscribers.wait(fd, publication):
            _tell_dropped(self.name, subscriber)

    # Sending what waits

    async def keep_sending(self) -> None:
        """Send the messages that wait for subscribers, for ever."""
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
        """Send the messages that wait for a subscriber, as far as there is room."""
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

    # Subscriptions

    def drain(self, budget: int | None = None, *, held: bool = False) -> bool:
        """Handle the subscriptions that have arrived, at most `budget`. Return whether there may be more."""
        return self._hear(budget)

    def _hear(self, budget: int | None = None) -> bool:
        heard = 0
        while not self.closed:
            if not self._has_message():
                self._confused = False  # nothing is left that could be attributed to a wrong connection
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
            if self._newcomers:
                self._greet_newcomers()
        return False

    def _greet_newcomers(self) -> None:
        newcomers, self._newcomers = self._newcomers, []
        for fd in newcomers:
            subscriber = self.subscribers[fd]
            for frames in () if self.greet is None else self.greet():
                topic = subscriber.topic_for(frames)
                if topic is None:
                    continue
                size = wire_size(frames)
                if not subscriber.waiting and (subscriber.has_room(size) or self._makes_room(fd, subscriber, size)):
                    self._send_to(topic, frames)
                    subscriber.held += size
                else:
                    self._wait(fd, subscriber, Publication(list(frames)))

    def _heard(self, frame: zmq.Frame) -> None:
        """Handle a subscription or unsubscription."""
        try:
            fd = int(frame.get(zmq.SRCFD))
        except zmq.ZMQError:
            return  # an unsubscription that ZeroMQ makes for an ended connection; ``monitor`` reports it
        data = frame.bytes
        verb, prefix = data[:1], data[1:]
        if verb not in (b"\0", b"\1"):
            # libzmq then attributes each later subscription to a wrong connection.
            self._confused = True
        if self._confused:
            self._refuse(fd, frame, "a peer sent something that is not a subscription")
            return
        self.monitor.channel.drain()
        if fd not in self.monitor.connected:
            return  # the connection has ended already
        if verb == b"\1":
            self._subscribe(fd, prefix, frame)
        else:
            topic = self.subscribers.unsubscribe(fd, prefix)
            if topic is not None:
                self._set_topic(zmq.UNSUBSCRIBE, topic)
                if not prefix:
                    self._set_topic(zmq.UNSUBSCRIBE, self.subscribers.common_topic)

    def _subscribe(self, fd: int, prefix: bytes, frame: zmq.Frame) -> None:
        topics = self.subscribers.subscribe(fd, prefix, _address_of(frame))
        if topics is None:
            self._refuse(fd, frame, "it has subscribed to too many or too long topics")
            return
        topic, before = topics
        self._set_topic(zmq.SUBSCRIBE, topic)
        if before is not None:
            self._set_topic(zmq.UNSUBSCRIBE, before)
        if not prefix:
            self._set_topic(zmq.SUBSCRIBE, self.subscribers.common_topic)
        self.subscribers[fd].written(bytes_written(fd))
        if fd not in self._greeted:
            self._greeted.add(fd)
            self._newcomers.append(fd)

    def _set_topic(self, option: int, topic: bytes) -> None:
        """Set a topic of the connection whose subscription was received last."""
        with suppress(zmq.ZMQError):  # the connection has ended already
            self.socket.setsockopt(option, topic)

    def _refuse(self, fd: int, frame: zmq.Frame, why: str) -> None:
        """End a connection. If it is a client's, by mistake, the client connects and subscribes again."""
        self.counts["subscription_refused"] += 1
        log.warning(
            "ended the connection of a subscriber",
            kind="subscription_refused",
            channel=self.name,
            address=_address_of(frame),
            reason=why,
        )
        self.subscribers.forget(fd)
        end_connection(fd, self.socket)

    def _ended(self, fd: int) -> None:
        self.subscribers.forget(fd)
        self._greeted.discard(fd)
        if not self.closed and not self._handling:
            self._has_message()  # lets ZeroMQ release what it holds for that connection
            self._look_again()

    def close(self, linger: int) -> None:
        """Close the socket. Published and waiting messages have `linger` milliseconds to leave. Idempotent."""
        if not self.closed:
            for fd, subscriber in list(self.subscribers.behind.items()):
                for publication in subscriber.waiting:
                    topic = subscriber.topic_for(publication.frames)
                    if topic is not None:
                        self._send_to(topic, publication.frames)
                self.subscribers.forget(fd)
            self.monitor.close()
        super().close(linger)


def _address_of(frame: zmq.Frame) -> str:
    return peer_of(frame) or "unknown"


def _tell_dropped(channel: str, subscriber: Subscriber) -> None:
    now = trio.current_time()
    if subscriber.warned_at is None or now - subscriber.warned_at >= WARNING_PERIOD:
        subscriber.warned_at = now
        log.warning(
            "a client does not read the messages that it has subscribed to, so the oldest are dropped: resume or close "
            "that client; or raise subscriber_queue, if the client reads but is slow",
            kind="subscriber_behind",
            address=subscriber.address,
            channel=channel,
            messages=subscriber.dropped,
            bytes=subscriber.dropped_bytes,
        )


def _tell_caught_up(channel: str, subscriber: Subscriber) -> None:
    subscriber.warned_at = None
    log.info(
        "a client that did not read the messages that it has subscribed to reads them again",
        address=subscriber.address,
        channel=channel,
        messages=subscriber.dropped,
        bytes=subscriber.dropped_bytes,
    )
