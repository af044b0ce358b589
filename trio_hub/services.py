"""Services: tasks that run beside a hub's core, and may fail without ending the hub.

Retention of records, the engine state file, the dashboard and the like are services. If a service raises an unexpected
exception, the error is logged with its traceback and counted, and the service is started again. The hub's sockets and
their receiver are not services, since the hub cannot work without them: an error there ends the hub.
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
"""Seconds between a service's failure and its next start: the first pause and the longest.

Each pause is twice the last.
"""

Failures: TypeAlias = Counter[str]
"""The number of failures of each service of a hub, by the service's name."""


async def keep_running(
    name: str, service: Callable[[], Awaitable[None]], failures: Failures, *, longest_pause: float = LONGEST_PAUSE
) -> None:
    """Run a service until it returns or is cancelled. If it raises an error, start it again after a pause.

    If the service has run for longer than `LONGEST_PAUSE`, the next pause is the first one again.

    Args:
        name: The name of the service, for the log and the count.
        service: The function that is called for each start.
        failures: Counts the failures.
        longest_pause: The longest pause, in seconds.
    """
    pause = FIRST_PAUSE
    while True:
        began = trio.current_time()
        try:
            await service()
            return
        except* Exception as group:  # except*: a cancellation beside the error is raised again
            if trio.current_time() - began > LONGEST_PAUSE:
                pause = FIRST_PAUSE
            pause = min(pause, longest_pause)
            error = _single(group)
            failures[name] += 1
            log.error(
                "a service has failed, and is started again after a pause",
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
    """Count the failure of one step of a service that goes on. Log it, unless it was logged before (``told``)."""
    failures[name] += 1
    if not told:
        error = _single(error)
        log.error(
            "a service has failed, and goes on",
            kind=name,  # limits how often this is logged: a step may fail many times a second
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
