"""``trio-hub``, whose connections are checked every few hundred milliseconds, so that a soak has many cuts a minute."""

from __future__ import annotations

from trio_hub.cli import main
from trio_hub.runtime import connections, engine, factory, heartbeat


def hurry() -> None:
    """Shorten the periods that are no settings. What takes a minute in other hubs takes seconds in this one."""
    factory.CONNECTION_PING = 0.3
    factory.LEAST_SILENCE = 0.5
    heartbeat.SILENT_SECONDS = 0.3
    engine.RETRY = 0.3
    engine.ANSWER = 0.5
    engine.CONTROL_LIMIT = 1.0
    connections.PAUSE = 0.1


if __name__ == "__main__":
    hurry()
    main(prog_name="trio-hub")
