"""`Executor`: the engines of a cluster behind the interface of `concurrent.futures`."""

from __future__ import annotations

import os
import time
import weakref
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from concurrent import futures
from contextlib import closing
from copy import copy
from itertools import islice
from typing import Any, ParamSpec, TypeVar, Unpack

import zmq

from ..errors import SerializationError
from ..transport.channel import LARGE_FRAME
from ..wire.frames import Frames
from .connecting import Where
from .handover import AnyFuture, ClientThread
from .notifying import Targets
from .packing import PackedFunction, pack_call, pack_function
from .rules import Rules, sent_rules

__all__ = ["Executor"]

P = ParamSpec("P")
T = TypeVar("T")


class Executor(futures.Executor):
    """A `concurrent.futures.Executor` whose calls run on the engines of a cluster.

    ::

        with trio_hub.Executor(profile="default") as executor:
            print(list(executor.map(pow, range(10), range(10))))

    An executor connects when it is made, and has a thread for its client. It can be used from all threads, also beside
    a running event loop. Calls wait at the hub for engines; calls and their futures outlive a restart of the hub. When
    the interpreter ends, it waits for calls that are not finished, as it does for executors of the standard library.

    What differs from `concurrent.futures.ProcessPoolExecutor`:

    - Functions are sent by value if cloudpickle is installed. Arguments are packed by ``submit``, so that a later
      change of an argument has no effect. If something cannot be packed, the future has a `SerializationError`.
    - An exception of a function is a `RemoteError`, with the engine's traceback as its cause. If the exception's class
      is one of Python's own, such as `ValueError`, the error belongs to that class, too.
    - ``cancel()`` of a future succeeds as long as there is no result. A call that has not begun does not begin then.
      A call that runs goes on, or is interrupted with the rule ``on_cancel="interrupt"``; its result is ignored.
      ``running()`` is never true, since the hub does not tell clients when calls begin.
    - If the hub does not answer for ``lost_after`` seconds, futures have a `HubLostError`.

    Args:
        profile, profile_dir, cluster_id, connection_file, connection_info, curve_keys, answer_within, lost_after: see
            `connect`.
        targets: the engines that the hub may choose from, by id or uuid: one, or several. By default these are all
            engines, also engines that join later.
        rules: the rules of all calls, see `Rules`. `with_rules` sets further rules for some calls.

    Raises:
        ConnectionFileError: there is no connection file, or it cannot be used.
        ConfigError: the arguments contradict each other, or a value is unknown.
        HubLostError: the hub does not answer.
        EngineError: there is no engine with this id or uuid.
    """

    def __init__(
        self,
        *,
        profile: str | None = None,
        profile_dir: str | os.PathLike[str] | None = None,
        cluster_id: str = "",
        connection_file: str | os.PathLike[str] | None = None,
        connection_info: Mapping[str, Any] | None = None,
        curve_keys: tuple[str, str] | None = None,
        answer_within: float = 10.0,
        lost_after: float = 60.0,
        targets: Targets = None,
        rules: Rules | None = None,
    ) -> None:
        self._rules = sent_rules(rules or {})
        self._original: Executor | None = None
        where = Where(
            profile=profile,
            profile_dir=profile_dir,
            cluster_id=cluster_id,
            connection_file=connection_file,
            connection_info=connection_info,
            curve_keys=curve_keys,
            answer_within=answer_within,
            lost_after=lost_after,
        )
        self._client = ClientThread(where, targets)
        # When the executor is garbage-collected, its thread ends after all calls are finished.
        weakref.finalize(self, self._client.close).atexit = False

    def __repr__(self) -> str:
        return f"<trio_hub.Executor with {len(self.engines)} engines>"

    @property
    def engines(self) -> dict[int, str]:
        """The uuids of the engines that are registered now, by id."""
        return dict(self._client.engines.uuids)

    @property
    def _max_workers(self) -> int:
        """The number of engines. Other libraries read the number of an executor's workers from this attribute."""
        return max(1, len(self.engines))

    def with_rules(self, **rules: Unpack[Rules]) -> Executor:
        """Return an executor with the same connection, whose calls have these rules besides those of this executor.

        ::

            executor.with_rules(priority=5, max_runtime=60).submit(pow, 2, 3)

        A shutdown of one of the two is a shutdown of both. Raises `TypeError` if there is no rule of such a name.
        """
        other = copy(self)
        other._rules = self._rules | sent_rules(rules)
        other._original = self  # otherwise the connection would be closed when the original is garbage-collected
        return other

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> futures.Future[T]:
        """Call a function on an engine.

        Args:
            fn: the function. It is sent by value if cloudpickle is installed, else by name.
            args, kwargs: the function's arguments; see `Client.apply`.

        Raises:
            RuntimeError: the executor was shut down, or belongs to another process.
        """
        return self._begin(_packed(fn), args, kwargs)

    def map(
        self,
        fn: Callable[..., T],
        *iterables: Iterable[Any],
        timeout: float | None = None,
        chunksize: int = 1,
        buffersize: int | None = None,
    ) -> Iterator[T]:
        """Call a function on engines for each item, and return an iterator of the results, in order.

        When the iteration ends early, calls that have not begun are withdrawn.

        Args:
            fn: the function; see `submit`. It is packed once.
            iterables: the arguments, as for the built-in `map`. Without `buffersize`, all items are taken at once.
            timeout: seconds from now until which a result may be waited for; then the iterator raises `TimeoutError`.
            chunksize: items that one call handles. For quick functions, a larger number takes less time.
            buffersize: the maximum number of calls whose results were not taken yet. Further items are taken when
                results are taken, so iterables may be endless. (The standard library has this since Python 3.14.)
        """
        if chunksize < 1:
            raise ValueError("chunksize must be >= 1.")
        if buffersize is not None and buffersize < 1:
            raise ValueError("buffersize must be None or > 0")
        end = None if timeout is None else time.monotonic() + timeout
        items = zip(*iterables, strict=False)
        if chunksize == 1:
            return self._results(fn, items, buffersize, end)
        # Engines need no code of ours: a call of `list` with `map(fn, items)` is all that they get.
        lengths: deque[int] = deque()
        chunks = ((map(fn, *zip(*chunk, strict=True)),) for chunk in _chunks(items, chunksize, lengths))
        return _items(self._results(list, chunks, buffersize, end), lengths)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Accept no more calls.

        Args:
            wait: whether to return only when all calls are finished and the connections are closed.
            cancel_futures: whether calls are withdrawn that no engine has begun. Their futures are cancelled. Calls
                that run are interrupted if their rule ``on_cancel`` says so.
        """
        self._client.close(refuse=cancel_futures)
        if wait:
            self._client.join()

    def _results(
        self, fn: Callable[..., Any], items: Iterator[tuple[Any, ...]], buffersize: int | None, end: float | None
    ) -> Generator[Any, None, None]:
        """Begin to call a function for items, and return an iterator of the return values."""
        function = _packed(fn)
        begun = (self._begin(function, args, {}) for args in items)
        return _in_order(deque(islice(begun, buffersize)), begun, end)

    def _begin(
        self, function: PackedFunction | SerializationError, args: tuple[Any, ...], kwargs: Mapping[str, Any]
    ) -> AnyFuture:
        """Send a call. If the function or an argument cannot be packed, the future has the error."""
        future: AnyFuture = futures.Future()
        if isinstance(function, SerializationError):
            future.set_exception(function)
            return future
        try:
            call = _kept(pack_call(function, args, kwargs))
        except SerializationError as error:
            future.set_exception(error)
        else:
            self._client.submit(future, call, self._rules)
        return future


def _packed(fn: Callable[..., Any]) -> PackedFunction | SerializationError:
    """Return a function in packed form, or the error if it cannot be packed."""
    try:
        return pack_function(fn)
    except SerializationError as error:
        return error


def _in_order(waiting: deque[AnyFuture], more: Iterator[AnyFuture], end: float | None) -> Generator[Any, None, None]:
    """Yield the results of futures, and begin one more call for each result."""
    future = None
    try:
        while waiting:
            future = waiting.popleft()
            value = future.result(None if end is None else end - time.monotonic())
            waiting.extend(islice(more, 1))
            yield value
    finally:
        for left in (future, *waiting):
            if left is not None:
                left.cancel()


def _chunks(items: Iterator[tuple[Any, ...]], size: int, lengths: deque[int]) -> Iterator[list[tuple[Any, ...]]]:
    """Divide items into lists of this size, and note the lengths of the lists."""
    while chunk := list(islice(items, size)):
        lengths.append(len(chunk))
        yield chunk


def _items(chunks: Generator[list[Any], None, None], lengths: deque[int]) -> Iterator[Any]:
    with closing(chunks):
        for chunk in chunks:
            yield from chunk
            if len(chunk) != lengths.popleft():
                raise RuntimeError("the function has raised StopIteration, which ended its chunk of items")


def _kept(call: Frames) -> Frames:
    """Copy large buffers into memory of ZeroMQ, so that the caller's later changes do not affect what is sent."""
    for place, buffer in enumerate(call):
        if len(buffer) >= LARGE_FRAME:
            copied: Any = zmq.Frame(buffer, copy=True)  # pyzmq's stubs do not say that it is a buffer
            call[place] = copied
    return call
