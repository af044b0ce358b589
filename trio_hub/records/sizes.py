"""The size of a record: the bytes of its buffers, JSON text, source code and output, without Python's overhead."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from .record import BUFFER_KEYS, CHANGEABLE_KEYS, PACKED_KEYS, TEXT_KEYS, TaskRecord

__all__ = ["MEASURES", "size_of", "text_bytes"]


def size_of(record: TaskRecord) -> int:
    """Return the size of a record in bytes."""
    if (
        record.result_header
        or record.result_metadata
        or record.result_content
        or record.result_buffers
        or record.execute_input
        or record.execute_result
        or record.error
        or record.stdout
        or record.stderr
    ):
        values = ((measure, getattr(record, key)) for key, measure in MEASURES.items() if measure is not None)
        return sum(measure(value) for measure, value in values if value)
    # Only the keys that the record of a new request has, since this is called for each request.
    size = sum(map(len, record.buffers)) if record.buffers else 0
    for text in (record.header, record.metadata, record.content):
        if text:
            size += len(text)
    return size


def _buffers_bytes(buffers: Sequence[Any]) -> int:
    return sum(map(len, buffers))


def text_bytes(text: str) -> int:
    """Return the size of a text in bytes, as UTF-8."""
    # JSON can contain lone surrogates, so the text may have no UTF-8 form
    return len(text) if text.isascii() else len(text.encode("utf-8", "surrogatepass"))


MEASURES: dict[str, Callable[[Any], int] | None] = {
    **dict.fromkeys(sorted(CHANGEABLE_KEYS)),
    **dict.fromkeys(sorted(PACKED_KEYS), len),
    **dict.fromkeys(sorted(BUFFER_KEYS), _buffers_bytes),
    **dict.fromkeys((*sorted(TEXT_KEYS), "execute_input"), text_bytes),
}
"""The functions that measure values, by key; None for the keys that do not count towards a record's size. They are not
called for None."""
