"""An engine's life, to be read from top to bottom."""

from __future__ import annotations

from collections.abc import Callable

import trio

from ..config import HubConfig
from ..hub import EngineConnector, EngineState, Hub

__all__ = ["engine_life", "reach_engine"]


async def engine_life(
    hub: Hub,
    engine: EngineConnector,
    config: HubConfig,
    *,
    drain_pongs: Callable[[], object],
    changed: Callable[[], None],
) -> None:
    """From the registration's reply until nothing of the engine is left.

    ``engine.scope`` is the cancel scope of the station it is at: first the stalled-registration timeout, which
    its first heartbeat cancels; then its life, which losing it cancels.
    """
    if engine.state is EngineState.REGISTERING:  # else its heart was quicker than this task
        with trio.move_on_after(config.registration_timeout_seconds) as engine.scope:
            await trio.sleep_forever()
    drain_pongs()  # its first heartbeat may be waiting to be handled
    if engine.state is EngineState.REGISTERING:
        hub.purge_stalled_registration(engine)
    if engine.state is EngineState.STALLED:
        return
    changed()
    if engine.state is EngineState.ALIVE:
        with trio.CancelScope() as engine.scope:
            await trio.sleep_forever()
    changed()
    if hub.owes_answers(engine):
        await trio.sleep(config.stranded_grace)  # results that are on their way may still come in
    hub.handle_stranded(engine)


async def reach_engine(hub: Hub, engine: EngineConnector, config: HubConfig) -> None:
    """Deliver what could not be sent, as soon as the engine's connection is open.

    A heart can be heard before the engine's other connections are open, and ZeroMQ tells nobody when they are;
    so this asks, ever less often. An engine that stays out of reach for as long as a new one has for its first
    heartbeat is lost, whatever its heart does.
    """
    delay = 0.002
    with trio.move_on_after(config.registration_timeout_seconds):
        while not hub.flush_parked(engine):
            await trio.sleep(delay)
            delay = min(delay * 1.5, 0.25)
        return
    hub.lose_engine(engine, "unreachable")
