"""Actions on all tasks that a search finds, or on all tasks of a group of failures: abort, cancel and resubmit."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterable, Mapping, Sequence
from contextlib import aclosing
from typing import Any

import trio

from ..hub import cancelling
from ..runtime import RunningHub
from .tasks import Search
from .watching import Watch

__all__ = ["abort_found", "by_what", "cancel_found", "count_found", "resubmit_failures", "resubmit_found"]

SLICE = 500
"""The number of tasks that are searched, aborted or resubmitted at a time, so that the hub can work in between."""
AGAIN = {"completed": {"$ne": None}, "resubmitted": None}
"""The query for tasks that are resubmitted: finished tasks that nobody has resubmitted yet."""


def _queued(hub: RunningHub) -> list[str]:
    """Return the msg_ids of the tasks that no engine has, which are the tasks that can be aborted."""
    return [msg_id for msg_id, task in hub.core.tasks.scheduler.tasks.items() if task.worker is None]


def _unfinished(hub: RunningHub) -> list[str]:
    """Return the msg_ids of all requests that are not answered yet, in any queue. These can be cancelled.

    A gathered broadcast is one request: its shares are left out.
    """
    core = hub.core
    shares = core.broadcasts.unanswered.pending
    queues: tuple[Iterable[str], ...] = (
        core.intake.uncommitted,
        core.tasks.scheduler.tasks,
        core.direct.unanswered.pending,
        (msg_id for msg_id, share in shares.items() if share.broadcast is None),
        core.gathering.gathered,
    )
    return list(dict.fromkeys(msg_id for queue in queues for msg_id in queue))


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
    """Return how many tasks the actions on found tasks would concern now, by action. Raises `StoreError`."""
    abort = cancel = resubmit = 0
    async with aclosing(_matching(search, _queued(hub))) as parts:
        async for msg_ids in parts:
            abort += len(msg_ids)
    async with aclosing(_matching(search, _unfinished(hub))) as parts:
        async for msg_ids in parts:
            cancel += len(msg_ids)
    async with aclosing(_matching(search, await hub.core.store.history(), AGAIN)) as parts:
        async for msg_ids in parts:
            resubmit += len(msg_ids)
    return {"abort": abort, "cancel": cancel, "resubmit": resubmit}


async def abort_found(hub: RunningHub, search: Search) -> dict[str, Any]:
    """Abort the matching tasks that no engine has yet. Raises `StoreError`."""
    aborted: list[str] = []
    async with aclosing(_matching(search, _queued(hub))) as parts:
        async for msg_ids in parts:
            aborted += hub.abort(msg_ids)
    return {"aborted": aborted, "not_queued": []}


async def cancel_found(hub: RunningHub, search: Search, *, by: str, grace: float | None) -> dict[str, list[str]]:
    """Cancel the matching requests that are not answered yet, for `by`. Raises `StoreError`.

    Return what `by_what` returns. If `grace` is None, each request has the grace of its own rules.
    """
    done: dict[str, str] = {}
    async with aclosing(_matching(search, _unfinished(hub))) as parts:
        async for msg_ids in parts:
            done |= await hub.cancel(msg_ids, by=by, grace=grace)
    return by_what(done)


def by_what(done: Mapping[str, str]) -> dict[str, list[str]]:
    """Return the msg_ids of requests by what a cancel has done to each: withdrawn, interrupted, finished, unknown."""
    kinds = (cancelling.WITHDRAWN, cancelling.INTERRUPTED, cancelling.FINISHED, cancelling.UNKNOWN)
    return {kind: [msg_id for msg_id, what in done.items() if what == kind] for kind in kinds}


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
