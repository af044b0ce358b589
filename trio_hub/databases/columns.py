"""Converts the values of a record to the columns of a database, and back.

Each value that a client sends must be read back unchanged, even if a database would refuse or change it.

==========================  =======================================================================================
texts                       unchanged; see `text_column` for texts with NUL or lone surrogates
dates                       whole microseconds since 1970 (UTC), which sort as the dates do
JSON (``PACKED_KEYS``)      unchanged, as bytes
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

# Lists of buffers of this many bytes and more are stored outside the row, so that reading other keys skips them.
SMALL = 1 << 16
# Databases limit the size of a value (SQLite: 1 GB; PostgreSQL: less in one message). A driver copies each chunk while
# it holds Python's lock: one or two milliseconds for this many bytes.
CHUNK = 1 << 22

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_ESCAPED = "\x01"
_pack = msgspec.msgpack.Encoder().encode
_unpack = msgspec.msgpack.Decoder().decode


def text_column(text: str) -> str:
    r"""Return a text that every database can store. Different texts have different results.

    JSON may have NUL and lone surrogates, which databases cannot store. A text with one of these, or one that begins
    with ``\x01``, is stored as ``\x01`` followed by the text with Python's escapes. All other texts are unchanged.
    """
    if text.isascii() and text.isprintable():  # the quick check, which nearly all texts pass
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
    """Return the text of a column that `text_column` has made."""
    if not column.startswith(_ESCAPED):
        return column
    return column[1:].encode("ascii").decode("unicode_escape")


def date_column(moment: datetime) -> int:
    """Return the microseconds since 1970 of an aware date. They are exact for each possible date."""
    return (moment - _EPOCH) // _MICROSECOND


def from_date(column: int) -> datetime:
    """Return the date, in UTC, of a column that `date_column` has made."""
    return _EPOCH + timedelta(microseconds=column)


def label_column(label: Any) -> str | None:
    """Return a label as JSON, passed through `text_column`; None for None.

    A label that JSON cannot represent (only a program that embeds the hub can make one) is replaced by a text that says
    so, since it must not keep other records from being written.
    """
    if label is None:
        return None
    try:
        # The standard library's json writes NaN, integers of any size and lone surrogates. It must not escape the
        # surrogates, since two escaped surrogates in a row would be read as one character.
        return text_column(json.dumps(label, ensure_ascii=False))
    except (TypeError, ValueError, RecursionError) as error:
        return text_column(json.dumps(f"a label that is no JSON: {error}", ensure_ascii=False))


def from_label(column: str | None) -> Any:
    """Return the label of a column that `label_column` has made."""
    return None if column is None else json.loads(from_text(column))


def buffers_column(buffers: Sequence[Buffer] | None) -> tuple[bytes | None, bool]:
    """Return the row's value for a list of buffers, and whether the buffers also have to be stored as `buffer_chunks`.

    The value is MessagePack: the list itself or, if the list is large, the size of each buffer.
    """
    if buffers is None:
        return None, False
    if sum(map(len, buffers)) < SMALL:
        return _pack(buffers), False  # (ZeroMQ's own frames, which cannot be packed, are larger than that)
    return _pack(list(map(len, buffers))), True


def buffer_chunks(buffers: Sequence[Buffer]) -> Iterator[memoryview]:
    """Yield all bytes of the buffers, in order, in pieces that a database can store. Each piece is of one buffer."""
    for buffer in buffers:
        view = memoryview(buffer)
        for start in range(0, len(view), CHUNK):
            yield view[start : start + CHUNK]


def from_buffers(column: bytes | None, chunks: Iterable[bytes] = ()) -> tuple[bytes, ...] | None:
    """Return the buffers of a row. ``chunks`` are read only if the row has only the sizes of the buffers."""
    if column is None:
        return None
    held = _unpack(column)
    if not held or isinstance(held[0], bytes):
        return tuple(held)
    rest = iter(chunks)
    return tuple(_joined(rest, size) for size in held)


def _joined(chunks: Iterator[bytes], size: int) -> bytes:
    """Return one buffer, joined from its chunks. The chunks may have any sizes."""
    if not size:
        return b""
    pieces = [next(chunks)]
    there = len(pieces[0])
    while there < size:
        pieces.append(next(chunks))
        there += len(pieces[-1])
    return pieces[0] if len(pieces) == 1 else b"".join(pieces)
