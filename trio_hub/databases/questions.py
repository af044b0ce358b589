"""Questions to a task database: what it has, with what is still pending laid over it."""

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
    """Asks a backend, each time about one moment, while its writer goes on.

    Users and the hub itself have readers of their own, so that users' questions never hold up the hub.

    Args:
        backend: The database.
        writer: Knows what is pending, and in which batch it was written.
    """

    def __init__(self, backend: Backend, writer: Writer) -> None:
        self._writer = writer
        self._users = ReaderPool(backend, USERS_READERS)
        self._own = ReaderPool(backend, OWN_READERS)

    async def of_users(self, work: Callable[[Sequence[Changes], Reader], T]) -> T:
        """Return what ``work`` finds for a user, in a thread.

        The work gets a reader that has begun, and the pending changes that this reader does not see.

        Raises:
            StoreError: The database cannot be read now, or the store is closed meanwhile.
        """
        return await self._ask(self._users, work)

    async def of_the_hub(self, work: Callable[[Sequence[Changes], Reader], T]) -> T:
        """Do what `of_users` does, for the hub itself."""
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
        """Interrupt all questions, and wait for their end, but not for long. Nobody may ask after that."""
        async with self._users.nobody_else() as asking, self._own.nobody_else() as asking_itself:
            if asking or asking_itself:
                log.error("questions to the task database were given up", questions=asking + asking_itself)

    def close(self) -> None:
        """Close the readers that nobody uses. Called in a thread, after `stop`."""
        self._users.close()
        self._own.close()
