"""A task in the load-balanced queue, and an engine as that queue sees it."""

from __future__ import annotations

import math
from enum import Enum
from typing import Protocol

from ..errors import WireError
from ..wire.frames import Frames
from ..wire.messages import TaskMetadata
from .dependencies import TaskDependency, parse_dependency

__all__ = ["SentBy", "Task", "TaskState", "Timer", "Worker", "WorkerState"]


# One for all: an empty set of its own takes up 216 bytes, and there may be a million tasks.
_NO_ENGINES: frozenset[bytes] = frozenset()
_NO_IDS: frozenset[str] = frozenset()


class TaskState(Enum):
    """Every task that the scheduler knows is in exactly one of these."""

    WAITING = "waiting"
    """Waits for what it depends on."""
    QUEUED = "queued"
    """Waits for an engine with room."""
    RUNNING = "running"
    """Sent to an engine that is registered, or within the grace of one that is lost."""
    DONE = "done"
    """Answered, once; the scheduler has forgotten it."""


class SentBy(Enum):
    """Which hub has sent a request to an engine. Each request is in exactly one of these states.

    A request of a client begins as `NOBODY`. A request in the records of an earlier hub begins as `EARLIER_HUB` if its
    record names an engine, else as `PERHAPS_EARLIER_HUB`.
    """

    NOBODY = "nobody"
    """No hub has sent the request. When this hub sends it: `THIS_HUB`."""
    THIS_HUB = "this hub"
    """This hub has sent the request, perhaps several times, and no earlier hub knew it. The last state."""
    EARLIER_HUB = "an earlier hub"
    """An earlier hub has sent the request, or was about to, and the request runs there. When the engine cannot answer
    it any more, and it is to be placed anew: `PERHAPS_EARLIER_HUB`."""
    PERHAPS_EARLIER_HUB = "perhaps an earlier hub"
    """An earlier hub has left the request, and may have sent it to an engine, which may answer. When this hub sends the
    request: `BOTH`."""
    BOTH = "both"
    """An earlier hub has left the request, and this hub has sent it. Engines of either may answer. The last state."""

    @property
    def is_left(self) -> bool:
        """Whether an earlier hub has left the request: an engine may answer that this hub has not asked."""
        return self not in (SentBy.NOBODY, SentBy.THIS_HUB)


class WorkerState(Enum):
    """What the scheduler may do with an engine; the hub derives it from the state of the engine's life."""

    EXPECTED = "expected"
    """The engine is one of an earlier hub, and gets nothing yet. When it is back: `USABLE`; if it is not: `LOST`."""
    USABLE = "usable"
    """The engine gets tasks."""
    LOST = "lost"
    """The engine gets nothing more. What it runs may still be answered, until it is settled."""


class Timer(Protocol):
    """What the scheduler needs of a timeout: a way to call it off."""

    def cancel(self) -> object: ...


class Worker:
    """An engine as the task queue sees it: what it runs, and when it last got something."""

    __slots__ = ("feeding", "ident", "last_used", "running", "state")

    def __init__(self, ident: bytes, state: WorkerState = WorkerState.USABLE) -> None:
        self.ident = ident
        self.state = state
        self.feeding = False
        """Whether it is to get more of the queued tasks soon, before any new task."""
        self.running: dict[str, Task] = {}
        self.last_used = 0

    def __repr__(self) -> str:
        state = "" if self.state is WorkerState.USABLE else f" {self.state.value}"
        return f"<Worker {self.ident!r} load={self.load}{state}>"

    @property
    def load(self) -> int:
        """How many tasks are outstanding on it."""
        return len(self.running)


class Task:
    """One task, from its submission until it is answered.

    - ``number``: its place in the order of submissions;
    - ``targets``: the engines that may run it; None for all engines;
    - ``refused``: the engines that must not get it (again), since it failed there, or its dependency was not met there;
    - ``unmet``: the engines among them at which its dependency was not met. A failure may be forgiven; asking these
      engines again would give the same answer;
    - ``after``, ``follow``: what it depends on;
    - ``unknown``: the msg_ids of these of which only the store may know;
    - ``timeout``: how long it may wait, in seconds; ``timer`` runs while it waits;
    - ``waited``: the seconds of that time that had passed before this hub began;
    - ``frames``: its message; None while the message is only in the task database;
    - ``queue_bytes``: the bytes of `queue_memory` that it takes up;
    - ``raw_header``: its header as it came;
    - ``sent_by``: which hub has sent it to an engine;
    - ``aborted``: whether a client has aborted it; then no engine gets it any more.

    Raises:
        InvalidDependency: its metadata states a dependency of no known form.
        WireError: its timeout is not a number of seconds.
    """

    __slots__ = (
        "aborted",
        "after",
        "asked_targets",
        "follow",
        "frames",
        "idents",
        "msg_id",
        "msg_type",
        "number",
        "queue_bytes",
        "raw_header",
        "refused",
        "retries",
        "sent_by",
        "session",
        "state",
        "targets",
        "timeout",
        "timer",
        "unknown",
        "unmet",
        "waited",
        "worker",
    )

    def __init__(
        self,
        msg_id: str,
        idents: list[bytes],
        frames: Frames | None,
        *,
        session: str = "",
        msg_type: str = "apply_request",
        raw_header: bytes = b"{}",
        metadata: TaskMetadata | None = None,
    ) -> None:
        metadata = metadata or TaskMetadata()
        self.msg_id = msg_id
        self.msg_type = msg_type
        self.idents = idents
        self.frames = frames
        self.raw_header = raw_header
        self.queue_bytes = 0
        self.sent_by = SentBy.NOBODY
        self.aborted = False
        self.session = session
        self.targets: frozenset[bytes] | None = None
        if metadata.targets:
            self.targets = frozenset(target.encode("utf-8", "replace") for target in metadata.targets)
        self.asked_targets = self.targets
        self.retries = metadata.retries or 0
        after, follow = metadata.after, metadata.follow
        self.after: TaskDependency | None = None if after is None else parse_dependency(after, "after")
        self.follow: TaskDependency | None = None if follow is None else parse_dependency(follow, "follow")
        self.unknown: frozenset[str] = _NO_IDS
        self.timeout = metadata.timeout or 0.0
        if self.timeout and not math.isfinite(self.timeout):
            raise WireError("wrong_type", f"timeout must be a number of seconds, not {self.timeout}")
        self.waited = 0.0
        self.timer: Timer | None = None
        self.refused: frozenset[bytes] = _NO_ENGINES
        self.unmet: frozenset[bytes] = _NO_ENGINES
        self.state = TaskState.QUEUED
        self.worker: Worker | None = None
        self.number = 0

    def __repr__(self) -> str:
        return f"<Task {self.msg_id} {self.state.value}>"

    @property
    def depends_on(self) -> set[str]:
        """The msg_ids of which it still needs to hear."""
        open_ids = set(self.after.open) if self.after else set()
        return open_ids | self.follow.open if self.follow else open_ids

    def accepts(self, ident: bytes) -> bool:
        """Whether the engine of this identity may get it."""
        return ident not in self.refused and (self.targets is None or ident in self.targets)
