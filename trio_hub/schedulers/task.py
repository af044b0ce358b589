"""A task in the load-balanced queue, and an engine as that queue sees it."""

from __future__ import annotations

from enum import Enum

from ..wire.frames import Frames
from ..wire.messages import TaskMetadata

__all__ = ["Task", "TaskState", "Worker"]


class TaskState(Enum):
    """Every task that the scheduler knows is in exactly one of these."""

    QUEUED = "queued"
    """Waits for an engine with room."""
    RUNNING = "running"
    """Sent to an engine that is registered, or within the grace of one that is lost."""
    DONE = "done"
    """Answered, once; the scheduler has forgotten it."""


class Worker:
    """An engine as the task queue sees it: what it runs, and when it last got something."""

    __slots__ = ("ident", "last_used", "lost", "running")

    def __init__(self, ident: bytes) -> None:
        self.ident = ident
        self.running: dict[str, Task] = {}
        self.last_used = 0
        self.lost = False

    def __repr__(self) -> str:
        return f"<Worker {self.ident!r} load={self.load}{' lost' if self.lost else ''}>"

    @property
    def load(self) -> int:
        """How many tasks are outstanding on it."""
        return len(self.running)


class Task:
    """One task, from submission until it is answered.

    ``number`` counts submissions, ``targets`` is None for "any engine", ``refused`` holds the engines that
    must not get it (again): they failed it, or did not meet its functional dependency. The latter are in
    ``unmet`` as well: failing may be forgiven, but asking them again would give the same answer.
    """

    __slots__ = (
        "frames",
        "idents",
        "metadata",
        "msg_id",
        "number",
        "refused",
        "retries",
        "session",
        "state",
        "targets",
        "unmet",
        "worker",
    )

    def __init__(
        self,
        msg_id: str,
        idents: list[bytes],
        frames: Frames,
        *,
        session: str = "",
        metadata: TaskMetadata | None = None,
    ) -> None:
        metadata = metadata or TaskMetadata()
        self.msg_id = msg_id
        self.idents = idents
        self.frames = frames
        self.session = session
        self.metadata = metadata
        self.targets: frozenset[bytes] | None = None
        if metadata.targets:
            self.targets = frozenset(target.encode("utf-8", "replace") for target in metadata.targets)
        self.retries = metadata.retries or 0
        self.refused: frozenset[bytes] = frozenset()
        self.unmet: frozenset[bytes] = frozenset()
        self.state = TaskState.QUEUED
        self.worker: Worker | None = None
        self.number = 0

    def __repr__(self) -> str:
        return f"<Task {self.msg_id} {self.state.value}>"

    def accepts(self, ident: bytes) -> bool:
        """Whether the engine of this identity may get it."""
        return ident not in self.refused and (self.targets is None or ident in self.targets)
