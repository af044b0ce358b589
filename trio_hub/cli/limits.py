"""The limit on open files, which limits the number of engines."""

from __future__ import annotations

from ..logs import get_logger

__all__ = ["DESCRIPTORS_PER_ENGINE", "engines_within", "open_files_limit", "raise_open_files_limit"]

log = get_logger("trio_hub.cli")

DESCRIPTORS_PER_ENGINE = 8
"""The connections of a stock engine: registration, two for the heartbeat, mux, task, control, broadcast, iopub."""
DESCRIPTORS_OF_THE_HUB = 100
"""An estimate of the hub's other descriptors: listening sockets, ZeroMQ's own descriptors, and a few clients."""


def engines_within(open_files: int) -> int:
    """Return an estimate of the number of engines that are possible with this limit on open files."""
    return max(0, (open_files - DESCRIPTORS_OF_THE_HUB) // DESCRIPTORS_PER_ENGINE)


def open_files_limit() -> int | None:
    """Return the number of files that this process may open at most, after it has raised its own limit; None: any."""
    try:
        import resource
    except ImportError:  # systems without such limits
        return None
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    return None if hard == resource.RLIM_INFINITY else hard


def raise_open_files_limit() -> None:
    """Raise the soft limit on open files to the hard limit, and log the number of engines that it allows."""
    try:
        import resource
    except ImportError:  # systems without such limits
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        except (OSError, ValueError) as error:  # some systems report a higher limit than they allow
            log.warning("the limit on open files cannot be raised", limit=soft, error=error)
        else:
            soft = hard
    if soft == resource.RLIM_INFINITY:
        log.info("the number of open files has no limit")
    else:
        log.info("the limit on open files bounds the number of engines", limit=soft, engines=engines_within(soft))
