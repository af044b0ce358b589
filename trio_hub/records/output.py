"""The limit of recorded output of a request, which is the same for all backends."""

from __future__ import annotations

from collections import OrderedDict

from .record import TEXT_KEYS

__all__ = ["MAX_OUTPUT", "NOT_RECORDED", "OutputLimit"]

MAX_OUTPUT = 16 * 2**20
"""The number of characters of ``stdout``, and of ``stderr``, that are recorded for each request."""
NOT_RECORDED = "\n[trio_hub: the rest of the output was not recorded]\n"
"""The note in a record in place of the output beyond the limit."""
_REMEMBERED = 10_000
"""The number of requests, those that printed last, whose output is counted. The count of others starts again at 0."""


class OutputLimit:
    """Cuts output that is to be appended to records, so that no record exceeds the limit.

    Args:
        limit: The number of characters of ``stdout``, and of ``stderr``, for each request.
    """

    def __init__(self, limit: int = MAX_OUTPUT) -> None:
        self.limit = limit
        # By msg_id and key: how many more characters are recorded; -1 after the note. The last to print is at the end.
        self._left: OrderedDict[str, dict[str, int]] = OrderedDict()

    def recorded(self, msg_id: str, key: str, text: str) -> str:
        """Return the part of a text to append to a record: all of it, its beginning and the note, or an empty text.

        Raises `AttributeError` for a key other than ``stdout`` or ``stderr``.
        """
        if key not in TEXT_KEYS:
            raise AttributeError(f"cannot append text to {key!r}")
        outputs = self._left.get(msg_id)
        if outputs is None:
            outputs = self._left[msg_id] = {}
            if len(self._left) > _REMEMBERED:
                self._left.popitem(last=False)
        else:
            self._left.move_to_end(msg_id)
        left = outputs.get(key, self.limit)
        if left >= len(text):
            outputs[key] = left - len(text)
            return text
        outputs[key] = -1
        return text[:left] + NOT_RECORDED if left >= 0 else ""

    def forget(self, msg_id: str) -> None:
        """Start counting a request's output again at 0, because its record is replaced or forgotten."""
        self._left.pop(msg_id, None)
