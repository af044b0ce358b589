"""How many calls of a map may fail, and what happens then."""

from __future__ import annotations

import trio

from ..errors import HubError, RemoteError
from .calls import content_of
from .hubconnection import Pending

__all__ = ["FailingCalls"]


class FailingCalls:
    """Counts the failed calls of one map, as they end.

    Args:
        most: the number of failures that ends the map, ``max_fails`` of `Client.map`.
    """

    def __init__(self, most: int) -> None:
        self._left = most
        self._error: RemoteError | None = None
        self._waiting: trio.CancelScope | None = None

    def note(self, pending: Pending) -> None:
        """Count a call that has ended, if it has failed. After too many failures, end `wait`."""
        try:
            content_of(pending.outcome())
        except RemoteError as error:
            self._left -= 1
            if not self._left:
                self._error = error
                if self._waiting is not None:
                    self._waiting.cancel()
        except HubError:  # there is no answer: the map fails in any case
            pass

    async def wait(self, pending: Pending) -> None:
        """Wait for the end of a call. Raises the `RemoteError` of the failure that was one too many."""
        with trio.CancelScope() as self._waiting:
            if self._error is None:
                await pending.wait()
        self._waiting = None
        self.check()

    def check(self) -> None:
        """Raise the `RemoteError` of the failure that was one too many, if there was one."""
        if self._error is not None:
            raise self._error
