"""The command lines that start an engine of this hub and connect a client to it, for pages with nothing to show."""

from __future__ import annotations

import shlex

from ..runtime import RunningHub

__all__ = ["next_steps"]


def next_steps(hub: RunningHub) -> dict[str, str | None]:
    """Return the command that starts an engine, and the Python code that connects a client.

    Both name the connection files of this hub. They are None if the hub writes no files, since it has no profile
    directory.
    """
    engine, client = hub.engine_file, hub.client_file
    return {
        "engine": None if engine is None else f"trio-hub engine --file {shlex.quote(str(engine))}",
        "client": None if client is None else f"ipp.Client({str(client)!r})",
    }
