"""Questions to a task database. The answers include the pending changes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import TypeVar

from ..logs import get_logger
from .backend import Backend, Reader
from .layers import Changes
from .readers import OWN_READERS, USERS_READERS, ReaderPool
from .writer import Writer

__all__ = ["Questions"]

log = get_logger("trio_hub.runtime")

T = TypeVar("T")


class Questions:
    """Asks a backend while its writer goes on. Each answer is about one moment.

    Users' queries and the hub's own questions have separate readers, so that users' queries never delay the hub.

    Args:
        backend: The database.
        writer: Knows the pending changes, and the batch in which each layer was written.
    """

    def __init__(self, backend: Backend, writer: Writer) -> None:
        self._writer = writer
        self._users = ReaderPool(backend, USERS_READERS)
        self._own = ReaderPool(backend, OWN_READERS)

    async def of_users(self, work: Callable[[Sequence[Changes], Reader], T]) -> T:
        """Run ``work`` in a thread for a user's query, and return its result.

        ``work`` gets the pending changes that the reader does not see, and a reader that has begun.

        Raises:
            StoreError: The database cannot be read now, or the store is closed meanwhile.
        """
        return await self._ask(self._users, work)

    async def of_the_hub(self, work: Callable[[Sequence[Changes], Reader], T]) -> T:
        """Like `of_users`, but for the hub's own questions."""
        return await self._ask(self._own, work)

    async def _ask(self, readers: ReaderPool, work: Callable[[Sequence[Changes], Reader], T]) -> T:
        async with readers.slots:
            async with self._writer.still:
                self._writer.refuse_if_closed()
                layers = await self._writer.pending_layers()
                reader, seen = await readers.begin()
                unseen = [layer.changes for layer in layers if layer.batch is None or layer.batch > seen]
            return await readers.answer(reader, partial(work, unseen))

    async def stop(self) -> None:
        """Interrupt all questions, and wait for their end for a limited time. The writer must be closed before."""
        left = await self._users.stop() + await self._own.stop()
        if left:
            log.error("questions to the task database were given up", questions=left)

    def close(self) -> None:
        """Close the idle readers. Call this in a thread, after `stop`."""
        self._users.close()
        self._own.close()
