"""Where requests are while they wait: on their way to disk, in memory, or, if there are too many, on disk only."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, TypeAlias

from ..errors import EngineError, HubError
from ..schedulers.task import Task
from ..store import Store
from ..store.record import TaskRecord
from ..wire.frames import Frames
from ..wire.messages import Message, Session
from .custody import custody_of_request, request_frames
from .notices import Notices
from .ports import Host

__all__ = ["STOPPED", "Fetched", "Intake"]

STOPPED = "the hub has been stopped"
FETCHED_AT_A_TIME = 100
"""Requests that are read from the store at a time."""
FETCH_ATTEMPTS, FETCH_PAUSE = 60, 1.0
"""How often they are tried to be read while the store gives errors, and seconds between two attempts."""
PART_FOR_FRAMES = 0.5
"""The part of the memory for queued tasks that their frames may take up; the rest is for what each needs besides."""
ROOM = 0.8
"""Tasks are received again when no more than this part of the memory for them is in use."""
RECORDED_CHANNELS = ("task_in", "mux_in", "broadcast_in")

Fetched: TypeAlias = Callable[[Task, Frames | HubError], None]
"""Is given the frames of a task, or the error for which there are none. Must not raise."""


class Intake:
    """Keeps what waits, within the memory there is for it, and records what comes.

    Args:
        host, session, store: the ways to channels and records.
        notices: counts and tells what goes wrong.
        strict: whether requests are on disk before an engine sees them.
        queue_memory: bytes of memory that queued tasks may take up. What goes beyond it comes back from the store when
            its turn comes, if the store is durable; else no more tasks are received while there is no room.
    """

    def __init__(
        self, host: Host, session: Session, store: Store, notices: Notices, *, strict: bool, queue_memory: int
    ) -> None:
        self._host = host
        self._session = session
        self._store = store
        self._durable = store.durable
        self._add = store.add
        self._notices = notices
        self.strict = strict
        self._queue_memory = queue_memory
        self.stopping = False
        """Whether the hub stops, and takes no more requests."""
        self.carried_on = False
        """Whether it stops so that another hub can carry on."""
        self.uncommitted: set[str] = set()
        """Requests that have come and are not on disk yet, where they have to be before anything is done about them."""
        self.held_bytes = 0
        """Memory that queued tasks take up: their frames."""
        self.to_fetch: dict[str, tuple[Task, Fetched]] = {}
        """The tasks whose frames are to be read from the store, by msg_id."""
        self._full = False
        self._crowded = False
        self._held_back = False
        self._fetching = False
        self._failures = 0

    def close(self, *, carried_on: bool) -> None:
        """The hub stops: nothing more is taken."""
        self.stopping = True
        self.carried_on = carried_on

    # To disk

    def record(self, record: TaskRecord, idents: list[bytes], msg: Message) -> None:
        """Record a request that has come from a client."""
        if self._durable:
            record.custody = custody_of_request(idents, msg, is_json=self._session.packer.is_json).pack()
        self._add(record)
        if self._store.crowded and not self._crowded:
            self._crowded = True
            self._tell_host()
            self._store.after_commit(self._look_at_store)

    def _look_at_store(self) -> None:
        try:
            if self._store.crowded:
                self._store.after_commit(self._look_at_store)
                return
        except Exception as error:  # better to take too much than nothing ever again
            self._notices.failed("intake", error)
        self._crowded = False
        self._tell_host()

    def when_recorded(self, msg_id: str, call: Callable[[], None]) -> None:
        """Go on with a request, now; or, if the hub is strict, when it is on disk. The call must not raise."""
        if not self.strict:
            call()
            return

        def go_on() -> None:
            self.uncommitted.discard(msg_id)
            call()

        self.uncommitted.add(msg_id)
        try:
            self._store.after_commit(go_on)
        except BaseException:
            self.uncommitted.discard(msg_id)
            raise

    def when_safe(self, call: Callable[[], None]) -> None:
        """Call that, at once; or, if the hub is strict, when all that was recorded until now is on disk."""
        if self.strict:
            self._store.after_commit(call)
        else:
            call()

    # In memory

    def hold(self, task: Task) -> None:
        """A task has to wait: keep its frames, if there is room."""
        if task.frames is None:
            return
        size = sum(map(len, task.frames))
        if self._durable and self.held_bytes + size > PART_FOR_FRAMES * self._queue_memory:
            task.frames = None
            return
        task.held = size
        self.held_bytes += size
        if self.held_bytes > self._queue_memory and not self._full:
            self._full = True
            self._tell_host()

    def let_go(self, task: Task) -> None:
        """A task waits no longer."""
        self.held_bytes -= task.held
        task.held = 0
        if self._full and self.held_bytes <= ROOM * self._queue_memory:
            self._full = False
            self._tell_host()

    def hold_back(self, held_back: bool) -> None:
        """Receive no requests that are recorded for now; or do so again."""
        if held_back is not self._held_back:
            self._held_back = held_back
            self._tell_host()

    def _tell_host(self) -> None:
        try:
            if self._crowded or self._held_back:
                self._host.hold_intake(RECORDED_CHANNELS)
            else:
                self._host.hold_intake(("task_in",) if self._full else ())
        except Exception as error:
            self._notices.failed("intake", error)

    # From disk

    def fetch(self, task: Task, fetched: Fetched) -> None:
        """An engine is to have a task whose frames are only in the store."""
        self.to_fetch[task.msg_id] = task, fetched
        if not self._fetching:
            self._fetch()

    def _fetch(self) -> None:
        msg_ids = list(self.to_fetch)[:FETCHED_AT_A_TIME]
        self._fetching = bool(msg_ids)
        if not msg_ids:
            return
        try:
            self._host.ask_store(lambda store: store.get(msg_ids), partial(self._fetched, msg_ids))
        except Exception as error:
            self._give_out(msg_ids, self._notices.failed("fetch", error))

    def _fetched(self, msg_ids: list[str], answer: Any) -> None:
        failed = isinstance(answer, Exception)
        self._failures = self._failures + 1 if failed else 0
        if failed and self._failures < FETCH_ATTEMPTS and not self.stopping:
            try:
                self._host.call_later(FETCH_PAUSE, self._fetch)  # a database that is gone may come back
            except Exception as error:
                self._notices.failed("fetch", error)
            else:
                return
        self._failures = 0
        self._give_out(msg_ids, answer)

    def _give_out(self, msg_ids: list[str], answer: Any) -> None:
        """Give tasks their frames, or the error in place of the frames, and go on with the next tasks."""
        for msg_id in msg_ids:
            task, fetched = self.to_fetch.pop(msg_id)
            found: Frames | HubError
            try:
                if isinstance(answer, Exception):
                    raise answer
                if msg_id not in answer:
                    raise EngineError("its record is gone")
                found = request_frames(answer[msg_id], self._session)
            except Exception as error:
                found = EngineError(f"the request cannot be read from the task database: {error}")
            fetched(task, found)
        self._fetch()
