"""Actions on all tasks that a search finds, or on all tasks of a group of failures: abort and resubmit."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from typing import Any

import trio

from ..runtime import RunningHub
from .tasks import Search
from .watching import Watch

__all__ = ["abort_found", "count_found", "resubmit_failures", "resubmit_found"]

SLICE = 500
"""The number of tasks that are searched, aborted or resubmitted at a time, so that the hub can work in between."""
AGAIN = {"completed": {"$ne": None}, "resubmitted": None}
"""The query for tasks that are resubmitted: finished tasks that nobody has resubmitted yet."""


def _queued(hub: RunningHub) -> list[str]:
    """Return the msg_ids of the tasks that no engine has, which are the tasks that can be aborted."""
    return [msg_id for msg_id, task in hub.core.tasks.scheduler.tasks.items() if task.worker is None]


async def _matching(
    search: Search, msg_ids: Sequence[str], only: dict[str, Any] | None = None
) -> AsyncGenerator[list[str], None]:
    """Yield the msg_ids that match a search, in the given order, in lists of at most `SLICE`."""
    for start in range(0, len(msg_ids), SLICE):
        await trio.lowlevel.checkpoint()
        found = await search.among(msg_ids[start : start + SLICE], only)
        if found:
            yield found


async def count_found(hub: RunningHub, search: Search) -> dict[str, int]:
    """Return how many tasks `abort_found` and `resubmit_found` would abort and resubmit now. Raises `StoreError`."""
    abort = resubmit = 0
    async with aclosing(_matching(search, _queued(hub))) as parts:
        async for msg_ids in parts:
            abort += len(msg_ids)
    async with aclosing(_matching(search, await hub.core.store.history(), AGAIN)) as parts:
        async for msg_ids in parts:
            resubmit += len(msg_ids)
    return {"abort": abort, "resubmit": resubmit}


async def abort_found(hub: RunningHub, search: Search) -> dict[str, Any]:
    """Abort the matching tasks that no engine has yet. Raises `StoreError`."""
    aborted: list[str] = []
    async with aclosing(_matching(search, _queued(hub))) as parts:
        async for msg_ids in parts:
            aborted += hub.abort(msg_ids)
    return {"aborted": aborted, "not_queued": []}


async def resubmit_found(hub: RunningHub, search: Search) -> dict[str, Any]:
    """Resubmit the matching finished tasks that were not resubmitted yet. Raises `StoreError`."""
    return await _resubmit(hub, search, await hub.core.store.history())


async def resubmit_failures(hub: RunningHub, watch: Watch, number: int) -> dict[str, Any]:
    """Resubmit the failed tasks of a group that were not resubmitted yet.

    Raises:
        KeyError: There is no such group.
        StoreError: The database cannot be read.
    """
    return await _resubmit(hub, Search(hub, watch), watch.failures.msg_ids(number))


async def _resubmit(hub: RunningHub, search: Search, msg_ids: Sequence[str]) -> dict[str, Any]:
    resubmitted: dict[str, str] = {}
    refused: list[str] = []
    async with aclosing(_matching(search, msg_ids, AGAIN)) as parts:
        async for part in parts:
            try:
                resubmitted |= await hub.resubmit(part)
            except KeyError:  # the hub has resubmitted none of them, since it cannot resubmit one of them
                for msg_id in part:
                    try:
                        resubmitted |= await hub.resubmit([msg_id])
                    except KeyError as error:
                        refused.append(str(error.args[0]))
    return {"resubmitted": resubmitted, "refused": refused}
