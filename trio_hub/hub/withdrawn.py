"""Requests that a client has aborted before the hub has received them, or while they are on their way to the disk."""

from __future__ import annotations

from collections.abc import Iterable

__all__ = ["Withdrawn"]


class Withdrawn:
    """The msg_ids of aborted requests that no queue has yet.

    An abort comes on another channel than the request, and may overtake it. And the requests of a strict hub are on
    their way to the disk before a queue has them. So the hub notes each msg_id that no queue knows, and aborts the
    request when it comes. The hub also notes the msg_ids of finished requests, since it cannot tell them apart.

    Args:
        limit: the maximum number of msg_ids that are kept. The oldest are forgotten first.
    """

    def __init__(self, limit: int = 10_000) -> None:
        self._limit = limit
        self.msg_ids: dict[str, None] = {}

    def __len__(self) -> int:
        return len(self.msg_ids)

    def note(self, msg_ids: Iterable[str]) -> None:
        """Note msg_ids that a client has aborted."""
        noted = self.msg_ids
        noted.update(dict.fromkeys(msg_ids))
        surplus = len(noted) - self._limit
        if surplus > 0:
            self.msg_ids = dict.fromkeys(list(noted)[surplus:])

    def take(self, msg_id: str) -> bool:
        """Return whether this request was aborted, and forget the abort: a client may send the request once more."""
        return self.msg_ids.pop(msg_id, self) is None
