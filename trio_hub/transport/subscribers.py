"""The subscribers of the channels on which the hub publishes, and the messages that wait for each: without sockets.

A connection may ask for several prefixes. For each prefix it gets a topic that no other connection has: the prefix, by
which the subscriber filters once more, and a random token. So a message can be sent to one connection.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence

from ..wire.frames import Buffer, Frames, to_bytes

__all__ = ["MAX_PREFIXES", "MAX_PREFIX_BYTES", "ROOM", "Publication", "Subscriber", "Subscribers", "wire_size"]

ROOM = 2 * 2**20
"""The maximum number of bytes for one subscriber in ZeroMQ. A larger message is handed over when ZeroMQ has none."""
MAX_PREFIXES = 64
"""The maximum number of prefixes of one connection. Stock clients ask for one prefix per channel."""
MAX_PREFIX_BYTES = 255
"""The maximum length of a prefix in bytes. ZeroMQ needs some 40 bytes of memory for each byte."""

# The approximate bytes of memory that Python needs for a message and for each of its frames, without their contents.
_PER_MESSAGE = 200
_PER_FRAME = 40
# The least number of bytes that ZMTP adds to a frame.
_FRAME_HEADER = 2


def wire_size(frames: Sequence[Buffer]) -> int:
    """Return the least number of bytes that a message takes up on a connection."""
    return sum(map(len, frames)) + _FRAME_HEADER * len(frames)


class Publication:
    """A message that waits for subscribers. One object serves all of them.

    - ``wire_size``: the least number of bytes that the message takes up on a connection;
    - ``size``: the approximate number of bytes of memory that it takes up here.
    """

    __slots__ = ("frames", "size", "wire_size")

    def __init__(self, frames: Frames) -> None:
        self.frames = frames
        self.wire_size = wire_size(frames)
        self.size = self.wire_size + _PER_MESSAGE + _PER_FRAME * len(frames)


class Subscriber:
    """One connection: its prefixes, and the messages that wait for it, the oldest first.

    - ``topics``: its own topic for each prefix, in the order in which it asked for them;
    - ``size``: bytes of the messages that wait;
    - ``held``: the maximum number of bytes that ZeroMQ may still hold: the system is not known to have taken them;
    - ``dropped``, ``dropped_bytes``: the messages that were dropped for it since messages began to wait, and their
      bytes;
    - ``pause``, ``retry_at``: the seconds until the next attempt to send waiting messages, and the time of that
      attempt;
    - ``warned_at``: the time of the last warning about dropped messages; None if there was none since messages wait.
    """

    __slots__ = (
        "_written",
        "address",
        "dropped",
        "dropped_bytes",
        "held",
        "pause",
        "retry_at",
        "size",
        "topics",
        "waiting",
        "warned_at",
    )

    def __init__(self, address: str) -> None:
        self.address = address
        self.topics: dict[bytes, bytes] = {}
        self.waiting: deque[Publication] = deque()
        self.size = 0
        self.held = 0
        self.dropped = 0
        self.dropped_bytes = 0
        self.pause = 0.0
        self.retry_at = 0.0
        self.warned_at: float | None = None
        self._written = 0

    def topic_for(self, frames: Sequence[Buffer]) -> bytes | None:
        """Return the topic by which this subscriber gets a message; None if it has not asked for the message.

        If several topics match, the newest is taken: older topics may belong to an earlier connection with the same
        descriptor.
        """
        first: bytes | None = None
        for prefix in reversed(self.topics):
            if not prefix:
                return self.topics[prefix]
            if first is None:
                first = to_bytes(frames[0])
            if first.startswith(prefix):
                return self.topics[prefix]
        return None

    def has_room(self, size: int) -> bool:
        """Return whether ZeroMQ may be given so many bytes more for this subscriber."""
        return not self.held or self.held + size <= ROOM

    def written(self, total: int | None) -> bool:
        """Note how many bytes of this connection the system has taken since it began. None means all of ZeroMQ's bytes.

        The bytes include a few that are not messages. So ``held`` does not stay above the bytes that ZeroMQ holds.

        Returns:
            Whether the system has taken bytes since the last call.
        """
        before = self._written
        self._written = before + self.held if total is None else total
        taken = max(0, self._written - before)
        self.held = max(0, self.held - taken)
        return taken > 0


class Subscribers:
    """All subscribers of one channel, by the file descriptor of their connection.

    Args:
        limit: bytes of messages that may wait for each subscriber. Beyond it the oldest messages are dropped; but the
            newest message always stays, whatever its size.
        token: returns bytes that nobody can guess, always of the same length, different each time.

    - ``behind``: the subscribers for which messages wait;
    - ``common_topic``: the topic of all subscribers that want everything; no subscriber's own topic begins with it;
    - ``dropped``, ``dropped_bytes``: messages that subscribers did not get, and their bytes, since the start.
    """

    def __init__(self, limit: int, token: Callable[[], bytes]) -> None:
        self.limit = limit
        self.dropped = 0
        self.dropped_bytes = 0
        self.behind: dict[int, Subscriber] = {}
        self.common_topic = token()
        self._token = token
        self._by_fd: dict[int, Subscriber] = {}

    def __len__(self) -> int:
        return len(self._by_fd)

    def __iter__(self) -> Iterator[tuple[int, Subscriber]]:
        return iter(self._by_fd.items())

    def __getitem__(self, fd: int) -> Subscriber:
        return self._by_fd[fd]

    @property
    def waiting_bytes(self) -> int:
        """Bytes of the messages that wait now; a message that waits for several subscribers counts for each of them."""
        return sum(subscriber.size for subscriber in self.behind.values())

    @property
    def dropping(self) -> int:
        """The number of subscribers for which messages wait now, and older messages were dropped."""
        return sum(subscriber.dropped > 0 for subscriber in self.behind.values())

    def subscribe(self, fd: int, prefix: bytes, address: str) -> tuple[bytes, bytes | None] | None:
        """Subscribe a connection to the messages that begin with a prefix.

        Returns:
            The topic by which the connection gets these messages from now on, and its earlier topic for the prefix, if
            any; None if the connection asks for too much.
        """
        subscriber = self._by_fd.get(fd)
        asked = 0 if subscriber is None else len(subscriber.topics)
        if len(prefix) > MAX_PREFIX_BYTES or asked >= MAX_PREFIXES or prefix.startswith(self.common_topic):
            return None
        if subscriber is None:
            subscriber = self._by_fd[fd] = Subscriber(address)
        # Always a new topic: an earlier connection with this descriptor may have asked for the same prefix.
        before = subscriber.topics.pop(prefix, None)
        topic = subscriber.topics[prefix] = prefix + self._token()
        return topic, before

    def unsubscribe(self, fd: int, prefix: bytes) -> bytes | None:
        """Unsubscribe a connection from a prefix. Return the topic that it had for the prefix, if any."""
        subscriber = self._by_fd.get(fd)
        if subscriber is None:
            return None
        topic = subscriber.topics.pop(prefix, None)
        if not subscriber.topics:
            self.forget(fd)
        return topic

    def forget(self, fd: int) -> None:
        """Forget a connection, which has ended, and the messages that wait for it."""
        self._by_fd.pop(fd, None)
        self.behind.pop(fd, None)

    def wait(self, fd: int, publication: Publication) -> bool:
        """Let a message wait for a subscriber. Return whether older messages were dropped."""
        subscriber = self.behind[fd] = self._by_fd[fd]
        subscriber.waiting.append(publication)
        subscriber.size += publication.size
        before = subscriber.dropped
        while subscriber.size > self.limit and len(subscriber.waiting) > 1:
            oldest = subscriber.waiting.popleft().size
            subscriber.size -= oldest
            subscriber.dropped += 1
            subscriber.dropped_bytes += oldest
            self.dropped += 1
            self.dropped_bytes += oldest
        return subscriber.dropped > before

    def sent(self, fd: int) -> None:
        """Remove the oldest message that waits for a subscriber: it was sent, or is not wanted any more."""
        subscriber = self.behind[fd]
        subscriber.size -= subscriber.waiting.popleft().size
        if not subscriber.waiting:
            del self.behind[fd]
