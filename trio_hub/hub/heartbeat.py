"""The heartbeat's bookkeeping: which hearts have answered, and which have missed too often.

Pings carry a number under a prefix that only this hub knows, so that a pong shows by itself that it answers
one of our pings. Any answer, however late, is a sign of life now; what was heard is weighed once a period.
"""

from __future__ import annotations

__all__ = ["HeartMonitor"]

_GREETING = b"hello."


class HeartMonitor:
    """Counts missed heartbeats.

    Args:
        token: unguessable bytes that mark this hub's pings.
        max_misses: a heart that misses more than this many pings in a row has failed.
    """

    def __init__(self, token: bytes, max_misses: int = 10) -> None:
        self.max_misses = max_misses
        self.missed = 0
        """Pings that were not answered in their period, of all hearts there have been."""
        self._token = token
        self._pings = 0
        self._latest = b""
        self._misses: dict[bytes, int] = {}
        """Misses in a row, of every heart that is watched."""
        self._heard: set[bytes] = set()

    def __len__(self) -> int:
        return len(self._misses)

    def __contains__(self, heart: bytes) -> bool:
        return heart in self._misses

    def misses(self, heart: bytes) -> int:
        """How many pings in a row the heart has missed."""
        return self._misses.get(heart, 0)

    @property
    def topic(self) -> bytes:
        """What every ping begins with that `ping` makes, and no greeting."""
        return self._token

    def ping(self) -> bytes:
        """The next ping to send to all."""
        self._pings += 1
        self._latest = b"%b.%d" % (self._token, self._pings)
        return self._latest

    def greeting(self) -> bytes:
        """The next ping to send to one heart only."""
        return _GREETING + self.ping()

    def is_ours(self, pong: bytes) -> bool:
        """Whether this is the echo of a ping that was sent."""
        if pong == self._latest and pong:  # as nearly all of them
            return True
        token, _, number = pong.removeprefix(_GREETING).rpartition(b".")
        return token == self._token and number.isdigit() and len(number) < 20 and 0 < int(number) <= self._pings

    def watch(self, heart: bytes) -> None:
        """A heart has been heard for the first time, and is expected to go on."""
        self._misses[heart] = 0
        self._heard.add(heart)

    def forget(self, heart: bytes) -> None:
        self._misses.pop(heart, None)
        self._heard.discard(heart)

    def beat(self, heart: bytes) -> bool:
        """A heart has answered. Whether it is one that is watched."""
        watched = heart in self._misses
        if watched:
            self._heard.add(heart)
        return watched

    def silent(self, misses: int) -> list[bytes]:
        """The hearts that have just missed so many pings in a row, or a multiple of that."""
        return [heart for heart, missed in self._misses.items() if missed and missed % misses == 0]

    def weigh(self) -> list[bytes]:
        """A period is over: the hearts that have missed too many pings. Call it when all pongs are in."""
        failed = []
        for heart in self._misses:
            if heart in self._heard:
                self._misses[heart] = 0
            else:
                self.missed += 1
                self._misses[heart] += 1
                if self._misses[heart] > self.max_misses:
                    failed.append(heart)
        self._heard.clear()
        return failed
