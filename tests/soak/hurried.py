"""``trio-hub`` with short periods for checking connections, so that a soak can have many cuts per minute."""

from __future__ import annotations

from trio_hub.cli import main
from trio_hub.runtime import connections, engine, factory, heartbeat


def hurry() -> None:
    """Shorten the periods that are not settings, so that steps that take a minute in other hubs take seconds."""
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
