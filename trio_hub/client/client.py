"""`Client`: the interface by which a Trio program uses a hub and its engines."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Iterable, Mapping, Sequence
from typing import Any, Literal, TypeVar, Unpack, overload

from ..errors import RemoteError
from ..wire.frames import Frames
from .calls import Calls, PackedResult, value_of
from .hubconnection import HubConnection
from .mapping import mapped
from .notifying import Engines, Notification, Targets
from .packing import pack_call, pack_function
from .questions import Questions
from .rules import RetryOn, Rules, sent_rules

__all__ = ["Client"]

T = TypeVar("T")


class Client:
    """A connected client. `trio_hub.connect` makes it.

    All async methods can be cancelled at any time, also by a timeout. They raise:

    - `RemoteError`: An engine, or the hub, has answered with an error.
    - `HubLostError`: The hub has not answered for ``lost_after`` seconds. All requests fail until the hub is back.
    - `RequestLostError`: A hub that was started again does not know the request, which must not be repeated.
    """

    def __init__(self, link: HubConnection, engines: Engines) -> None:
        self._link = link
        self._engines = engines
        self._calls = Calls(link, engines)
        self._questions = Questions(link, engines)

    def __repr__(self) -> str:
        return f"<Client {self.session} of {self.address}>"

    @property
    def address(self) -> str:
        """The address at which the hub answers queries, such as ``tcp://127.0.0.1:40001``."""
        return self._link.address.url("registration")

    @property
    def connections(self) -> str:
        """``encrypted`` if the client is connected with CURVE, else ``open``."""
        return "open" if self._link.address.curve is None else "encrypted"

    @property
    def session(self) -> str:
        """The client's session, which is ``client_uuid`` in records."""
        return self._link.session.session_id

    @property
    def kind(self) -> str:
        """The kind of hub: ``"trio-hub"``, or ``"ipcontroller"`` for any other hub."""
        return self._questions.kind

    @property
    def engines(self) -> dict[int, str]:
        """The uuids of the engines that are registered now, by id."""
        return dict(self._engines.uuids)

    def notifications(self) -> AsyncGenerator[Notification, None]:
        """Return a generator of notifications: first an `EngineJoined` for each present engine, then all changes.

        The generator ends when the client is closed. When the hub comes back after an absence, the generator yields the
        changes that the client has missed.

        Raises:
            EventsLost: More than 10,000 notifications were not read.
        """
        return self._engines.notifications()

    # Calling

    async def apply(
        self,
        function: Callable[..., T],
        /,
        *args: Any,
        targets: int | str | None = None,
        priority: int | None = None,
        max_runtime: float | None = None,
        max_attempts: int | None = None,
        retry_on: RetryOn | None = None,
        retry_pause: float | None = None,
        needs: Mapping[str, float | str | bool] | None = None,
        on_cancel: Literal["withdraw", "interrupt"] | None = None,
        **kwargs: Any,
    ) -> T:
        """Call a function on an engine, and return the function's return value.

        If this is cancelled, a call that has not begun does not begin. A call that runs goes on, or is interrupted with
        ``on_cancel="interrupt"``.

        Args:
            function: The function. It is sent by value if cloudpickle is installed, else by name.
            args: The arguments of the function. Large bytes, memoryviews and numpy arrays, also in lists, tuples and
                dicts, are not pickled. Arrays arrive read-only.
            targets: The id or uuid of the engine to be called directly. By default the hub chooses an engine.
            priority, max_runtime, max_attempts, retry_on, retry_pause, needs, on_cancel: The rules of the task, see
                `Rules`. They are for an ``ipcontroller`` without effect.
            kwargs: The keyword arguments of the function. For a function that itself has an argument of one of the
                names above, use `functools.partial`.

        Raises:
            RemoteError: The function has raised an exception, its engine died, or a rule has an unusable value.
            ValueError: Both rules and targets are given: rules are for calls whose engine the hub chooses.
            EngineError: There is no engine with this id or uuid.
            SerializationError: The call cannot be pickled, or its result cannot be unpickled.
        """
        said = {"priority": priority, "max_runtime": max_runtime, "max_attempts": max_attempts, "retry_on": retry_on}
        rules = sent_rules({**said, "retry_pause": retry_pause, "needs": needs, "on_cancel": on_cancel})
        if rules and targets is not None:
            raise ValueError(
                f"{min(rules)} has no effect on a call of a chosen engine: leave out targets, or the rules"
            )
        call = pack_call(pack_function(function), args, kwargs)
        to = None if targets is None else (await self._questions.uuids(targets))[0]
        pending = self._calls.start(call, to=to, rules=rules)
        try:
            reply = await pending.wait()
        finally:
            self._calls.withdraw([pending])
        value: T = value_of(reply)
        return value

    @overload
    def map(
        self,
        function: Callable[..., T],
        /,
        *iterables: Iterable[Any],
        in_flight: int | None = None,
        ordered: bool = True,
        max_fails: None = None,
        **rules: Unpack[Rules],
    ) -> AsyncGenerator[T, None]: ...

    @overload
    def map(
        self,
        function: Callable[..., T],
        /,
        *iterables: Iterable[Any],
        in_flight: int | None = None,
        ordered: bool = True,
        max_fails: int,
        **rules: Unpack[Rules],
    ) -> AsyncGenerator[T | RemoteError, None]: ...

    def map(
        self,
        function: Callable[..., T],
        /,
        *iterables: Iterable[Any],
        in_flight: int | None = None,
        ordered: bool = True,
        max_fails: int | None = None,
        **rules: Unpack[Rules],
    ) -> AsyncGenerator[T | RemoteError, None]:
        """Call a function on engines for each item, and yield the return values.

        At most `in_flight` calls are under way, including the calls whose results were not taken yet. So iterables may
        be endless. If the loop ends early, by ``break``, an error or a cancellation, the remaining calls are withdrawn;
        with `contextlib.aclosing` around the generator, at once.

        Args:
            function: See `apply`.
            iterables: The arguments of the calls, as for the built-in `map`. Items are taken when they are needed.
            in_flight: By default four calls per engine that is present at the beginning, and at least 16.
            ordered: Whether to yield the values in the order of the items. If not, they are yielded as they come.
            max_fails: The number of failed calls that ends the map. Of fewer failed calls, the errors are yielded as
                values: `RemoteError` objects. When this many calls have failed, whether their turns have come or not,
                the last of these errors is raised, and the remaining calls are withdrawn. By default, the first failed
                call ends the map when its turn has come.
            rules: The rules of the calls, see `Rules`.

        Raises:
            RemoteError: A call has failed. It is raised when the turn of the call has come.
            SerializationError: See `apply`.
        """
        return mapped(
            self._calls,
            self._engines,
            function,
            iterables,
            in_flight=in_flight,
            ordered=ordered,
            max_fails=max_fails,
            rules=rules,
        )

    # Asking the hub

    async def queue_status(self, targets: Targets = None, *, verbose: bool = False) -> dict[str, Any]:
        """Return the outstanding and completed requests of engines, by id, and the ``unassigned`` tasks.

        Each engine has ``queue`` (direct requests), ``tasks`` and ``completed``.

        Args:
            targets: An id or uuid, or a list of these. By default all engines.
            verbose: Whether to return msg_ids instead of numbers.
        """
        wanted: Any = list(targets) if isinstance(targets, (list, tuple)) else targets
        return await self.query("queue_request", {"targets": wanted, "verbose": verbose})

    async def db_query(
        self, query: Mapping[str, Any] | None = None, keys: Sequence[str] | None = None
    ) -> list[dict[str, Any]]:
        """Return the records that match a query of the hub's query language.

        Args:
            query: The query. By default it matches all records.
            keys: The keys of the returned records, besides ``msg_id``. By default all keys except buffers.
        """
        return await self._questions.records(query, keys)

    async def history(self) -> list[str]:
        """Return the msg_ids of all requests that have records, by time of submission."""
        history: list[str] = (await self._questions.query("history_request", {}))["history"]
        return history

    async def result(self, msg_id: str) -> Any:
        """Wait for the result of a call of any client, given its msg_id, and return the value.

        The value of a gathered broadcast is the list of the engines' values, in the order of its targets.

        Raises:
            RemoteError: The call has failed; or, with ``ename`` ``"KeyError"``, the hub does not know the call.
            SerializationError: The result cannot be unpickled here.
        """
        return (await self.packed_result(msg_id)).value()

    async def result_buffers(self, msg_id: str) -> Frames:
        """Wait for the result of a call, and return the value without unpickling it: the buffers of its `PackedResult`.

        Raises:
            RemoteError: See `result`.
        """
        return (await self.packed_result(msg_id)).buffers

    async def packed_result(self, msg_id: str) -> PackedResult:
        """Wait for the result of a request of any client, and return it without unpickling it.

        Raises:
            RemoteError: See `result`.
        """
        return await self._questions.result(msg_id)

    async def pending(self, msg_ids: Sequence[str]) -> list[str]:
        """Return the msg_ids of the requests among these that are not finished. They may be any client's.

        Raises:
            RemoteError: With ``ename`` ``"KeyError"``: the hub does not know one of the requests.
        """
        content = await self._questions.query("result_request", {"msg_ids": list(msg_ids), "status_only": True})
        pending: list[str] = content["pending"]
        return pending

    async def details(self, msg_ids: Sequence[str], *, names: bool = False) -> dict[str, dict[str, Any]]:
        """Return what only a trio-hub knows of requests, by msg_id. For an ipcontroller, the answer is empty.

        Each request has ``state`` (``queued``, ``waiting``, ``paused`` or ``running``, as in the glossary, if it is not
        finished); ``why``, the reason why it waits; ``attempts``, how many attempts engines have begun at an unfinished
        task; and with `names` also ``name``, the name of its function. Each is None if it is not known. For names, the
        hub may have to read the requests from its database.
        """
        return await self._questions.details(msg_ids, names)

    async def query(self, msg_type: str, content: Mapping[str, Any]) -> dict[str, Any]:
        """Send the hub a query by its type of message, and return the content of the reply without its status.

        For queries that have no method of their own, such as ``policy_request``. The query may be sent again when the
        hub comes back after an absence.
        """
        answer = await self._questions.query(msg_type, dict(content))
        return {key: value for key, value in answer.items() if key != "status"}

    async def about(self) -> dict[str, Any]:
        """Return what a trio-hub tells about itself. For an ipcontroller, the answer is empty.

        The keys are ``time``, ``versions``, ``settings`` (without secrets), ``statistics`` and ``log``, its last lines.
        """
        if self.kind != "trio-hub":
            return {}
        answer: dict[str, Any] = (await self._questions.query("about_request", {}))["about"]
        return answer

    async def purge(self, msg_ids: Sequence[str] | None = None, *, engines: Sequence[int] = ()) -> None:
        """Delete the records of finished requests: by msg_id, by engine, or all, if neither is given."""
        everything = msg_ids is None and not engines
        content = {"msg_ids": "all" if everything else list(msg_ids or ()), "engine_ids": list(engines)}
        await self._questions.query("purge_request", content)

    async def resubmit(self, msg_ids: Sequence[str]) -> dict[str, str]:
        """Run recorded requests again, as new tasks.

        Returns:
            The new msg_ids, for `result`, by the old ones.
        """
        content = await self._questions.query("resubmit_request", {"msg_ids": list(msg_ids)}, repeatable=False)
        resubmitted: dict[str, str] = content["resubmitted"]
        return resubmitted

    async def abort(self, msg_ids: Sequence[str], *, targets: Targets = None) -> None:
        """Abort calls of any client that have not begun. Calls that run go on.

        A client that waits for an aborted call gets a `RemoteError` with ``ename`` ``"TaskAborted"``: at once if the
        hub still has the call; when its turn comes if an engine has it already. An ipcontroller cannot abort calls, so
        then only the engines are asked.

        Args:
            msg_ids: The msg_ids of the calls, at least one.
            targets: The engines that may have the calls. By default all engines.
        """
        if not msg_ids:
            raise ValueError("abort needs at least one msg_id: without any, engines would abort all their requests")
        uuids = await self._questions.uuids(targets)
        aborted = await self._questions.abort_queued(msg_ids)
        left = [msg_id for msg_id in msg_ids if msg_id not in aborted]
        if left:
            await self._questions.control("abort_request", {"msg_ids": left}, uuids)

    async def cancel(self, msg_ids: Sequence[str], *, grace: float | None = None) -> dict[str, str]:
        """Cancel requests of any client: requests that wait are withdrawn, requests that run are interrupted.

        A client that waits for a cancelled request gets a `RemoteError` with ``ename`` ``"TaskCancelled"`` when the
        request does not run any more.

        Args:
            msg_ids: The msg_ids of the requests. The msg_id of a gathered broadcast means all its shares.
            grace: Seconds that a request has to end after it was interrupted, before its engine is killed. By default
                the grace in its rules, or 10 s.

        Returns:
            What is done to each request: ``"withdrawn"``, ``"interrupted"`` (it may not have ended yet), ``"finished"``
            before, or ``"unknown"``.

        Raises:
            RemoteError: The hub is an ipcontroller, which cannot cancel requests.
        """
        return await self._questions.cancel(msg_ids, grace)

    async def drain(
        self, targets: Targets = None, *, host: str | None = None, deadline: float | None = None, then: str = ""
    ) -> dict[str, str]:
        """Give engines no new tasks. They finish what they run, and still answer direct requests.

        Args:
            targets: An id or uuid, or a list of these. By default all engines, or all on the ``host``.
            host: The name of a host, or the address from which its engines have registered.
            deadline: Seconds after which the tasks that still run are interrupted, and run on other engines, without
                losing a retry. By default, nothing interrupts them.
            then: ``"shutdown"``: each engine is told to end when it is idle.

        Returns:
            ``"draining"`` for each engine, by its id or uuid as text; or ``"unknown"`` if it is not registered.

        Raises:
            RemoteError: An argument cannot be used; or the hub is an ipcontroller, which cannot drain engines.
        """
        return await self._questions.drain(targets, host, {"deadline": deadline, "then": then})

    async def undrain(self, targets: Targets = None, *, host: str | None = None) -> dict[str, str]:
        """Give drained engines tasks again. The arguments are those of `drain`.

        Returns:
            ``"undrained"`` for each engine; or ``"not drained"`` if it was not, or was told to end already; or
            ``"unknown"``.
        """
        return await self._questions.drain(targets, host, {"undrain": True})

    async def pools(self) -> list[dict[str, Any]]:
        """Return the pools of the hub, each with the keys that the reference of the protocol lists for ``pools_reply``.

        Raises:
            RemoteError: The hub is an ipcontroller, which has no pools.
        """
        found: list[dict[str, Any]] = (await self._questions.order("pools_request", {}))["pools"]
        return found

    async def scale_pool(
        self, name: str, engines: int | None = None, *, min: int | None = None, max: int | None = None
    ) -> tuple[int, int]:
        """Change how many engines a pool has. The pool gives back surplus engines only when they are idle.

        Args:
            name: The name of the pool.
            engines: The number of engines, which is rounded up to whole blocks.
            min, max: Instead of ``engines``, the least and the largest number of engines, between which the tasks
                decide. A number that is None stays as it is. Without any number, the numbers of the configuration hold
                again.

        Returns:
            The least and the largest number of engines from now on.

        Raises:
            RemoteError: There is no such pool, or it cannot have these numbers of engines; or the hub is an
                ipcontroller.
        """
        content = {"pool": name, "engines": engines, "min": min, "max": max}
        answer = await self._questions.order("scale_request", content)
        return answer["min"], answer["max"]

    async def resume_pool(self, name: str) -> None:
        """Have a pool ask for blocks again after blocks have failed.

        Raises:
            RemoteError: There is no such pool; or the hub is an ipcontroller.
        """
        await self._questions.order("resume_pool_request", {"pool": name})

    async def shutdown(self, targets: Targets = None, *, hub: bool = False) -> None:
        """Stop engines, by default all engines. With `hub`, then stop the hub, too."""
        uuids = await self._questions.uuids(targets)
        await self._questions.control("shutdown_request", {"restart": False}, uuids, repeatable=False)
        if hub:
            await self._questions.query("shutdown_request", {}, repeatable=False)
