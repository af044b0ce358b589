"""A task, and an engine as the scheduler sees it."""

from __future__ import annotations

import math
from enum import Enum
from typing import TYPE_CHECKING, Protocol

from ..errors import WireError
from ..wire.frames import Frames
from ..wire.messages import TaskMetadata
from .dependencies import Outcome, TaskDependency, parse_dependency
from .rules import NO_RULES, Needs, TaskRules

if TYPE_CHECKING:
    from .matching import Demand, Kind

__all__ = ["SentBy", "Task", "TaskState", "Timer", "Worker", "WorkerState"]


# All tasks share these empty sets: a set takes up 216 bytes, and there may be a million tasks.
_NO_ENGINES: frozenset[bytes] = frozenset()
_NO_IDS: frozenset[str] = frozenset()


class TaskState(Enum):
    """The state of a task in the scheduler."""

    WAITING = "waiting"
    """The task waits for the requests on which it depends."""
    PAUSED = "paused"
    """The task has failed, and waits for the end of the pause before its next attempt."""
    QUEUED = "queued"
    """The task waits for an engine with room."""
    RUNNING = "running"
    """The task was sent to an engine that is registered, or lost and still within its grace."""
    DONE = "done"
    """The task is answered, and the scheduler has forgotten it."""


class SentBy(Enum):
    """Which hub has sent a request to an engine. Each request is in exactly one of these states.

    A request of a client begins as `NOBODY`. A request in the records of an earlier hub begins as `EARLIER_HUB` if its
    record names an engine, else as `PERHAPS_EARLIER_HUB`.
    """

    NOBODY = "nobody"
    """No hub has sent the request. When this hub sends it: `THIS_HUB`."""
    THIS_HUB = "this hub"
    """This hub has sent the request, perhaps several times, and no earlier hub knew it. No other state follows."""
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
    """What the scheduler may do with an engine. The hub derives it from the engine's `EngineState`."""

    EXPECTED = "expected"
    """The engine is one of an earlier hub, and gets no tasks yet. When it is back: `USABLE`; if it is lost: `LOST`."""
    USABLE = "usable"
    """The engine gets tasks."""
    LOST = "lost"
    """The engine gets no more tasks. It may still answer its running tasks, until it is settled."""


# Globals for code that runs for each task: looking up a member of an enum takes five times as long as a global.
_NOBODY, _QUEUED = SentBy.NOBODY, TaskState.QUEUED


class Timer(Protocol):
    """A timer, as the scheduler uses it."""

    def cancel(self) -> object: ...


class Worker:
    """An engine as the scheduler sees it: its running tasks, what it offers, and when it got its last task.

    ``succeeded`` and ``failed`` are the outcomes of the tasks that it answers.
    """

    __slots__ = (
        "draining",
        "failed",
        "feeding",
        "free",
        "holds",
        "ident",
        "kind",
        "last_used",
        "offers",
        "reserved",
        "running",
        "shelf",
        "state",
        "succeeded",
        "takes_tasks",
    )

    def __init__(self, ident: bytes, state: WorkerState = WorkerState.USABLE, offers: Needs = ()) -> None:
        self.ident = ident
        self.state = state
        self.offers = offers
        """The engine's tags and amounts. Set them by `TaskScheduler.set_offers`."""
        self.draining = False
        """Whether the engine gets no new tasks, until `TaskScheduler.undrain`."""
        self.holds = 0
        """The number of calls of `TaskScheduler.hold` without a `release` yet. Until then, the engine gets no tasks."""
        self.takes_tasks = False
        """Whether the engine gets tasks when it has room: it is usable, and neither drained nor held."""
        self.update()
        self.feeding = False
        """Whether the engine is to get more of the queued tasks soon, before any new task."""
        self.reserved = False
        """Whether the engine gets no tasks until it has enough free for a task that has waited for long."""
        self.running: dict[str, Task] = {}
        self.last_used = 0
        self.kind: Kind | None = None
        """What the engine offers, as far as tasks ask for it; None if the engine is gone."""
        self.free: tuple[int, ...] = ()
        """How much of each amount of its kind is not in use."""
        self.shelf: tuple[int, ...] | None = None
        """Under which free amounts its kind keeps the engine; None if it has no room, or offers nothing."""
        # Made once, since making an outcome takes as long as several steps of the scheduler.
        self.succeeded = Outcome(True, ident)
        self.failed = Outcome(False, ident)

    def __repr__(self) -> str:
        state = "" if self.state is WorkerState.USABLE else f" {self.state.value}"
        return f"<Worker {self.ident!r} load={self.load}{state}>"

    @property
    def load(self) -> int:
        """The number of tasks that are outstanding on the engine."""
        return len(self.running)

    def update(self) -> None:
        """Find out anew whether the engine gets tasks, after its state, `draining` or `holds` has changed."""
        self.takes_tasks = self.state is WorkerState.USABLE and not self.draining and not self.holds


class Task:
    """One task, from its submission until it is answered.

    - ``number``: the task's place in the order of submissions;
    - ``targets``: the engines that may run the task; None for all engines;
    - ``refused``: the engines that do not get the task again: it failed there, or its dependency was not met there;
    - ``unmet``: the refused engines at which the dependency was not met. The task may be sent again to an engine on
      which it failed, but not to these: they would give the same answer;
    - ``after``, ``follow``: the task's dependencies;
    - ``unknown``: the msg_ids among the dependencies whose outcomes the store is asked for;
    - ``timeout``: the seconds for which the task may wait; ``timer`` runs while the task waits;
    - ``pause``: the timer that runs while the task is paused;
    - ``patience``: the timer that runs while the task may be one that no engine can run (`Timers.patience`);
    - ``is_hopeless``: whether no engine could run the task when that timer was started;
    - ``paused_until``: when the last pause ends, by the host's clock, for the host;
    - ``pause_left``: the seconds of a pause that were left when this hub began;
    - ``waited``: the seconds of the timeout that had passed before this hub began;
    - ``frames``: the message; None while the message is only in the task database;
    - ``queue_bytes``: the bytes of `queue_memory` that the task takes up;
    - ``raw_header``: the packed header, as the client sent it;
    - ``sent_by``: which hub has sent the task to an engine;
    - ``aborted``: whether a client has aborted the task; then no further engine gets it;
    - ``rules``: the task's rank, limits and needs;
    - ``policies``: the names of the policies that have set some of the rules;
    - ``attempts``: the number of attempts that engines have begun, without those that do not count (`take_away`);
    - ``deaths``: the engines with which the task was lost;
    - ``demand``: what the task needs of an engine; None if it needs nothing.

    Raises:
        InvalidDependency: the metadata has a dependency of an unknown form.
        WireError: the timeout is not a number of seconds.
    """

    __slots__ = (
        "aborted",
        "after",
        "asked_targets",
        "attempts",
        "deaths",
        "demand",
        "follow",
        "frames",
        "idents",
        "is_hopeless",
        "msg_id",
        "msg_type",
        "number",
        "patience",
        "pause",
        "pause_left",
        "paused_until",
        "policies",
        "queue_bytes",
        "raw_header",
        "refused",
        "retries",
        "rules",
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
        rules: TaskRules = NO_RULES,
        policies: tuple[str, ...] = (),
    ) -> None:
        metadata = metadata or TaskMetadata()
        self.msg_id = msg_id
        self.msg_type = msg_type
        self.idents = idents
        self.frames = frames
        self.raw_header = raw_header
        self.queue_bytes = 0
        self.sent_by = _NOBODY
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
        self.pause: Timer | None = None
        self.patience: Timer | None = None
        self.is_hopeless = False
        self.paused_until = 0.0
        self.pause_left = 0.0
        self.refused: frozenset[bytes] = _NO_ENGINES
        self.unmet: frozenset[bytes] = _NO_ENGINES
        self.rules = rules
        self.policies = policies
        self.attempts = 0
        self.deaths: tuple[bytes, ...] = ()
        self.demand: Demand | None = None
        self.state = _QUEUED
        self.worker: Worker | None = None
        self.number = 0

    def __repr__(self) -> str:
        return f"<Task {self.msg_id} {self.state.value}>"

    @property
    def depends_on(self) -> set[str]:
        """The msg_ids of the requests on which the task depends and whose outcomes it does not have yet."""
        open_ids = set(self.after.open) if self.after else set()
        return open_ids | self.follow.open if self.follow else open_ids

    def accepts(self, ident: bytes) -> bool:
        """Return whether the engine with this identity may get the task."""
        return ident not in self.refused and (self.targets is None or ident in self.targets)
