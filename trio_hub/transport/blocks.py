"""Tasks that serve a block of code, and end with it."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import trio

__all__ = ["serving"]


@asynccontextmanager
async def serving() -> AsyncGenerator[trio.Nursery, None]:
    """A nursery of those who serve the block: they are cancelled when it ends.

    The one error that ended it comes out as it is; several come out in a group.
    """
    try:
        async with trio.open_nursery() as nursery:
            try:
                yield nursery
            finally:
                nursery.cancel_scope.cancel()
    except BaseExceptionGroup as group:
        error: BaseException = group
        while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
            error = error.exceptions[0]
        if error is group:
            raise
        raise error from error.__cause__
