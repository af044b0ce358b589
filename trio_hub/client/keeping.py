"""Watches the connection to a hub and, when the hub is back, finds out what became of earlier requests.

A request that the hub knows is never sent twice. A request that the hub does not know was lost with the previous hub. A
load-balanced task is then sent again, since tasks are carried out at least once. A direct request fails.
"""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import trio

from ..errors import HubError, RequestLostError
from .hubconnection import HubConnection, HubReply, Pending
from .notifying import Engines

__all__ = ["keep", "learn_engines"]

ASKED_AT_A_TIME = 100
"""The maximum number of requests that one query to the hub asks about."""
GREETING = 5.0
"""Seconds within which a hub must answer a greeting on the direct channel. An ipcontroller does not answer at all."""


async def keep(link: HubConnection, engines: Engines, lost_after: float) -> None:
    """Watch the connection until cancelled. A hub that is silent for `lost_after` seconds is lost until it answers."""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_watch, link, engines, lost_after)
        nursery.start_soon(_come_back, link, engines)


async def learn_engines(link: HubConnection, engines: Engines) -> None:
    """Ask the hub which engines there are. Raises `HubLostError`."""
    heard = engines.heard
    reply = await link.ask("registration", "connection_request", {}).wait()
    _compare(reply, engines, heard)


def _compare(reply: HubReply, engines: Engines, heard: int) -> None:
    """Update the engines from a reply, except those for which a notification has come since the question."""
    found = reply.content.get("engines")
    if isinstance(found, dict):
        engines.replace({int(id): str(uuid) for id, uuid in found.items()}, heard)


async def _watch(link: HubConnection, engines: Engines, lost_after: float) -> None:
    """Ask the hub for its engines, again and again, to notice a lost hub and missed notifications."""
    while True:
        heard = engines.heard
        ping = link.ask("registration", "connection_request", {}, though_lost=True)
        with trio.move_on_after(lost_after) as scope, suppress(HubError):
            _compare(await ping.wait(), engines, heard)
        if scope.cancelled_caught:
            link.give_up(ping)
            link.lose(
                f"the hub at {link.address.url('registration')} has not answered for {lost_after:g} s: has it stopped? "
                "The client keeps trying. A hub that is started with --restore carries on with the requests"
            )
            continue
        if link.lost is not None:
            link.found()
        await trio.sleep(lost_after / 4)


async def _come_back(link: HubConnection, engines: Engines) -> None:
    """Whenever a socket has connected, ask for missed changes; if it has connected again, recover earlier requests."""
    while True:
        await link.returned.wait()
        link.returned = trio.Event()
        with suppress(HubError):
            if any(number > 1 for number in link.handshakes.values()):
                await _recover(link, engines)
            else:  # notifications may have been missed until now
                await learn_engines(link, engines)


async def _recover(link: HubConnection, engines: Engines) -> None:
    work: dict[str, Pending] = {}
    for pending in link.interrupted():
        if pending.channel in ("task", "mux"):
            work[pending.msg_id] = pending
        elif pending.repeatable:
            link.ask_again(pending)
        else:
            link.end(pending, RequestLostError("the connection to the hub broke: this may have been done, or not"))
    # This request names no engine. By it the hub recognises this client, and sends the results that it owes to it. When
    # the hub answers, it has received all earlier requests.
    greeting = link.ask("mux", "apply_request", {})
    with trio.move_on_after(GREETING), suppress(HubError):
        await greeting.wait()
    link.give_up(greeting)
    await learn_engines(link, engines)
    msg_ids = [msg_id for msg_id, pending in work.items() if not pending.done]
    for start in range(0, len(msg_ids), ASKED_AT_A_TIME):
        await _sort_out(link, work, msg_ids[start : start + ASKED_AT_A_TIME])


async def _sort_out(link: HubConnection, work: dict[str, Pending], msg_ids: list[str]) -> None:
    """End the requests whose results the hub has. Send again, or fail, the requests that the hub does not know."""
    reply = await _results(link, msg_ids, status_only=True)
    if reply.content.get("status") == "ok":
        for msg_id in reply.content.get("completed") or ():
            if msg_id in work and not work[msg_id].done:
                result = await _results(link, [msg_id], status_only=False)
                content = (result.content.get(msg_id) or {}).get("result_content")
                if isinstance(content, dict):
                    link.end(work[msg_id], HubReply(content, result.buffers))
    elif len(msg_ids) > 1:  # one of them is unknown
        middle = len(msg_ids) // 2
        await _sort_out(link, work, msg_ids[:middle])
        await _sort_out(link, work, msg_ids[middle:])
    elif reply.content.get("ename") == "KeyError":
        pending = work[msg_ids[0]]
        if pending.done or pending.msg_id not in link.pending:
            return
        if pending.repeatable:
            link.ask_again(pending)
        else:
            error = (
                f"the hub was started again, and does not know {pending.msg_id}, which may have been carried out, or "
                "not. A trio-hub that is started with --restore knows earlier requests; an ipcontroller never does"
            )
            link.end(pending, RequestLostError(error))


async def _results(link: HubConnection, msg_ids: list[str], *, status_only: bool) -> HubReply:
    content: dict[str, Any] = {"msg_ids": msg_ids, "status_only": status_only}
    return await link.ask("registration", "result_request", content).wait()
