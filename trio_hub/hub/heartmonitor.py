"""Counts heartbeats: which hearts have answered, and which have missed too many pings.

Each ping is a token that only this hub knows, and a number. So a pong, which echoes a ping, proves that it answers a
ping of this hub. Every pong counts as a sign of life, however late it comes. The pongs are evaluated once per period.
"""

from __future__ import annotations

__all__ = ["HeartMonitor"]

_GREETING = b"hello."


class HeartMonitor:
    """Counts the pings that each heart has missed.

    Args:
        token: unguessable bytes that mark this hub's pings.
        max_misses: a heart that misses more than this many pings in a row has failed.
    """

    def __init__(self, token: bytes, max_misses: int = 10) -> None:
        self.max_misses = max_misses
        self.missed = 0
        """Pings that were not answered in their period, summed over all hearts since the start."""
        self._token = token
        self._pings = 0
        self._latest = b""
        self._misses: dict[bytes, int] = {}
        """Pings in a row that each watched heart has missed."""
        self._heard: set[bytes] = set()
        self.asked: dict[bytes, int] = {}
        """For each heart that was asked and has not answered yet, the number of the first ping whose pong counts."""

    def __len__(self) -> int:
        return len(self._misses)

    def __contains__(self, heart: bytes) -> bool:
        return heart in self._misses

    def misses(self, heart: bytes) -> int:
        """Return the number of pings in a row that the heart has missed."""
        return self._misses.get(heart, 0)

    @property
    def topic(self) -> bytes:
        """The bytes with which each ping for all hearts begins. No greeting begins with these bytes."""
        return self._token

    def ping(self) -> bytes:
        """Return the next ping for all hearts."""
        self._pings += 1
        self._latest = b"%b.%d" % (self._token, self._pings)
        return self._latest

    def greeting(self) -> bytes:
        """Return the next ping for one new heart only."""
        return _GREETING + self.ping()

    def is_ours(self, pong: bytes) -> bool:
        """Return whether a pong is the echo of a ping that was sent."""
        if pong == self._latest and pong:  # the most frequent case
            return True
        token, _, number = pong.removeprefix(_GREETING).rpartition(b".")
        return token == self._token and number.isdigit() and len(number) < 20 and 0 < int(number) <= self._pings

    def watch(self, heart: bytes) -> None:
        """Watch a heart, which has just been heard for the first time."""
        self._misses[heart] = 0
        self._heard.add(heart)

    def ask(self, heart: bytes) -> None:
        """Note that a heart is asked whether it beats: only an answer to a later ping counts (`answered`)."""
        self.asked[heart] = self._pings + 1

    def answered(self, heart: bytes, pong: bytes) -> None:
        """Note a pong of ours (`is_ours`) while hearts are asked."""
        if int(pong.rpartition(b".")[2]) >= self.asked.get(heart, self._pings + 1):
            del self.asked[heart]

    def forget(self, heart: bytes) -> None:
        self._misses.pop(heart, None)
        self._heard.discard(heart)

    def beat(self, heart: bytes) -> bool:
        """Note that a heart has answered. Return whether the heart is watched."""
        watched = heart in self._misses
        if watched:
            self._heard.add(heart)
        return watched

    def silent(self, misses: int) -> list[bytes]:
        """Return the hearts whose number of pings missed in a row is a multiple of ``misses``."""
        return [heart for heart, missed in self._misses.items() if missed and missed % misses == 0]

    def weigh(self) -> list[bytes]:
        """End a period, and return the hearts that have missed too many pings.

        Call this when all pongs have been read.
        """
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
