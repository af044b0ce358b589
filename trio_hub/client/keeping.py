"""Keeping a link: is the hub there, and when it is there again, what became of what it was asked before?

Nothing that a hub knows of is ever asked twice. What it does not know was lost with the hub before: a load-balanced
task is sent again, since such tasks are carried out at least once; a direct request is not, and has failed.
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
"""Requests of which the hub is asked at a time what became of them."""
GREETING = 5.0
"""Seconds that a hub has to answer a greeting on the direct channel; an ipcontroller does not answer at all."""


async def keep(link: HubConnection, engines: Engines, lost_after: float) -> None:
    """Look after the link until cancelled. A hub that is silent for `lost_after` seconds is lost, until it speaks."""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_watch, link, engines, lost_after)
        nursery.start_soon(_come_back, link, engines)


async def learn_engines(link: HubConnection, engines: Engines) -> None:
    """Ask the hub which engines there are. Raises `HubLostError`."""
    heard = engines.heard
    reply = await link.ask("registration", "connection_request", {}).wait()
    _compare(reply, engines, heard)


def _compare(reply: HubReply, engines: Engines, heard: int) -> None:
    """See to what notifications have not told. Those that came meanwhile may know more than this reply."""
    found = reply.content.get("engines")
    if isinstance(found, dict):
        engines.replace({int(id): str(uuid) for id, uuid in found.items()}, heard)


async def _watch(link: HubConnection, engines: Engines, lost_after: float) -> None:
    """Ask the hub which engines there are, again and again: it lives, and no lost notification is missed for long."""
    while True:
        heard = engines.heard
        ping = link.ask("registration", "connection_request", {}, though_lost=True)
        with trio.move_on_after(lost_after) as scope, suppress(HubError):
            _compare(await ping.wait(), engines, heard)
        if scope.cancelled_caught:
            link.give_up(ping)
            link.lose(
                f"the hub at {link.address.url('registration')} has not answered for {lost_after:g} s: has it stopped? "
                "It is tried again all the time; a hub that is started with --restore carries on with the work"
            )
            continue
        if link.lost is not None:
            link.found()
        await trio.sleep(lost_after / 4)


async def _come_back(link: HubConnection, engines: Engines) -> None:
    """Whenever a connection has been made, ask for what was missed; if again, see to what was asked before."""
    while True:
        await link.returned.wait()
        link.returned = trio.Event()
        with suppress(HubError):
            if any(number > 1 for number in link.handshakes.values()):
                await _recover(link, engines)
            else:  # until now, notifications may have had nowhere to go
                await learn_engines(link, engines)


async def _recover(link: HubConnection, engines: Engines) -> None:
    work: dict[str, Pending] = {}
    for pending in link.interrupted():
        if pending.channel in ("task", "mux"):
            work[pending.msg_id] = pending
        elif pending.repeatable:
            link.ask_again(pending)
        else:
            link.end(pending, RequestLostError("the connection to the hub broke: it may have done this, or not"))
    # A request that names no engine: the hub knows again where this client is, and sends what it has for it; and it
    # has received what was sent before, when it answers.
    greeting = link.ask("mux", "apply_request", {})
    with trio.move_on_after(GREETING), suppress(HubError):
        await greeting.wait()
    link.give_up(greeting)
    await learn_engines(link, engines)
    msg_ids = [msg_id for msg_id, pending in work.items() if not pending.done]
    for start in range(0, len(msg_ids), ASKED_AT_A_TIME):
        await _sort_out(link, work, msg_ids[start : start + ASKED_AT_A_TIME])


async def _sort_out(link: HubConnection, work: dict[str, Pending], msg_ids: list[str]) -> None:
    """Take the results that the hub has of these, and see to those that it does not know."""
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
                f"the hub was started anew, and does not know {pending.msg_id}, which may have been carried out, or "
                "not. A trio-hub that is started with --restore remembers; an ipcontroller never does"
            )
            link.end(pending, RequestLostError(error))


async def _results(link: HubConnection, msg_ids: list[str], *, status_only: bool) -> HubReply:
    content: dict[str, Any] = {"msg_ids": msg_ids, "status_only": status_only}
    return await link.ask("registration", "result_request", content).wait()
