"""Background tasks for the length of a block of code."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import trio

__all__ = ["serving"]


@asynccontextmanager
async def serving() -> AsyncGenerator[trio.Nursery, None]:
    """Give a nursery for background tasks of the block. The tasks are cancelled when the block ends.

    A single error is raised as it is. Several errors are raised in a group.
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
        context = error.__context__
        try:
            raise error
        finally:
            error.__context__ = context  # not the group, with which IPython shows no traceback of its own
