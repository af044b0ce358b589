"""The life of an engine, as one function, and the task that reaches an engine on a channel."""

from __future__ import annotations

from collections.abc import Callable

import trio

from ..config import HubConfig
from ..hub import EngineConnector, EngineState, Hub

__all__ = ["engine_life", "reach_engine"]

RELEASE = 0.05
"""Seconds from the end of an engine's connection to the question on the next one. Engines reconnect after 0.1 s."""
RETRY = 2.0
"""Seconds that an engine whose heart beats may be unreachable before the hub closes connections that may be ignored."""
CONTROL_LIMIT = 5.0
"""Seconds that an engine's control channel may be out of reach before the control requests that wait fail."""
ANSWER, MAX_PAUSE = 10.0, 300.0
"""Seconds until the hub repeats a question that an engine has not answered: the first pause and the longest."""


async def engine_life(
    hub: Hub,
    engine: EngineConnector,
    config: HubConfig,
    *,
    drain_pongs: Callable[[], object],
    changed: Callable[[], None],
) -> None:
    """Live an engine's life, from the registration's reply until the engine is settled.

    ``engine.scope`` is first the cancel scope of the registration timeout, which the first heartbeat cancels; then the
    cancel scope of the engine's life, which the loss of the engine cancels; then the cancel scope of its grace. An
    engine that comes back after that has a new life.
    """
    if engine.state is EngineState.REGISTERING:  # else its heart was heard before this task ran
        with trio.move_on_after(config.registration_timeout_seconds) as engine.scope:
            await trio.sleep_forever()
    drain_pongs()  # its first heartbeat may be waiting to be handled
    if engine.state is EngineState.REGISTERING:
        hub.purge_stalled_registration(engine)
    if engine.state is EngineState.STALLED:
        return
    changed()
    if engine.state.is_registered:
        with trio.CancelScope() as engine.scope:
            await trio.sleep_forever()
    changed()
    if engine.state is EngineState.LOST and hub.owes_answers(engine):
        with trio.move_on_after(config.stranded_grace) as engine.scope:
            await trio.sleep_forever()  # results that are on their way may still come in
    hub.handle_stranded(engine)


async def reach_engine(
    hub: Hub,
    engine: EngineConnector,
    channel: str,
    config: HubConfig,
    retry: Callable[[str, str | None], object],
) -> None:
    """Send the messages that wait for an engine on a channel, as soon as its connection is open.

    A heart can be heard before the engine's other connections are open, and ZeroMQ does not report when they open. So
    this task tries again and again, with growing pauses. An engine that cannot be reached for `registration_timeout` is
    lost, whatever its heart does. If only its control channel cannot be reached, for `CONTROL_LIMIT`, the control
    requests that wait fail, and the engine goes on working.

    Args:
        retry: closes the connections of a channel on which nothing was received, from one address or from all. The
            engine's connection may be among them, see `trio_hub.runtime.connections`.
    """
    limit = config.registration_timeout_seconds
    pause, silent = ANSWER, 0.0
    while (route := engine.routes.get(channel)) is not None:
        with trio.move_on_after(min(limit, CONTROL_LIMIT) if channel == "control_out" else limit) as scope:
            if route.suspect and route.question is None:
                # ZeroMQ tells that a connection has ended a moment before it lets go of it. A question that was sent at
                # once would be lost with that connection.
                await trio.sleep(RELEASE)
            delay, retry_at = 0.002, trio.current_time() + RETRY
            while not hub.flush_route(engine, channel):
                await trio.sleep(delay)
                delay = min(delay * 1.5, 0.25)
                if trio.current_time() > retry_at:
                    retry(channel, engine.host)
                    retry_at += 4 * RETRY
        if scope.cancelled_caught or silent > limit:
            give_up(hub, engine, channel, limit)
            return
        # The connected peer was asked to prove that it is the engine. An engine answers after it has carried out its
        # earlier requests; if it has none, it answers soon.
        question = route.question
        if engine.routes.get(channel) is route and question is not None:
            with trio.move_on_after(pause) as route.scope:
                await trio.sleep_forever()
            if route.question == question:
                silent = 0.0 if engine.pending else silent + pause
                pause = min(2 * pause, MAX_PAUSE)
                retry(channel, None)
                hub.engine_connection_lost(engine, channel)


def give_up(hub: Hub, engine: EngineConnector, channel: str, seconds: float) -> None:
    """Give up an engine that cannot be reached on a channel; or only its control channel, if it is that channel.

    A gone engine, which was asked whether it is back, is asked again when its heart is heard the next time.
    """
    if channel == "control_out":
        hub.give_up_control(engine)
    elif engine.state.is_registered:
        hub.lose_engine(engine, "unreachable", f"no message has reached it for {seconds:g} s, though its heart beats")
    else:
        hub.routes.close_route(engine, channel)
