"""What an engine and its machine use, as engines of this project report it."""

from __future__ import annotations

from typing import Any

import msgspec

from ..errors import WireError
from ..wire.plain import printable

__all__ = ["USAGE", "EngineUsage", "usage_in"]

USAGE = "engine_usage"
"""The type of a report, which an engine publishes on iopub if its hub has asked for it."""
MAX_HOST = 100
"""Characters of the name of a machine. The rest is cut off."""


class EngineUsage(msgspec.Struct, frozen=True, gc=False):
    """A report of an engine. A value is None if the engine does not know it.

    - ``cpu``: the cores that the engine's process uses; ``rss``: its resident memory in bytes;
    - ``host``: the name of the engine's machine; ``host_cpu``: the part of all its cores in use, from 0 to 1;
      ``host_cores``: their number; ``host_memory``, ``host_memory_total``: bytes of memory in use, and of all memory.
    """

    cpu: float | None = None
    rss: int | None = None
    host: str | None = None
    host_cpu: float | None = None
    host_cores: int | None = None
    host_memory: int | None = None
    host_memory_total: int | None = None


def usage_in(content: dict[str, Any]) -> EngineUsage:
    """Return the report in the content of a message. Raises `WireError`."""
    try:
        usage = msgspec.convert(content, EngineUsage)
    except msgspec.ValidationError as error:
        raise WireError("wrong_type", f"a report of an engine's usage: {error}") from None
    return msgspec.structs.replace(usage, host=None if usage.host is None else printable(usage.host[:MAX_HOST]))
