"""The requests that wait for the main thread, and their answers."""

from __future__ import annotations

import threading
from collections import OrderedDict, deque
from collections.abc import Callable
from typing import Any, NamedTuple

from ..wire.frames import Frames
from ..wire.messages import Message
from .turns import ShellReader, Turn

__all__ = ["Answer", "Job", "Jobs"]

MAX_ABORTED = 10_000
"""The maximum number of remembered ids of requests that are to be aborted when they come."""
MAX_AIMS = 4
"""The maximum number of remembered signals that are meant for one job. User code may have handled the older ones."""


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
    - ``started``: when the job began, as ISO 8601 text.
    - ``answer``: set when the job is done; None if nobody is to be answered.
    - ``interrupted``: whether an interrupt came for it before it began.
    """

    __slots__ = ("_claim", "answer", "channel", "interrupted", "message", "msg_id", "msg_type", "started")

    def __init__(self, message: Message, channel: str) -> None:
        self.message = message
        self.msg_id = message.header.msg_id
        self.msg_type = message.header.msg_type
        self.channel = channel
        self.started = ""
        self.answer: Answer | None = None
        self.interrupted = False
        self._claim = threading.Lock()

    def claim(self) -> bool:
        """Return True once: to the main thread, which then carries the job out, or to a caller that aborts the job."""
        return self._claim.acquire(blocking=False)

    @property
    def is_claimed(self) -> bool:
        """Whether the main thread carries the job out, or has done so, or the job was aborted."""
        return self._claim.locked()


class Jobs:
    """The jobs that wait, and the finished jobs whose answers are not sent yet.

    All methods are for a thread that has the turn (`trio_hub.engine.turns.Turn`), where nothing else is said.

    Args:
        turn: the lock of the sockets.
        reader: receives requests, and lets the main thread wait for them.
        send: sends the answers of finished jobs.
    """

    def __init__(self, turn: Turn, reader: ShellReader, send: Callable[[], None]) -> None:
        self._turn = turn
        self._reader = reader
        self._send = send
        self._waiting: deque[Job | None] = deque()
        self._pending: dict[str, Job] = {}
        self._aborted: OrderedDict[str, None] = OrderedDict()
        self._abort_after: str | None = None
        self.finished: deque[Job] = deque()
        self.aims: deque[Job] = deque(maxlen=MAX_AIMS)
        """The job for which each SIGINT is meant that was sent by `aim`, and that the main thread has not handled."""

    def put(self, job: Job) -> None:
        """Add a job for the main thread, or abort it if it was to be aborted when it comes."""
        if self._aborted and self._aborted.pop(job.msg_id, self) is None:
            self._finish(job, ABORTED)
            self._send()
            return
        self._pending[job.msg_id] = job
        self._waiting.append(job)
        self._reader.ring()

    def abort(self, msg_id: str) -> bool:
        """Abort a job that has not begun, or that has not come yet. Return False if the job runs: then it goes on."""
        self._reader.collect()
        job = self._pending.get(msg_id)
        if job is None:
            self._aborted[msg_id] = None
            if len(self._aborted) > MAX_ABORTED:
                self._aborted.popitem(last=False)
        elif job.claim():
            self._finish(job, ABORTED)
            self._send()
        else:
            return False
        return True

    def aim(self, msg_id: str) -> bool:
        """Prepare the main thread for a SIGINT that is meant for one job only. Return False if that job does not run.

        The caller sends the signal before it gives the turn back: the job cannot end before, so that the signal comes
        before the next job begins.
        """
        job = self._pending.get(msg_id)
        if job is None or not job.is_claimed:
            return False
        self.aims.append(job)
        return True

    def abort_all(self, msg_type: str | None = None) -> None:
        """Abort all jobs that have come and not begun, or those of one type."""
        self._reader.collect()
        for job in list(self._pending.values()):
            if msg_type in (None, job.msg_type) and job.claim():
                self._finish(job, ABORTED)
        self._send()

    @property
    def running(self) -> Job | None:
        """The job that the main thread carries out; None if there is none."""
        return next((job for job in self._pending.values() if job.is_claimed), None)

    @property
    def is_idle(self) -> bool:
        """Whether all jobs that have come are answered, and their answers were sent."""
        return not self._pending and not self.finished

    def _finish(self, job: Job, answer: Answer | None) -> None:
        self._pending.pop(job.msg_id, None)
        job.answer = answer
        self.finished.append(job)

    def end(self) -> None:
        """Tell the main thread to end, after the jobs that wait. For a thread that does not have the turn."""
        with self._turn:
            self._waiting.append(None)
            self._reader.ring()

    # In the main thread, without the turn

    def next(self) -> Job | None:
        """Wait for the next job, and claim it. None: there will be no more."""
        while True:
            while self._waiting:
                job = self._waiting.popleft()
                if job is None or job.claim():
                    return job
            self._reader.wait(lambda: self._waiting)

    def finish(self, job: Job, answer: Answer | None) -> None:
        """Answer a job, and abort the jobs that `abort_after` has named."""
        with self._turn:
            self._finish(job, answer)
            if self._abort_after is not None:
                abort, self._abort_after = self._abort_after, None
                self.abort_all(abort)
            else:
                self._send()

    def abort_after(self, msg_type: str) -> None:
        """Abort all jobs of a type that will have come, and not begun, when the job that runs is finished."""
        self._abort_after = msg_type
