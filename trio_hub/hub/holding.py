"""Where requests are while they wait: on their way to disk, in memory, or, if there are too many, on disk only."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from typing import Any

from ..errors import EngineError
from ..schedulers.task import Task
from ..store.record import TaskRecord
from ..wire.frames import Frames
from ..wire.messages import Message
from .answering import Answering
from .connector import EngineConnector
from .custody import custody_of_request, request_frames

__all__ = ["Holding"]

FETCHED_AT_A_TIME = 100
"""Requests that are read from the store at a time."""
FETCH_ATTEMPTS, FETCH_PAUSE = 60, 1.0
"""How often they are tried to be read while the store gives errors, and seconds between two attempts."""
PART_FOR_FRAMES = 0.5
"""The part of the memory for queued tasks that their frames may take up; the rest is for what each needs besides."""
ROOM = 0.8
"""Tasks are received again when no more than this part of the memory for them is in use."""
RECORDED_CHANNELS = ("task_in", "mux_in", "broadcast_in")


class Holding(Answering):
    """The part of the hub that keeps what waits, within the memory there is for it."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.held_bytes = 0
        """Memory that queued tasks take up: their frames."""
        self._full = False
        self._crowded = False
        self._held_back = False
        self._to_fetch: dict[str, Task] = {}
        self._fetching = False
        self._failures = 0

    @abstractmethod
    def send_task(self, task: Task, engine: EngineConnector, frames: Frames) -> None:
        """Send a task to the engine that the scheduler has chosen."""

    # To disk

    def record(self, record: TaskRecord, idents: list[bytes], msg: Message) -> None:
        """Record a request that has come from a client."""
        if self.store.durable:
            record.custody = custody_of_request(idents, msg, is_json=self.session.packer.is_json).pack()
        self.store.add(record)
        if self.store.crowded and not self._crowded:
            self._crowded = True
            self._tell_intake()
            self.store.after_commit(self._look_at_store)

    def _look_at_store(self) -> None:
        if self.store.crowded:
            self.store.after_commit(self._look_at_store)
        else:
            self._crowded = False
            self._tell_intake()

    def when_recorded(self, msg_id: str, call: Callable[[], None]) -> None:
        """Go on with a request, now; or, if the hub is strict, when it is on disk."""
        if not self.strict:
            call()
            return

        def go_on() -> None:
            self.uncommitted.discard(msg_id)
            call()

        self.uncommitted.add(msg_id)
        self.store.after_commit(go_on)

    # In memory

    def hold(self, task: Task) -> None:
        """A task has to wait: keep its frames, if there is room."""
        if task.frames is None:
            return
        size = sum(map(len, task.frames))
        if self.store.durable and self.held_bytes + size > PART_FOR_FRAMES * self.queue_memory:
            task.frames = None
            return
        task.held = size
        self.held_bytes += size
        if self.held_bytes > self.queue_memory and not self._full:
            self._full = True
            self._tell_intake()

    def let_go(self, task: Task) -> None:
        """A task waits no longer."""
        self.held_bytes -= task.held
        task.held = 0
        if self._full and self.held_bytes <= ROOM * self.queue_memory:
            self._full = False
            self._tell_intake()

    def hold_back(self, held_back: bool) -> None:
        """Receive no requests that are recorded for now; or do so again."""
        if held_back is not self._held_back:
            self._held_back = held_back
            self._tell_intake()

    def _tell_intake(self) -> None:
        if self._crowded or self._held_back:
            self.host.hold_intake(RECORDED_CHANNELS)
        else:
            self.host.hold_intake(("task_in",) if self._full else ())

    # From disk

    def fetch(self, task: Task) -> None:
        """An engine is to have a task whose frames are only in the store."""
        self._to_fetch[task.msg_id] = task
        if not self._fetching:
            self._fetch()

    def _fetch(self) -> None:
        msg_ids = list(self._to_fetch)[:FETCHED_AT_A_TIME]
        self._fetching = bool(msg_ids)
        if msg_ids:
            self.host.ask_store(lambda store: store.get(msg_ids), lambda answer: self._fetched(msg_ids, answer))

    def _fetched(self, msg_ids: list[str], answer: Any) -> None:
        failed = isinstance(answer, Exception)
        self._failures = self._failures + 1 if failed else 0
        if failed and self._failures < FETCH_ATTEMPTS and not self.stopping:
            self.host.call_later(FETCH_PAUSE, self._fetch)  # a database that is gone may come back
            return
        self._failures = 0
        for msg_id in msg_ids:
            task = self._to_fetch.pop(msg_id)
            if task.worker is None or self.scheduler.tasks.get(msg_id) is not task:
                continue  # it was given up meanwhile, or its engine is gone and it waits for another
            try:
                if failed:
                    raise answer
                if msg_id not in answer:
                    raise EngineError("its record is gone")
                frames = request_frames(answer[msg_id], self.session)
            except Exception as error:
                reason = EngineError(f"the request cannot be read from the task database: {error}")
                self.scheduler.abandon_unsent(task, reason)
                continue
            task.frames = frames
            if task.worker.lost:
                self.scheduler.run_again(task)  # it was never sent there
            else:
                self.send_task(task, self.by_ident[task.worker.ident], frames)
        self._fetch()
