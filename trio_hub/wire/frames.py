"""The frames of a multipart message, and how to split off the routing identities.

On the wire: ``[identity…, b"<IDS|MSG>", signature, header, parent, metadata, content, buffer…]``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol, TypeAlias

from ..errors import WireError

__all__ = ["DELIMITER", "Buffer", "Frames", "split_untrusted", "to_bytes"]

DELIMITER = b"<IDS|MSG>"


class _LargeFrame(Protocol):
    """A frame that stays in the memory where it was received. It has a length and supports the buffer protocol."""

    def __len__(self) -> int: ...
    def __buffer__(self, flags: int, /) -> memoryview: ...


# Small frames are bytes. Large frames may stay in the memory where they were received (``zmq.Frame``, ``memoryview``).
Buffer: TypeAlias = bytes | memoryview | _LargeFrame
Frames: TypeAlias = list[Buffer]


def to_bytes(frame: Buffer) -> bytes:
    """Return a frame as bytes: a copy, unless the frame is bytes already."""
    return frame if type(frame) is bytes else bytes(frame)


def split_untrusted(frames: Sequence[Buffer]) -> tuple[list[bytes], Frames]:
    """Split a multipart message into the identities before the delimiter, and the frames from the delimiter on.

    Raises:
        WireError: ``no_delimiter`` or ``too_few_frames``.
    """
    try:
        index = frames.index(DELIMITER)
    except ValueError:
        raise WireError("no_delimiter", f"no delimiter among {len(frames)} frames") from None
    if len(frames) - index < 6:
        raise WireError("too_few_frames", f"{len(frames) - index - 1} frames after the delimiter, need 5")
    idents: list[Any] = [*frames[:index]]
    for ident in idents:
        if type(ident) is not bytes:
            idents = [*map(to_bytes, idents)]
            break
    rest = frames[index:]
    return idents, rest if type(rest) is list else [*rest]
