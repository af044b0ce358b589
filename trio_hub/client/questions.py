"""The queries of a client, and its control requests: sent to a hub, and waited for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

import trio

from ..errors import EngineError, RemoteError
from ..wire.messages import parse_date
from .calls import PackedResult, content_of
from .hubconnection import HubConnection, HubReply
from .keeping import learn_engines
from .notifying import Engines, Targets

__all__ = ["Questions"]

HUB_ABORTS = 5.0
"""Seconds within which a hub must answer an abort request. A hub that cannot abort requests may not answer."""
CANCELLED_AT_A_TIME = 500
"""The maximum number of requests in one query that cancels requests."""
DETAILS_AT_A_TIME = 100
"""The maximum number of requests in one query for details."""
_DATES = ("submitted", "started", "completed", "received")


class Questions:
    """Asks a hub, and its engines on their control channels. The errors of all methods are those of `Client`.

    Args:
        link: the connection to the hub.
        engines: the engines that the client knows.
    """

    def __init__(self, link: HubConnection, engines: Engines) -> None:
        self._link = link
        self._engines = engines

    @property
    def kind(self) -> str:
        """The kind of hub: ``"trio-hub"``, or ``"ipcontroller"`` for any other hub."""
        return "trio-hub" if self._link.hub_name == "trio-hub" else "ipcontroller"

    async def ask(self, msg_type: str, content: dict[str, Any], *, repeatable: bool = True) -> HubReply:
        """Send the hub a query, and return its reply."""
        pending = self._link.ask("registration", msg_type, content, repeatable=repeatable)
        try:
            reply = await pending.wait()
        finally:
            self._link.give_up(pending)
        content_of(reply)
        return reply

    async def query(self, msg_type: str, content: dict[str, Any], *, repeatable: bool = True) -> dict[str, Any]:
        """Send the hub a query, and return the content of its reply."""
        return (await self.ask(msg_type, content, repeatable=repeatable)).content

    async def order(self, msg_type: str, content: dict[str, Any]) -> dict[str, Any]:
        """Send a query that only a trio-hub knows, and that may be repeated. Raises `RemoteError` for an ipcontroller.

        An ipcontroller may not answer such a query at all.
        """
        if self.kind != "trio-hub":
            raise RemoteError("HubError", "the hub is an ipcontroller, which cannot do this: start a hub with trio-hub")
        return await self.query(msg_type, content)

    async def control(
        self, msg_type: str, content: dict[str, Any], uuids: Sequence[str], *, repeatable: bool = True
    ) -> None:
        """Send engines a control request, and wait for their answers."""
        asked = [self._link.ask("control", msg_type, content, to=uuid, repeatable=repeatable) for uuid in uuids]
        try:
            for pending in asked:
                content_of(await pending.wait())
        finally:
            for pending in asked:
                self._link.give_up(pending)

    async def uuids(self, targets: Targets) -> list[str]:
        """Return the uuids of the engines that targets name. Raises `EngineError`."""
        with suppress(EngineError):
            return self._engines.uuids_of(targets)
        await learn_engines(self._link, self._engines)  # an engine may have just come
        return self._engines.uuids_of(targets)

    async def records(self, query: Mapping[str, Any] | None, keys: Sequence[str] | None) -> list[dict[str, Any]]:
        """Return the records that match a query, see `Client.db_query`."""
        reply = await self.ask("db_request", {"query": dict(query or {}), "keys": None if keys is None else list(keys)})
        records: list[dict[str, Any]] = reply.content["records"]
        buffers = iter(reply.buffers)
        for place, record in enumerate(records):
            for key, lengths in (("buffers", "buffer_lens"), ("result_buffers", "result_buffer_lens")):
                counts = reply.content.get(lengths)
                if counts is not None:
                    record[key] = [next(buffers) for _ in range(counts[place])]
            for key in _DATES:
                if isinstance(record.get(key), str):
                    record[key] = parse_date(record[key])
        return records

    async def result(self, msg_id: str) -> PackedResult:
        """Wait for the result of a request of any client, see `Client.packed_result`."""
        pause = 0.05
        while True:
            reply = await self.ask("result_request", {"msg_ids": [msg_id], "status_only": False})
            if msg_id in reply.content.get("completed", ()):
                result = reply.content[msg_id]
                content_of(HubReply(result["result_content"], []))
                metadata = result.get("result_metadata") or {}
                counts = metadata.get("buffer_counts") if metadata.get("is_coalescing") else None
                return PackedResult(reply.buffers, counts)
            await trio.sleep(pause)  # the protocol has no notification of results
            pause = min(2 * pause, 2.0)

    async def abort_queued(self, msg_ids: Sequence[str]) -> set[str]:
        """Return the msg_ids of the calls among these that the hub still had, and has aborted."""
        with trio.move_on_after(HUB_ABORTS), suppress(RemoteError):  # an ipcontroller answers with an error
            return set((await self.query("abort_request", {"msg_ids": list(msg_ids)}))["aborted"])
        return set()

    async def details(self, msg_ids: Sequence[str], names: bool) -> dict[str, dict[str, Any]]:
        """Return what only a trio-hub knows of requests, see `Client.details`."""
        if self.kind != "trio-hub":
            return {}
        found: dict[str, dict[str, Any]] = {}
        for start in range(0, len(msg_ids), DETAILS_AT_A_TIME):
            part = list(msg_ids[start : start + DETAILS_AT_A_TIME])
            found |= (await self.query("details_request", {"msg_ids": part, "names": names}))["details"]
        return found

    async def cancel(self, msg_ids: Sequence[str], grace: float | None) -> dict[str, str]:
        """Cancel requests of any client, see `Client.cancel`."""
        done: dict[str, str] = {}
        for start in range(0, len(msg_ids), CANCELLED_AT_A_TIME):
            part = list(msg_ids[start : start + CANCELLED_AT_A_TIME])
            done |= (await self.order("cancel_request", {"msg_ids": part, "grace": grace}))["cancelled"]
        return done

    async def drain(self, targets: Targets, host: str | None, content: dict[str, Any]) -> dict[str, str]:
        """Drain engines, or end their drains, see `Client.drain`."""
        if targets is not None:
            content["engines"] = list(targets) if isinstance(targets, (list, tuple)) else [targets]
        elif host is None:
            content["engines"] = list(self._engines.uuids)
        else:
            content["host"] = host
        done: dict[str, str] = (await self.order("drain_request", content))["engines"]
        return done
