"""`Client`: what a Trio program can ask of a hub, and of engines through it."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Any, TypeVar

import trio

from ..errors import RemoteError
from ..wire.frames import Frames
from ..wire.messages import parse_date
from .calls import Calls, content_of, value_of
from .hubconnection import HubConnection, HubReply, Pending
from .keeping import learn_engines
from .notifying import Engines, Notification, Targets
from .packing import pack_call, pack_function, unpack_value_untrusted, unpack_values_untrusted

__all__ = ["Client"]

T = TypeVar("T")

LEAST_IN_FLIGHT = 16
"""Calls that `Client.map` keeps under way at least, however few engines there are."""
AT_ONCE = 16
"""Results that are there already, and that `Client.map` yields before other tasks have their turn."""
HUB_ABORTS = 5.0
"""Seconds that a hub has to say what it has aborted; one that does not know how may not answer."""
_DATES = ("submitted", "started", "completed", "received")


class Client:
    """A client that is connected. `trio_hub.connect` makes it.

    Whatever waits can be cancelled at any time, also by a timeout. Errors that any of it raises:

    - `RemoteError`: an engine, or the hub, has answered with an error;
    - `HubLostError`: the hub has not answered for ``lost_after`` seconds, and nothing can be asked until it is back;
    - `RequestLostError`: a hub that was started anew does not know a request that must not be repeated.
    """

    def __init__(self, link: HubConnection, engines: Engines) -> None:
        self._link = link
        self._engines = engines
        self._calls = Calls(link, engines)

    def __repr__(self) -> str:
        return f"<Client {self.session} of {self.address}>"

    @property
    def address(self) -> str:
        """Where the hub answers queries, as ``tcp://127.0.0.1:40001``."""
        return self._link.address.url("registration")

    @property
    def connections(self) -> str:
        """``encrypted``, if it talks to the hub over CURVE, or ``open``."""
        return "open" if self._link.address.curve is None else "encrypted"

    @property
    def session(self) -> str:
        """Its name for itself: ``client_uuid`` in records."""
        return self._link.session.session_id

    @property
    def kind(self) -> str:
        """What answers: ``"trio-hub"``, or ``"ipcontroller"``, which stands for any other hub."""
        return "trio-hub" if self._link.hub_name == "trio-hub" else "ipcontroller"

    @property
    def engines(self) -> dict[int, str]:
        """The uuids of the engines there are, by id."""
        return dict(self._engines.uuids)

    def notifications(self) -> AsyncGenerator[Notification, None]:
        """What happens, for ``async for``: first an `EngineJoined` for each engine that is there, then what changes.

        It ends when the client is closed. Engines that came and went while the hub was away are told of afterwards.

        Raises:
            EventsLost: more than 10,000 notifications were not read.
        """
        return self._engines.notifications()

    # Calling

    async def apply(
        self, function: Callable[..., T], /, *args: Any, targets: int | str | None = None, **kwargs: Any
    ) -> T:
        """Call a function on an engine, and wait for what it returns.

        A cancelled call is withdrawn: an engine that has not begun with it does not begin. One that runs goes on.

        Args:
            function: sent by value if cloudpickle is installed, else by name.
            args: of the call. Large bytes, memoryviews and numpy arrays, also in lists, tuples and dicts, are not
                pickled; arrays arrive read-only.
            targets: the id or uuid of an engine, to call it directly. By default the hub chooses one.
            kwargs: of the call; a function that has a ``targets`` of its own needs a `functools.partial`.

        Raises:
            RemoteError: the function has raised, or its engine died.
            EngineError: there is no such engine.
            SerializationError: the call cannot be pickled, or its result not be unpickled.
        """
        call = pack_call(pack_function(function), args, kwargs)
        pending = self._calls.start(call, to=None if targets is None else (await self._uuids(targets))[0])
        try:
            reply = await pending.wait()
        finally:
            self._calls.withdraw([pending])
        value: T = value_of(reply)
        return value

    async def map(
        self,
        function: Callable[..., T],
        /,
        *iterables: Iterable[Any],
        in_flight: int | None = None,
        ordered: bool = True,
    ) -> AsyncGenerator[T, None]:
        """Call a function on engines for each item, and yield what it returns, for ``async for``.

        No more calls are under way than `in_flight`, those counted in whose result was not taken yet: an endless
        iterable will do. A loop that ends early, by ``break``, an error or a cancellation, withdraws what is left;
        with `contextlib.aclosing` around it, at once.

        Args:
            function: as of `apply`.
            iterables: as of `map`; items are taken as they are needed.
            in_flight: by default four for each engine that there is at the beginning, and 16 at least.
            ordered: in the order of the items; if false, as they come.

        Raises:
            RemoteError: a call has failed, when its turn has come.
            SerializationError: as of `apply`.
        """
        if in_flight is not None and in_flight < 1:
            raise ValueError(f"in_flight is {in_flight}: at least one call has to be under way")
        packed = pack_function(function)
        limit = in_flight or max(LEAST_IN_FLIGHT, 4 * len(self._engines.uuids))
        items = zip(*iterables, strict=False)
        more = True
        under_way: dict[str, Pending] = {}
        taken = 0
        ended, next_ended = trio.open_memory_channel[Pending](limit)
        try:
            while True:
                while more and len(under_way) < limit:
                    try:
                        args = next(items)
                    except StopIteration:
                        more = False
                        break
                    pending = self._calls.start(pack_call(packed, args, {}))
                    if not ordered:
                        pending.on_end = ended.send_nowait
                    under_way[pending.msg_id] = pending
                if not under_way:
                    return
                pending = next(iter(under_way.values())) if ordered else await next_ended.receive()
                if pending.done and taken % AT_ONCE:
                    await trio.lowlevel.checkpoint_if_cancelled()
                else:
                    await pending.wait()
                taken += 1
                del under_way[pending.msg_id]
                yield value_of(pending.outcome())
        finally:
            self._calls.withdraw(under_way.values())

    # Asking the hub

    async def queue_status(self, targets: Targets = None, *, verbose: bool = False) -> dict[str, Any]:
        """What engines have before and behind them: ``queue``, ``tasks``, ``completed``, by id; and ``unassigned``.

        Args:
            targets: ids or uuids, one or a list; all engines by default.
            verbose: msg_ids instead of numbers.
        """
        wanted: Any = list(targets) if isinstance(targets, (list, tuple)) else targets
        content = await self._query("queue_request", {"targets": wanted, "verbose": verbose})
        return {key: value for key, value in content.items() if key != "status"}

    async def db_query(
        self, query: Mapping[str, Any] | None = None, keys: Sequence[str] | None = None
    ) -> list[dict[str, Any]]:
        """The records of requests that match a query of the hub's query language.

        Args:
            query: all records by default.
            keys: of the records; by default all but buffers. ``msg_id`` is always among them.
        """
        reply = await self._ask(
            "db_request", {"query": dict(query or {}), "keys": None if keys is None else list(keys)}
        )
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

    async def history(self) -> list[str]:
        """The msg_ids of all requests that the hub has records of, by time of submission."""
        history: list[str] = (await self._query("history_request", {}))["history"]
        return history

    async def result(self, msg_id: str) -> Any:
        """The value of a call, of whichever client, by its msg_id, as soon as it is there.

        The value of a gathered broadcast is the list of the engines' values, in the order of its targets.

        Raises:
            RemoteError: the call has failed; or, with ``ename`` ``"KeyError"``, the hub does not know it.
            SerializationError: the result cannot be unpickled here.
        """
        buffers, counts = await self._finished(msg_id)
        return unpack_value_untrusted(buffers) if counts is None else unpack_values_untrusted(buffers, counts)

    async def result_buffers(self, msg_id: str) -> Frames:
        """The value of a call, not unpickled, as soon as it is there.

        Returns:
            What the engine has sent: a pickle, and then the large buffers that it leaves out, in order. Nothing, if
            the request was not a call, but code to be executed. For a gathered broadcast, the same of each engine, in
            the order of its targets.

        Raises:
            RemoteError: as of `result`.
        """
        return (await self._finished(msg_id))[0]

    async def _finished(self, msg_id: str) -> tuple[Frames, list[int] | None]:
        """Return the buffers of a call, and for a gathered broadcast the number of buffers of each engine."""
        pause = 0.05
        while True:
            reply = await self._ask("result_request", {"msg_ids": [msg_id], "status_only": False})
            if msg_id in reply.content.get("completed", ()):
                result = reply.content[msg_id]
                content_of(HubReply(result["result_content"], []))
                metadata = result.get("result_metadata") or {}
                counts = metadata.get("buffer_counts") if metadata.get("is_coalescing") else None
                return reply.buffers, counts
            await trio.sleep(pause)  # the protocol has no way to be told
            pause = min(2 * pause, 2.0)

    async def pending(self, msg_ids: Sequence[str]) -> list[str]:
        """Those of these requests, of whichever client, that are not finished.

        Raises:
            RemoteError: with ``ename`` ``"KeyError"``, the hub does not know one of them.
        """
        content = await self._query("result_request", {"msg_ids": list(msg_ids), "status_only": True})
        pending: list[str] = content["pending"]
        return pending

    async def purge(self, msg_ids: Sequence[str] | None = None, *, engines: Sequence[int] = ()) -> None:
        """Let the hub forget finished requests: those of the msg_ids, of the engines; or all, if none is named."""
        everything = msg_ids is None and not engines
        content = {"msg_ids": "all" if everything else list(msg_ids or ()), "engine_ids": list(engines)}
        await self._query("purge_request", content)

    async def resubmit(self, msg_ids: Sequence[str]) -> dict[str, str]:
        """Run recorded requests again, as new tasks.

        Returns:
            Their new msg_ids, for `result`, by the old ones.
        """
        content = await self._query("resubmit_request", {"msg_ids": list(msg_ids)}, repeatable=False)
        resubmitted: dict[str, str] = content["resubmitted"]
        return resubmitted

    async def abort(self, msg_ids: Sequence[str], *, targets: Targets = None) -> None:
        """Have these calls, of whichever client, not begin. Those that run go on.

        Who waits for one gets a `RemoteError` with ``ename`` ``"TaskAborted"``: at once if it is still with the hub;
        when its turn would have come, if an engine has it already. An ipcontroller cannot be asked, so there the
        engines are told only.

        Args:
            msg_ids: of the calls; at least one.
            targets: the engines that may get them; all by default.
        """
        if not msg_ids:
            raise ValueError("abort needs at least one msg_id: without any, engines would drop all they have")
        uuids = await self._uuids(targets)
        aborted = await self._abort_queued(msg_ids)
        left = [msg_id for msg_id in msg_ids if msg_id not in aborted]
        if left:
            await self._control("abort_request", {"msg_ids": left}, uuids)

    async def _abort_queued(self, msg_ids: Sequence[str]) -> set[str]:
        """Those of these calls that the hub had still, and has dropped."""
        with trio.move_on_after(HUB_ABORTS), suppress(RemoteError):  # as an ipcontroller answers
            return set((await self._query("abort_request", {"msg_ids": list(msg_ids)}))["aborted"])
        return set()

    async def shutdown(self, targets: Targets = None, *, hub: bool = False) -> None:
        """Stop engines, all by default; and, with `hub`, the hub after them."""
        uuids = await self._uuids(targets)
        await self._control("shutdown_request", {"restart": False}, uuids, repeatable=False)
        if hub:
            await self._query("shutdown_request", {}, repeatable=False)

    async def _control(
        self, msg_type: str, content: dict[str, Any], uuids: Sequence[str], *, repeatable: bool = True
    ) -> None:
        asked = [self._link.ask("control", msg_type, content, to=uuid, repeatable=repeatable) for uuid in uuids]
        try:
            for pending in asked:
                content_of(await pending.wait())
        finally:
            for pending in asked:
                self._link.give_up(pending)

    async def _uuids(self, targets: Targets) -> list[str]:
        """Raises `EngineError`."""
        if targets is not None and not self._engines.are_known(targets):
            await learn_engines(self._link, self._engines)  # one may have come just now
        return self._engines.uuids_of(targets)

    async def _query(self, msg_type: str, content: dict[str, Any], *, repeatable: bool = True) -> dict[str, Any]:
        return (await self._ask(msg_type, content, repeatable=repeatable)).content

    async def _ask(self, msg_type: str, content: dict[str, Any], *, repeatable: bool = True) -> HubReply:
        pending = self._link.ask("registration", msg_type, content, repeatable=repeatable)
        try:
            reply = await pending.wait()
        finally:
            self._link.give_up(pending)
        content_of(reply)
        return reply
