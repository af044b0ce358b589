"""The loop of `Client.map`: calls for the items of iterables, a bounded number of them at a time."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any, TypeVar

import trio

from ..errors import RemoteError
from .calls import Calls, value_of
from .failing import FailingCalls
from .hubconnection import Pending
from .notifying import Engines
from .packing import pack_call, pack_function
from .rules import sent_rules

__all__ = ["mapped"]

T = TypeVar("T")

LEAST_IN_FLIGHT = 16
"""The least number of calls that `Client.map` keeps under way, however few engines there are."""
AT_ONCE = 16
"""The number of results that have arrived and that `Client.map` yields before other tasks have their turn."""


async def mapped(
    calls: Calls,
    engines: Engines,
    function: Callable[..., T],
    iterables: Sequence[Iterable[Any]],
    *,
    in_flight: int | None,
    ordered: bool,
    max_fails: int | None,
    rules: Mapping[str, Any],
) -> AsyncGenerator[T | RemoteError, None]:
    """Call a function on engines for each item, and yield the return values. See `Client.map`.

    Args:
        calls: starts and withdraws the calls.
        engines: the engines that the client knows. Their number is the measure of how many calls are under way.
        function, iterables, in_flight, ordered, max_fails, rules: the arguments of `Client.map`.
    """
    if in_flight is not None and in_flight < 1:
        raise ValueError(f"in_flight is {in_flight}: it must be at least 1")
    if max_fails is not None and max_fails < 1:
        raise ValueError(f"max_fails is {max_fails}: it must be at least 1")
    failing = None if max_fails is None else FailingCalls(max_fails)
    packed, said = pack_function(function), sent_rules(rules)
    limit = in_flight or max(LEAST_IN_FLIGHT, 4 * len(engines.uuids))
    items = zip(*iterables, strict=False)
    more = True
    under_way: dict[str, Pending] = {}
    taken = 0
    ended, next_ended = trio.open_memory_channel[Pending](limit)
    try:
        while True:
            while more and len(under_way) < limit:
                try:
                    args = next(items)
                except StopIteration:
                    more = False
                    break
                pending = calls.start(pack_call(packed, args, {}), rules=said)
                if failing is not None:
                    pending.on_end = failing.note if ordered else partial(_note_both, failing, ended)
                elif not ordered:
                    pending.on_end = ended.send_nowait
                under_way[pending.msg_id] = pending
            if not under_way:
                return
            pending = next(iter(under_way.values())) if ordered else await next_ended.receive()
            if pending.done and taken % AT_ONCE:
                await trio.lowlevel.checkpoint_if_cancelled()
                if failing is not None:
                    failing.check()
            elif failing is not None:
                await failing.wait(pending)
            else:
                await pending.wait()
            taken += 1
            del under_way[pending.msg_id]
            yield value_of(pending.outcome()) if failing is None else _value_or_error(pending)
    finally:
        calls.withdraw(under_way.values())


def _note_both(failing: FailingCalls, ended: trio.MemorySendChannel[Pending], pending: Pending) -> None:
    failing.note(pending)
    ended.send_nowait(pending)


def _value_or_error(pending: Pending) -> Any:
    try:
        return value_of(pending.outcome())
    except RemoteError as error:
        return error
