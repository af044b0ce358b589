"""Requests that wait: for the disk, in memory, or, if they are too many, on disk only."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from functools import partial
from itertools import islice
from typing import Any, ParamSpec, TypeAlias

from ..errors import EngineError, HubError
from ..records import Store
from ..records.record import TaskRecord
from ..schedulers.task import Task
from ..wire.frames import Frames
from ..wire.messages import Message, Session
from .custody import custody_of_request, request_frames
from .notices import Notices
from .ports import Host
from .withdrawn import Withdrawn

__all__ = ["STOPPED", "Fetched", "Intake"]

STOPPED = "the hub has been stopped"
FETCHED_AT_A_TIME = 100
"""The maximum number of requests that are read from the store in one call."""
FETCH_ATTEMPTS, FETCH_PAUSE = 60, 1.0
"""Attempts to read requests while the store gives errors, and seconds between two attempts."""
PART_FOR_FRAMES = 0.5
"""The part of the memory for queued tasks that their frames may take up; the rest is for the objects around them."""
ROOM = 0.8
"""The hub receives tasks again when at most this part of the memory for queued tasks is in use."""
RECORDED_CHANNELS = ("task_in", "mux_in", "broadcast_in")

P = ParamSpec("P")

Fetched: TypeAlias = Callable[[Task, Frames | HubError], None]
"""A callback that gets the frames of a task, or an error if they could not be read. Must not raise."""


class Intake:
    """Records new requests, and keeps queued tasks within a limit on memory.

    Args:
        host, session, store: access to channels and records.
        notices: counts and logs errors.
        strict: whether requests are on disk before an engine sees them.
        queue_memory: bytes of memory that queued tasks may take up. With a durable store, the frames of further tasks
            are kept only in the store, and read when an engine is to have the task. Otherwise the hub receives no more
            tasks while there is no room.
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
        """Whether the hub stops, and accepts no more requests."""
        self.carried_on = False
        """Whether the hub stops in such a way that another hub can carry on."""
        self.uncommitted: set[str] = set()
        """The msg_ids of a strict hub's requests that are not on disk yet, and so are not handled yet."""
        self.withdrawn = Withdrawn()
        """The requests that were aborted before a queue had them."""
        self.held_bytes = 0
        """Bytes of memory that the frames of queued tasks take up."""
        # Not a dict: finding a dict's first items takes the longer, the more items were removed before them.
        self.to_fetch: OrderedDict[str, tuple[Task, Fetched]] = OrderedDict()
        """The tasks whose frames are to be read from the store, by msg_id."""
        self._full = False
        self._crowded = False
        self._held_back = False
        self._fetching = False
        self._failures = 0

    def close(self, *, carried_on: bool) -> None:
        """Accept no more requests, since the hub stops."""
        self.stopping = True
        self.carried_on = carried_on

    # To disk

    def record(
        self,
        record: TaskRecord,
        idents: list[bytes],
        msg: Message,
        since: float | None = None,
        ruled: bytes = b"",
    ) -> None:
        """Record a request of a client.

        Args:
            record, idents, msg: the record, the client's routing identities, and the request.
            since: the time from which the timeout of the request counts (`Custody`).
            ruled: the rules of a task as `packed_rules` returns them; empty if there are none.
        """
        if self._durable:
            is_json = self._session.packer.is_json
            record.custody = custody_of_request(idents, msg, is_json=is_json, since=since, ruled=ruled).pack()
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
        except Exception as error:  # accepting too many requests is better than accepting none for ever
            self._notices.failed("intake", error)
        self._crowded = False
        self._tell_host()

    def when_recorded(self, msg_id: str, call: Callable[P, None], *args: P.args, **kwargs: P.kwargs) -> None:
        """Make a call at once; if the hub is strict, when the request is on disk. The call must not raise."""
        if self.strict:
            self._when_committed(msg_id, partial(call, *args, **kwargs))
        else:
            call(*args, **kwargs)

    def _when_committed(self, msg_id: str, call: Callable[[], None]) -> None:
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
        """Call ``call`` at once; if the hub is strict, when everything that was recorded until now is on disk."""
        if self.strict:
            self._store.after_commit(call)
        else:
            call()

    # In memory

    def hold(self, task: Task) -> None:
        """Keep a queued task's frames in memory; without room, if the store is durable, only in the store."""
        if task.frames is None:
            return
        size = sum(map(len, task.frames))
        if self._durable and self.held_bytes + size > PART_FOR_FRAMES * self._queue_memory:
            task.frames = None
            return
        task.queue_bytes = size
        self.held_bytes += size
        if self.held_bytes > self._queue_memory and not self._full:
            self._full = True
            self._tell_host()

    def let_go(self, task: Task) -> None:
        """Free the memory of a task that is no longer queued."""
        self.held_bytes -= task.queue_bytes
        task.queue_bytes = 0
        if self._full and self.held_bytes <= ROOM * self._queue_memory:
            self._full = False
            self._tell_host()

    def hold_back(self, held_back: bool) -> None:
        """Stop receiving requests of the recorded queues, or receive them again."""
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
        """Read the frames of a task from the store, for the engine that is to have the task."""
        self.to_fetch[task.msg_id] = task, fetched
        if not self._fetching:
            self._fetch()

    def _fetch(self) -> None:
        msg_ids = list(islice(self.to_fetch, FETCHED_AT_A_TIME))
        self._fetching = bool(msg_ids)
        if not msg_ids:
            return
        try:
            self._host.ask_store(lambda store: store.fetch(msg_ids), partial(self._fetched, msg_ids))
        except Exception as error:
            self._give_out(msg_ids, self._notices.failed("fetch", error))

    def _fetched(self, msg_ids: list[str], answer: Any) -> None:
        failed = isinstance(answer, Exception)
        self._failures = self._failures + 1 if failed else 0
        if failed and self._failures < FETCH_ATTEMPTS and not self.stopping:
            try:
                self._host.call_later(FETCH_PAUSE, self._fetch)  # the database may be reachable again then
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
