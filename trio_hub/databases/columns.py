"""How the values of a record are written to the columns of a database, and read from there.

Whatever a client sends has to come back as it was, also what a database would refuse or change.

==========================  =======================================================================================
texts                       as they are; see `text_column` for those with NUL or lone surrogates
dates                       whole microseconds since 1970 (UTC), which sort as the dates do
JSON (``PACKED_KEYS``)      as it arrived: bytes
``label``                   JSON text
buffers                     small lists packed into one blob; large ones in rows of their own, in chunks
==========================  =======================================================================================
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec

from ..wire.frames import Buffer

__all__ = [
    "CHUNK",
    "SMALL",
    "buffer_chunks",
    "buffers_column",
    "date_column",
    "from_buffers",
    "from_date",
    "from_label",
    "from_text",
    "label_column",
    "text_column",
]

# Buffer lists of this many bytes and more leave the row: who reads records without buffers must not read past them.
SMALL = 1 << 16
# No database takes values of any size (SQLite: 1 GB, PostgreSQL: less in one message). A driver copies each chunk while
# it holds Python's lock: a millisecond or two for this many bytes.
CHUNK = 1 << 22

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_ESCAPED = "\x01"
_pack = msgspec.msgpack.Encoder().encode
_unpack = msgspec.msgpack.Decoder().decode


def text_column(text: str) -> str:
    r"""A text that every database takes; equal for equal texts only.

    JSON may hold NUL and lone surrogates, which databases do not take. Texts with one of these, and those that begin
    with ``\x01``, are stored as ``\x01`` and then the text with Python's escapes. All others are stored as they are.
    """
    if text.isascii() and text.isprintable():  # as nearly all of them, so this is quick
        return text
    if "\0" not in text and not text.startswith(_ESCAPED):
        try:
            text.encode()
        except UnicodeEncodeError:
            pass
        else:
            return text
    return _ESCAPED + text.encode("unicode_escape").decode("ascii")


def from_text(column: str) -> str:
    """The text that `text_column` made this of."""
    if not column.startswith(_ESCAPED):
        return column
    return column[1:].encode("ascii").decode("unicode_escape")


def date_column(moment: datetime) -> int:
    """Microseconds since 1970 of an aware date: exact for every date there is."""
    return (moment - _EPOCH) // _MICROSECOND


def from_date(column: int) -> datetime:
    """The date, in UTC."""
    return _EPOCH + timedelta(microseconds=column)


def label_column(label: Any) -> str | None:
    """JSON text, as `text_column` has it; None for None.

    A label that JSON cannot hold (only a program that has the hub inside can make one) must not keep other records
    from being written: a text that says so takes its place.
    """
    if label is None:
        return None
    try:
        # stdlib json, for NaN, whole numbers of any size and lone surrogates; these are not escaped here, since two of
        # them in a row, both escaped, would be read as one character
        return text_column(json.dumps(label, ensure_ascii=False))
    except (TypeError, ValueError, RecursionError) as error:
        return text_column(json.dumps(f"a label that is no JSON: {error}", ensure_ascii=False))


def from_label(column: str | None) -> Any:
    """The label."""
    return None if column is None else json.loads(from_text(column))


def buffers_column(buffers: Sequence[Buffer] | None) -> tuple[bytes | None, bool]:
    """What the row holds of a list of buffers, and whether `buffer_chunks` are to be kept besides.

    MessagePack: the list itself or, if it is large, the size of each buffer.
    """
    if buffers is None:
        return None, False
    if sum(map(len, buffers)) < SMALL:
        return _pack(buffers), False  # (frames of ZeroMQ's own, which this does not know, are larger than that)
    return _pack(list(map(len, buffers))), True


def buffer_chunks(buffers: Sequence[Buffer]) -> Iterator[memoryview]:
    """All bytes of these buffers, in order, in pieces that a database takes; none is part of two buffers."""
    for buffer in buffers:
        view = memoryview(buffer)
        for start in range(0, len(view), CHUNK):
            yield view[start : start + CHUNK]


def from_buffers(column: bytes | None, chunks: Iterable[bytes] = ()) -> tuple[bytes, ...] | None:
    """The buffers of a row; ``chunks`` are read only if the row holds no more than sizes."""
    if column is None:
        return None
    held = _unpack(column)
    if not held or isinstance(held[0], bytes):
        return tuple(held)
    rest = iter(chunks)
    return tuple(_joined(rest, size) for size in held)


def _joined(chunks: Iterator[bytes], size: int) -> bytes:
    """One buffer of its chunks, of whatever size they were when they were written."""
    if not size:
        return b""
    pieces = [next(chunks)]
    there = len(pieces[0])
    while there < size:
        pieces.append(next(chunks))
        there += len(pieces[-1])
    return pieces[0] if len(pieces) == 1 else b"".join(pieces)
