"""Passes requests from the thread that owns the sockets to the main thread, and passes their answers back."""

from __future__ import annotations

import threading
from collections import OrderedDict, deque
from collections.abc import Callable
from contextlib import suppress
from queue import SimpleQueue
from typing import Any, NamedTuple

from ..wire.frames import Frames
from ..wire.messages import Message

__all__ = ["Answer", "Job", "Jobs"]

MAX_ABORTED = 10_000
"""The maximum number of remembered ids of requests that are to be aborted when they come."""


class Answer(NamedTuple):
    """The answer to a request. ``content`` has the status."""

    content: dict[str, Any]
    buffers: Frames
    metadata: dict[str, Any]


ABORTED = Answer({"status": "aborted"}, [], {"status": "aborted"})


class Job:
    """A request for the main thread.

    - ``message``: the request. ``msg_id`` and ``msg_type`` are fields of its header.
    - ``channel``: ``shell`` or ``control``: where the answer goes.
    - ``started``, ``seconds``: when the job began, as ISO 8601 text, and how long it took.
    - ``answer``: set when the job is done; None if nobody is to be answered.
    """

    __slots__ = ("_claim", "answer", "channel", "message", "msg_id", "msg_type", "seconds", "started")

    def __init__(self, message: Message, channel: str) -> None:
        self.message = message
        self.msg_id = message.header.msg_id
        self.msg_type = message.header.msg_type
        self.channel = channel
        self.started = ""
        self.seconds = 0.0
        self.answer: Answer | None = None
        self._claim = threading.Lock()

    def claim(self) -> bool:
        """Return True once: to the main thread, which then carries the job out, or to a caller that aborts the job."""
        return self._claim.acquire(blocking=False)


class Jobs:
    """The jobs that wait, and the finished jobs whose answers are not sent yet.

    Args:
        wake: called when a job is finished. Any thread may call it.
    """

    def __init__(self, wake: Callable[[], None]) -> None:
        self._wake = wake
        self._arrived: list[Job] = []
        self._waiting: SimpleQueue[Job | None] = SimpleQueue()
        self._pending: dict[str, Job] = {}
        self._aborted: OrderedDict[str, None] = OrderedDict()
        self.finished: deque[Job] = deque()
        self._lingering = False
        self._bell = threading.Lock()
        self._bell.acquire()

    # In the thread of the sockets

    def put(self, job: Job) -> None:
        """Add a job for the main thread, or abort it if it was to be aborted when it comes.

        The main thread gets the job at the next call of `hand_over`.
        """
        if self._aborted and self._aborted.pop(job.msg_id, self) is None:
            self.finish(job, ABORTED)
            return
        self._pending[job.msg_id] = job
        self._arrived.append(job)

    def hand_over(self) -> None:
        """Let the main thread have the jobs that were put.

        This wakes the main thread, which then wants Python's lock. So it should be this thread's last act before this
        thread waits: otherwise both threads contend for the lock, which costs more than a quick job.
        """
        for job in self._arrived:
            self._waiting.put(job)
        self._arrived.clear()

    def abort(self, msg_id: str) -> None:
        """Abort a job that has not begun, or that has not come yet. A job that runs goes on."""
        job = self._pending.get(msg_id)
        if job is None:
            self._aborted[msg_id] = None
            if len(self._aborted) > MAX_ABORTED:
                self._aborted.popitem(last=False)
        elif job.claim():
            self.finish(job, ABORTED)

    def linger(self, seconds: float) -> bool:
        """Wait for a job to be finished, blocking this thread. Return whether one is.

        Most jobs are quick. To wait for them here costs a fraction of what it costs to be woken by another thread.
        """
        self._bell.acquire(blocking=False)  # a ring that came too late for the last call
        self._lingering = True
        if not self.finished:
            self._bell.acquire(timeout=seconds)
        self._lingering = False
        # A job is appended before `finish` looks whether this thread lingers: so none is missed.
        return bool(self.finished)

    def end(self) -> None:
        """Tell the main thread to end, after the jobs that wait."""
        self.hand_over()
        self._waiting.put(None)

    # In any thread

    def abort_all(self, msg_type: str | None = None) -> None:
        """Abort all jobs that have not begun, or those of one type."""
        for job in list(self._pending.values()):
            if msg_type in (None, job.msg_type) and job.claim():
                self.finish(job, ABORTED)

    def finish(self, job: Job, answer: Answer | None) -> None:
        """Answer a job. The thread of the sockets sends the answer."""
        self._pending.pop(job.msg_id, None)
        job.answer = answer
        self.finished.append(job)
        if self._lingering:
            with suppress(RuntimeError):  # another thread has rung
                self._bell.release()
        else:
            self._wake()

    @property
    def outstanding(self) -> int:
        """The number of jobs that wait or run."""
        return len(self._pending)

    # In the main thread

    def next(self) -> Job | None:
        """Wait for the next job, and claim it. None: there will be no more."""
        while True:
            job = self._waiting.get()
            if job is None or job.claim():
                return job
