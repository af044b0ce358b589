"""Services: tasks that run beside a hub's core, and may fail without ending the hub.

Retention of records, the engine state file, the dashboard and the like are services. If a service raises an unexpected
exception, the error is logged with its traceback and counted, and the service is started again. The hub's sockets and
their receiver are no services, since the hub cannot work without them: an error there ends the hub.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import TypeAlias

import trio

from .logs import get_logger

__all__ = ["FIRST_PAUSE", "LONGEST_PAUSE", "Failures", "failed", "going_on", "keep_running"]

log = get_logger("trio_hub.runtime")

FIRST_PAUSE, LONGEST_PAUSE = 1.0, 60.0
"""Seconds between a service's failure and its new start: the first pause and the longest.

Each pause is twice the last.
"""

Failures: TypeAlias = Counter[str]
"""The number of failures of each service of a hub, by the service's name."""


async def keep_running(
    name: str, service: Callable[[], Awaitable[None]], failures: Failures, *, longest_pause: float = LONGEST_PAUSE
) -> None:
    """Run a service until it returns or is cancelled. If it raises, start it anew after a pause.

    A service that has run for longer than `LONGEST_PAUSE` begins with the first pause again.

    Args:
        name: The name of the service, for the log and the count.
        service: Called for each start.
        failures: Counts the failures.
        longest_pause: Seconds between a failure and the new start, at most.
    """
    pause = FIRST_PAUSE
    while True:
        began = trio.current_time()
        try:
            await service()
            return
        except* Exception as group:  # except*: a cancellation that comes together with an error is raised again
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
    """Run one step of a service in a ``with`` block. If the step raises, log and count the error, and go on."""
    try:
        yield
    except Exception as error:
        failed(name, error, failures)


def failed(name: str, error: Exception, failures: Failures, *, told: bool = False) -> None:
    """Count the failure of one step of a service, which goes on. Log the failure, unless it was ``told`` before."""
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
    """Return the only error in a group, at any depth; else the error itself."""
    while isinstance(error, ExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    return error
