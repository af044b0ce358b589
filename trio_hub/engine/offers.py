"""What an engine offers to tasks with needs, and how long it will be there: from its options and its environment."""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping
from contextlib import suppress

__all__ = ["offers", "seconds_left"]

MEMORY_UNIT = 2**28
"""The memory that is offered is a multiple of this number of bytes, so that machines of one model offer the same."""


def offers(tags: Mapping[str, str], environ: Mapping[str, str] = os.environ) -> dict[str, str | float]:
    """Return the tags and amounts that an engine offers. An amount is what this process may use on its machine.

    - ``host``: the name of the machine;
    - ``cores``: the CPU cores; in a Slurm job, those of each task (``SLURM_CPUS_PER_TASK``) if Slurm says that;
    - ``memory``: bytes; in a Slurm job, at most what Slurm gives it on each node;
    - ``gpu``: the devices in ``CUDA_VISIBLE_DEVICES``, if this is set and names any;
    - ``partition``: the partition of the Slurm job.

    Args:
        tags: further tags and amounts. They take the place of others with their names; an empty text removes one.
        environ: the environment of the process.
    """
    cores = _whole(environ, "SLURM_CPUS_PER_TASK") or len(os.sched_getaffinity(0))
    found: dict[str, str | float] = {"host": environ.get("SLURMD_NODENAME") or socket.gethostname(), "cores": cores}
    memory = _memory(environ)
    if memory:
        found["memory"] = max(memory // MEMORY_UNIT, 1) * MEMORY_UNIT
    gpus = _gpus(environ.get("CUDA_VISIBLE_DEVICES", ""))
    if gpus:
        found["gpu"] = gpus
    if partition := environ.get("SLURM_JOB_PARTITION"):
        found["partition"] = partition
    return {name: value for name, value in (found | dict(tags)).items() if value != ""}


def seconds_left(now: float, environ: Mapping[str, str] = os.environ) -> float | None:
    """Return how long the Slurm job of this process will last, in seconds; None without a job, or without its end.

    Args:
        now: the time, in seconds since 1970.
        environ: the environment of the process.
    """
    end = _whole(environ, "SLURM_JOB_END_TIME")
    return max(float(end - now), 0.0) if end else None


def _memory(environ: Mapping[str, str]) -> int:
    """Return the bytes of memory that this process may use; 0 if unknown."""
    limits = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    megabytes = _whole(environ, "SLURM_MEM_PER_NODE")
    per_cpu, cpus = _whole(environ, "SLURM_MEM_PER_CPU"), _whole(environ, "SLURM_CPUS_ON_NODE")
    limits += [limit * 2**20 for limit in (megabytes, per_cpu * cpus) if limit]
    with suppress(OSError, ValueError), open("/sys/fs/cgroup/memory.max") as file:  # the limit of a container
        limits.append(int(file.read()))
    return min((limit for limit in limits if limit > 0), default=0)


def _gpus(devices: str) -> int:
    """Return the number of devices that CUDA sees: those before the first one that does not exist."""
    number = 0
    for device in devices.split(","):
        if device.strip() in ("", "-1", "NoDevFiles"):
            break
        number += 1
    return number


def _whole(environ: Mapping[str, str], name: str) -> int:
    """Return the number above 0 in a variable; 0 if there is none."""
    text = environ.get(name, "")
    return int(text) if text.isascii() and text.isdigit() else 0
