"""Where a multipart message divides: routing identities, the delimiter, and the six parts of a message.

On the wire: ``[identity…, b"<IDS|MSG>", signature, header, parent, metadata, content, buffer…]``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol, TypeAlias

from ..errors import WireError

__all__ = ["DELIMITER", "Buffer", "Frames", "split_untrusted", "to_bytes"]

DELIMITER = b"<IDS|MSG>"


class _LargeFrame(Protocol):
    """A frame that is kept where it was received: sized, and readable through the buffer protocol."""

    def __len__(self) -> int: ...
    def __buffer__(self, flags: int, /) -> memoryview: ...


# Small frames are bytes. Large ones may stay in the memory they arrived in (``zmq.Frame``, ``memoryview``).
Buffer: TypeAlias = bytes | memoryview | _LargeFrame
Frames: TypeAlias = list[Buffer]


def to_bytes(frame: Buffer) -> bytes:
    """The frame as bytes; a copy unless it is bytes already."""
    return frame if type(frame) is bytes else bytes(frame)


def split_untrusted(frames: Sequence[Buffer]) -> tuple[list[bytes], Frames]:
    """Divide a multipart message into the identities before the delimiter, and the frames from it on.

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
    return idents, [*frames[index:]]
