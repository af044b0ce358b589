"""Message signatures, and the replay window, which detects messages that are received twice."""

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
"""The least number of signatures to remember. Stock sessions remember as many (``digest_history_size`` in
jupyter_client)."""


class Signer:
    """Signs and verifies messages: HMAC over the four dicts of a message, in hexadecimal (RFC 2104).

    The scheme is ``hmac-HASH``, with the name of a hash in `hashlib`. Messages are not signed if the key is empty.
    The keyed inner and outer hashes are prepared once and copied for each message. That takes half the time of a
    new `hmac.HMAC`.
    """

    def __init__(self, key: bytes, scheme: str = "hmac-sha256") -> None:
        prefix, _, name = scheme.partition("-")
        if prefix != "hmac" or name not in hashlib.algorithms_guaranteed or name.startswith("shake"):
            raise ConfigError(
                f"signature_scheme {scheme!r} is not known: "
                "use hmac-sha256, or hmac- followed by another hash of Python's hashlib"
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
        """Return the signature of the four dicts: header, parent header, metadata and content."""
        if not self.key:
            return b""
        inner = self._inner.copy()
        update = inner.update
        for part in parts:
            update(part)
        outer = self._outer.copy()
        outer.update(inner.digest())
        return outer.hexdigest().encode("ascii")

    def verify_untrusted(self, signature: bytes, parts: Sequence[Buffer]) -> None:
        """Check the signature of the four dicts of a message. Raises `WireError` (``bad_signature``)."""
        if self.key and not compare_digest(self.sign(parts), signature):
            raise WireError("bad_signature", "the signature was not made with this hub's key")


class Ring(Protocol):
    """A sequence of 64-bit numbers, such as an ``array("Q")``."""

    def __len__(self) -> int: ...
    def __iter__(self) -> Iterator[int]: ...
    def __setitem__(self, place: int, mark: int, /) -> None: ...


class ReplayWindow:
    """The latest signatures, at least `size` and at most twice as many, see `Recent`.

    Only verified signatures may be remembered. Otherwise an attacker without the key could fill the window.

    A ring can keep the latest marks in memory that outlives the process, see `keep_in`.
    """

    def __init__(self, size: int = REPLAY_WINDOW) -> None:
        self.size = size
        self.recent: Recent[bool] = Recent(size)
        self.on_lap: Callable[[], None] = lambda: None
        """Called each time the end of the ring is reached, before new marks replace those at its beginning."""
        self._ring: Ring | None = None
        self._at = self._last = 0

    def __len__(self) -> int:
        return len(self.recent)

    def remember(self, signature: bytes) -> None:
        """Remember a signature in hexadecimal. Raises `WireError` (``replayed``) if it is known already."""
        # 64 bits suffice: signatures are few, and nobody without the key can choose them. 0 means an empty place.
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
        """Remember the marks in a ring, and from now on write new marks into the ring.

        Args:
            ring: 64-bit numbers, with 0 for an empty place. The place after the newest mark is always empty. Any
                other number counts as a mark, so a damaged ring does no harm.
        """
        marks = list(ring)
        self._at = marks.index(0) if 0 in marks else 0
        for mark in marks[self._at :] + marks[: self._at]:
            if mark:
                self.recent.remember(mark, True)
        self._ring = ring
        self._last = len(ring) - 1

    def leave_ring(self) -> None:
        """Stop writing marks into the ring."""
        self._ring = None
        self.on_lap = lambda: None
