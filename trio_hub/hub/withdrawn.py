"""Requests that a client has aborted before the hub has received them, or while they are on their way to the disk."""

from __future__ import annotations

from collections.abc import Iterable

from ..errors import HubError, TaskAborted
from ..schedulers.tasks import NOT_BEGUN

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
        self.msg_ids: dict[str, HubError | None] = {}

    def __len__(self) -> int:
        return len(self.msg_ids)

    def note(self, msg_ids: Iterable[str], error: HubError | None = None) -> None:
        """Note msg_ids that a client has aborted or cancelled. ``error`` is the answer; None for `TaskAborted`."""
        noted = self.msg_ids
        noted.update(dict.fromkeys(msg_ids, error))
        surplus = len(noted) - self._limit
        if surplus > 0:
            self.msg_ids = dict(list(noted.items())[surplus:])

    def take(self, msg_id: str) -> HubError | None:
        """Return the answer to this request if it was aborted or cancelled, else None.

        The abort is forgotten: a client may send the request once more.
        """
        if msg_id not in self.msg_ids:
            return None
        return self.msg_ids.pop(msg_id) or TaskAborted(NOT_BEGUN)
