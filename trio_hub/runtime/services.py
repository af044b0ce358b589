"""Services: what runs beside a hub's core, and may fail without ending the hub.

Retention of records, the engine state file, the dashboard and the like each run behind a boundary of their own. If a
service raises what nobody expected, the error is logged with its traceback and counted, and the service is started
anew. What the hub cannot live without, its sockets and their receiver, is no service: a failure there ends the hub.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import TypeAlias

import trio

from ..logs import get_logger

__all__ = ["FIRST_PAUSE", "LONGEST_PAUSE", "Failures", "failed", "going_on", "keep_running"]

log = get_logger("trio_hub.runtime")

FIRST_PAUSE, LONGEST_PAUSE = 1.0, 60.0
"""Seconds between a service's failure and its new start: at first, and at most. Each pause is twice the one before."""

Failures: TypeAlias = Counter[str]
"""How often each service of a hub has failed, by its name."""


async def keep_running(
    name: str, service: Callable[[], Awaitable[None]], failures: Failures, *, longest_pause: float = LONGEST_PAUSE
) -> None:
    """Run a service until it returns or is cancelled. If it raises, start it anew after a pause.

    A service that has run for longer than `LONGEST_PAUSE` begins with the first pause again.

    Args:
        name: Of the service, for the log and the count.
        service: Called for each start.
        failures: Where each failure is counted.
        longest_pause: Seconds between a failure and the new start, at most.
    """
    pause = FIRST_PAUSE
    while True:
        began = trio.current_time()
        try:
            await service()
            return
        except* Exception as group:  # so that a cancellation that comes together with an error goes on
            if trio.current_time() - began > LONGEST_PAUSE:
                pause = FIRST_PAUSE
            pause = min(pause, longest_pause)
            error = _single(group)
            failures[name] += 1
            log.error(
                "a service has failed, and is started anew",
                service=name,
                failures=failures[name],
                seconds=pause,
                error=error,
                exc_info=error,
            )
        await trio.sleep(pause)
        pause *= 2


@contextmanager
def going_on(name: str, failures: Failures) -> Iterator[None]:
    """Carry out one step of a service in a ``with`` block. If the step raises, tell and count that, and go on."""
    try:
        yield
    except Exception as error:
        failed(name, error, failures)


def failed(name: str, error: Exception, failures: Failures, *, told: bool = False) -> None:
    """Count that a step of a service has failed; log it, unless that was ``told`` before. The service goes on."""
    failures[name] += 1
    if not told:
        error = _single(error)
        log.error(
            "a service has failed, and goes on",
            kind=name,  # it may fail as often as something happens
            service=name,
            failures=failures[name],
            error=error,
            exc_info=error,
        )


def _single(error: Exception) -> Exception:
    """The only error in a group, at whatever depth; else the error itself."""
    while isinstance(error, ExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    return error
