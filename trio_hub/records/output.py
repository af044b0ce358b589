"""How much of the output of a request is recorded: the same for all backends."""

from __future__ import annotations

from collections import OrderedDict

from .record import TEXT_KEYS

__all__ = ["MAX_OUTPUT", "NOT_RECORDED", "OutputLimit"]

MAX_OUTPUT = 16 * 2**20
"""Characters of ``stdout``, and of ``stderr``, that are recorded of one request."""
NOT_RECORDED = "\n[trio_hub: the rest of the output was not recorded]\n"
"""What a record says in the place of the rest."""
_REMEMBERED = 10_000
"""Requests whose lengths of output are remembered, those that have printed last. Others are counted anew."""


class OutputLimit:
    """Cuts the output of each request that is appended to its record.

    Args:
        limit: characters of ``stdout``, and of ``stderr``, of each request.
    """

    def __init__(self, limit: int = MAX_OUTPUT) -> None:
        self.limit = limit
        # By msg_id and key, the characters still to be recorded, -1 after the note; who has printed last is at the end.
        self._left: OrderedDict[str, dict[str, int]] = OrderedDict()

    def recorded(self, msg_id: str, key: str, text: str) -> str:
        """Return what is to be appended to a record instead of this text: all of it, its beginning, or nothing.

        Raises `AttributeError` for a key that is not ``stdout`` or ``stderr``.
        """
        if key not in TEXT_KEYS:
            raise AttributeError(f"{key!r} is not text to append to")
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
        """A record is replaced or forgotten: its output begins anew."""
        self._left.pop(msg_id, None)
