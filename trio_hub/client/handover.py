"""The thread that runs an executor's client, and the queues by which other threads give it calls.

Other threads put calls and withdrawals into queues, and wake the thread. The thread is woken once for all entries that
come until it reads the queues.
"""

from __future__ import annotations

import atexit
import os
import threading
from collections import deque
from collections.abc import Mapping
from concurrent.futures import BrokenExecutor, Future
from functools import partial
from typing import Any

import trio
import zmq

from ..errors import HubError, RemoteError
from ..wire.frames import Frames
from .calls import Calls, value_of
from .connecting import Where, open_link
from .failures import as_raised
from .hubconnection import Pending
from .notifying import Engines, Targets

__all__ = ["AnyFuture", "ClientThread"]

AT_A_TIME = 64
"""The maximum number of calls that are sent before replies are received again. It takes a few milliseconds."""

AnyFuture = Future[Any]


class ClientThread:
    """A client of a hub, in a thread of its own.

    Every method can be called from every thread, also in callbacks of futures, and also in signal handlers.

    Args:
        where: the arguments of `trio_hub.connect`.
        targets: the engines that may get calls.

    Raises:
        EngineError: There is no engine with such an id or uuid. All errors of `connect` are raised as well.
    """

    def __init__(self, where: Where, targets: Targets) -> None:
        self.pid = os.getpid()
        self.engines = Engines()
        self._where = where
        self._targets = targets
        # Held while a call is put into the queue, so that no call comes after the end. It is reentrant, since a signal
        # handler may submit a call, too.
        self._lock = threading.RLock()
        self._inbox: deque[tuple[AnyFuture, Frames, Mapping[str, Any] | None]] = deque()
        self._cancelled: deque[AnyFuture] = deque()
        self._refused = False
        """Whether all calls that no engine has begun are to be withdrawn."""
        self._closed = False
        self._interpreter_ends = False
        self._broken: BaseException | None = None
        self._woken = False
        # Only the thread uses the following attributes, apart from the token.
        self._token: trio.lowlevel.TrioToken | None = None
        self._pending: dict[AnyFuture, Pending] = {}
        self._finished = trio.Event()
        self._calls: Calls | None = None
        ready: Future[None] = Future()
        self._thread = threading.Thread(target=self._run, args=(ready,), name="trio_hub.Executor", daemon=True)
        self._thread.start()
        try:
            ready.result()
        except Exception:
            self.join()
            raise
        except BaseException:  # such as KeyboardInterrupt: the thread ends after its attempt to connect
            self.close()
            raise

    # For other threads

    def submit(self, future: AnyFuture, call: Frames, rules: Mapping[str, Any] | None = None) -> None:
        """Send a call. The future gets its result or error.

        Raises:
            RuntimeError: The thread has ended, or is about to end.
        """
        if os.getpid() != self.pid:
            raise RuntimeError("this executor belongs to the process that forked this process: make another executor")
        future.add_done_callback(self._on_done)
        with self._lock:
            if self._broken is not None:
                raise BrokenExecutor("the executor's client has failed, so nothing can be submitted") from self._broken
            if self._interpreter_ends:
                raise RuntimeError("cannot schedule new futures after interpreter shutdown")
            if self._closed:
                raise RuntimeError("cannot schedule new futures after shutdown")
            self._inbox.append((future, call, rules))
        self._wake()

    def close(self, *, refuse: bool = False, interpreter_ends: bool = False) -> None:
        """Accept no more calls, and let the thread end when all calls are finished. Idempotent.

        Args:
            refuse: whether calls that no engine has begun are withdrawn.
            interpreter_ends: whether later calls are told that the interpreter ends.
        """
        with self._lock:
            self._closed = True
            self._refused = self._refused or refuse
            self._interpreter_ends = self._interpreter_ends or interpreter_ends
        self._wake()

    def join(self) -> None:
        """Wait until the thread has ended, unless this is that thread, or a process that was forked."""
        if os.getpid() == self.pid and threading.current_thread() is not self._thread:
            self._thread.join()

    def _on_done(self, future: AnyFuture) -> None:
        if future.cancelled():
            self._cancelled.append(future)
            self._wake()

    def _wake(self) -> None:
        # The flag is set after a call was put into the queue, and taken away before the queue is emptied.
        if not self._woken and self._token is not None and os.getpid() == self.pid:
            self._woken = True
            try:
                self._token.run_sync_soon(self._take)
            except trio.RunFinishedError:  # the thread has ended, and all futures are done
                self._woken = False

    # The thread

    def _run(self, ready: Future[None]) -> None:
        _running.add(self)
        context: zmq.Context[zmq.Socket[Any]] = zmq.Context()
        error: BaseException | None = None
        try:
            trio.run(self._serve, context, ready)
        except BaseException as caught:
            error = caught
        finally:
            # Not in a thread of Trio: a thread cannot always be started while the interpreter ends.
            context.term()
            self._end(error)
            _running.discard(self)
            if not ready.done():
                ready.set_exception(error or RuntimeError("the executor was closed before it was connected"))

    async def _serve(self, context: zmq.Context[zmq.Socket[Any]], ready: Future[None]) -> None:
        self._token = trio.lowlevel.current_trio_token()
        async with open_link(context, **self._where) as (link, engines):
            engines.uuids_of(self._targets)
            self.engines, self._calls = engines, Calls(link, engines)
            ready.set_result(None)
            self._take()
            try:
                await self._finished.wait()
            finally:
                for pending in self._pending.values():  # if the client has failed, `_end` says why
                    pending.on_end = None

    def _take(self) -> None:
        """Handle what other threads have put into the queues."""
        self._woken = False
        calls = self._calls
        if calls is None:
            return  # the client is not connected yet
        self._withdraw_cancelled(calls)
        for _ in range(min(AT_A_TIME, len(self._inbox))):
            future, call, rules = self._inbox.popleft()
            if self._refused:
                future.cancel()
            if future.cancelled():
                future.set_running_or_notify_cancel()
            else:
                self._start(calls, future, call, rules)
        if self._inbox:
            self._wake()
        elif self._refused:
            self._refused = False
            self._refuse(calls)
        self._finish()

    def _start(self, calls: Calls, future: AnyFuture, call: Frames, rules: Mapping[str, Any] | None) -> None:
        try:
            among = None if self._targets is None else self.engines.uuids_of(self._targets)
            pending = calls.start(call, among=among, rules=rules)
        except Exception as error:
            self._set(future, error=error)
            return
        self._pending[future] = pending
        pending.on_end = partial(self._ended, future)

    def _withdraw_cancelled(self, calls: Calls) -> None:
        withdrawn = []
        while self._cancelled:
            future = self._cancelled.popleft()
            pending = self._pending.pop(future, None)
            if pending is not None:  # otherwise it is still in the inbox, or is done
                withdrawn.append(pending)
                future.set_running_or_notify_cancel()
        if withdrawn:
            calls.withdraw(withdrawn)

    def _refuse(self, calls: Calls) -> None:
        for future, pending in self._pending.items():
            pending.on_end = partial(self._ended, future, refused=True)
        calls.refuse(list(self._pending.values()))

    def _ended(self, future: AnyFuture, pending: Pending, *, refused: bool = False) -> None:
        if self._pending.pop(future, None) is None:
            return  # the future was cancelled
        try:
            value = value_of(pending.outcome())
        except RemoteError as error:
            if refused and error.ename in ("TaskAborted", "TaskCancelled"):
                future.cancel()
            self._set(future, error=as_raised(error))
        except BaseException as error:  # unpickling runs code that may raise anything
            self._set(future, error=error)
        else:
            self._set(future, value)
        if self._closed:
            self._finish()

    def _set(self, future: AnyFuture, value: Any = None, *, error: BaseException | None = None) -> None:
        if future.set_running_or_notify_cancel():
            if error is None:
                future.set_result(value)
            else:
                future.set_exception(error)

    def _finish(self) -> None:
        if self._closed and not self._inbox and not self._pending:
            self._finished.set()

    def _end(self, error: BaseException | None) -> None:
        """Give all unfinished futures an error, since the client has ended."""
        with self._lock:
            self._closed = True
            self._broken = error
        left = [*self._pending, *(future for future, *_ in self._inbox)]
        self._pending.clear()
        self._inbox.clear()
        for future in left:
            failure = error if isinstance(error, HubError) else BrokenExecutor("the executor's client has failed")
            if failure is not error:
                failure.__cause__ = error
            self._set(future, error=failure)


_running: set[ClientThread] = set()


def _at_exit() -> None:
    """Wait for all calls before the interpreter ends, as executors of the standard library do."""
    running = [one for one in list(_running) if one.pid == os.getpid()]
    for one in running:
        one.close(interpreter_ends=True)
    for one in running:
        one.join()


# This runs after Python has joined its threads, which may still submit calls. Python does not join daemon threads such
# as `ClientThread`'s.
atexit.register(_at_exit)
