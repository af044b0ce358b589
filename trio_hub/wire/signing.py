"""Message signatures: who may speak, and that nobody says the same thing twice."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from hmac import compare_digest
from typing import Protocol

from ..errors import ConfigError, WireError
from .frames import Buffer
from .recent import Recent

__all__ = ["REPLAY_WINDOW", "ReplayWindow", "Ring", "Signer"]

REPLAY_WINDOW = 65_536
"""Signatures remembered at least; stock sessions remember as many (jupyter_client: ``digest_history_size``)."""


class Signer:
    """HMAC over the four dicts of a message, in hexadecimal (scheme ``hmac-HASH``, HASH as in `hashlib`).

    The keyed inner and outer hashes are prepared once and copied for each message, which takes half the time
    of a new `hmac.HMAC` (RFC 2104 gives the construction). An empty key means no signatures at all.
    """

    def __init__(self, key: bytes, scheme: str = "hmac-sha256") -> None:
        prefix, _, name = scheme.partition("-")
        if prefix != "hmac" or name not in hashlib.algorithms_guaranteed or name.startswith("shake"):
            raise ConfigError(
                f"signature_scheme {scheme!r} is not known: "
                "use hmac-sha256, or hmac- with another hash of Python's hashlib"
            )
        self.key = key
        self.scheme = scheme
        block_size = hashlib.new(name).block_size
        if len(key) > block_size:
            key = hashlib.new(name, key).digest()
        key = key.ljust(block_size, b"\0")
        self._inner = hashlib.new(name, bytes(byte ^ 0x36 for byte in key))
        self._outer = hashlib.new(name, bytes(byte ^ 0x5C for byte in key))

    def sign(self, parts: Sequence[Buffer]) -> bytes:
        """The signature of header, parent header, metadata and content."""
        if not self.key:
            return b""
        inner = self._inner.copy()
        for part in parts:
            inner.update(part)
        outer = self._outer.copy()
        outer.update(inner.digest())
        return outer.hexdigest().encode("ascii")

    def verify_untrusted(self, signature: bytes, parts: Sequence[Buffer]) -> None:
        """Raises `WireError` (``bad_signature``) unless the signature is that of the parts."""
        if self.key and not compare_digest(self.sign(parts), signature):
            raise WireError("bad_signature", "the signature is not that of the message under this hub's key")


class Ring(Protocol):
    """Places for numbers of 64 bits, such as an ``array("Q")``."""

    def __len__(self) -> int: ...
    def __iter__(self) -> Iterator[int]: ...
    def __setitem__(self, place: int, mark: int, /) -> None: ...


class ReplayWindow:
    """The latest signatures, at least `size` and at most twice as many, see `Recent`.

    Only verified signatures may be shown to it, or a forger could fill it.

    A ring keeps the latest marks where the next process finds them: see `keep_in`.
    """

    def __init__(self, size: int = REPLAY_WINDOW) -> None:
        self.size = size
        self.recent: Recent[bool] = Recent(size)
        self.on_lap: Callable[[], None] = lambda: None
        """Called when the ring is full once more, before the marks that are in it begin to make room for others."""
        self._ring: Ring | None = None
        self._at = self._last = 0

    def __len__(self) -> int:
        return len(self.recent)

    def remember(self, signature: bytes) -> None:
        """Raises `WireError` (``replayed``) if the signature, in hexadecimal, was seen before."""
        # 64 bits tell so few apart, and nobody without the key can choose them. 0 is an empty place in the ring.
        mark = int(signature[:16], 16) or 1
        if not self.recent.remember(mark, True):
            raise WireError("replayed", "a message with this signature has been received before")
        ring = self._ring
        if ring is not None:
            at = self._at
            following = at + 1 if at < self._last else 0
            if following == 0:
                self.on_lap()
            ring[following] = 0
            ring[at] = mark
            self._at = following

    def note(self, signature: bytes) -> bool:
        """Remember a signature in hexadecimal. Return False if it is known already."""
        try:
            self.remember(signature)
        except WireError:
            return False
        return True

    def keep_in(self, ring: Ring) -> None:
        """Remember the marks that are in a ring, and keep the latest marks there from now on.

        Args:
            ring: numbers of 64 bits, 0 where it is empty. The place behind the newest mark is always empty. Whatever
                else is in the ring counts as a mark, so a damaged ring does no harm.
        """
        marks = list(ring)
        self._at = marks.index(0) if 0 in marks else 0
        for mark in marks[self._at :] + marks[: self._at]:
            if mark:
                self.recent.remember(mark, True)
        self._ring = ring
        self._last = len(ring) - 1

    def leave_ring(self) -> None:
        """Use the ring no more."""
        self._ring = None
        self.on_lap = lambda: None
