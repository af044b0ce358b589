"""The tasks that depend on requests that have not ended, and the outcomes of requests that have ended."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

from ..errors import HubError, InvalidDependency
from .dependencies import Outcome, Outcomes
from .host import SchedulerHost
from .task import Task, TaskState

__all__ = ["Dependents"]


class Dependents:
    """Tells tasks how the requests have ended on which they depend.

    Args:
        host: looks up how requests have ended that were forgotten.
        tasks: all unfinished tasks, by msg_id.
        advance: called when a task may have become runnable or impossible.
        fail: fails a task that has no engine.
    """

    def __init__(
        self,
        host: SchedulerHost,
        tasks: Mapping[str, Task],
        advance: Callable[[Task], None],
        fail: Callable[[Task, HubError], None],
    ) -> None:
        self._host = host
        self._tasks = tasks
        self._advance = advance
        self._fail = fail
        self.by_request: dict[str, dict[str, Task]] = {}
        """The tasks that depend on a request that has not ended, by the request's msg_id and then by their own."""
        self.outcomes = Outcomes()
        self._news: deque[tuple[str, Outcome]] = deque()
        self._telling = False

    def look_up(self, task: Task) -> None:
        """Let a task wait for the requests on which it depends, as far as they have not ended."""
        task.state = TaskState.WAITING
        depends_on = task.depends_on
        if task.msg_id in depends_on:
            self._fail(task, InvalidDependency("the task depends on itself"))
            return
        unknown = []
        for msg_id in depends_on:
            if msg_id in self._tasks or self._host.is_pending(msg_id):
                self.by_request.setdefault(msg_id, {})[task.msg_id] = task
            elif (outcome := self.outcomes.get(msg_id)) is not None:
                _tell(task, msg_id, outcome)
            else:
                unknown.append(msg_id)
        if unknown:
            task.unknown = frozenset(unknown)
            self._host.ask_outcomes(task, sorted(unknown))
        self._advance(task)

    def outcomes_known(self, task: Task, outcomes: Mapping[str, Outcome]) -> None:
        """Handle the store's answer about a task's dependencies. Requests that it does not know never existed."""
        if task.state is not TaskState.WAITING:
            return
        missing = task.unknown - outcomes.keys()
        task.unknown = frozenset()
        if missing:
            self._fail(task, InvalidDependency(f"the task depends on {min(missing)}, which does not exist"))
            return
        for msg_id, outcome in outcomes.items():
            _tell(task, msg_id, outcome)
        self._advance(task)

    def ended(self, msg_id: str, outcome: Outcome) -> None:
        """Note that a request has ended, and tell the tasks that depend on it.

        A failure may make further tasks fail, at any depth. So the outcomes are queued and told one after the other,
        without recursion.
        """
        self.outcomes.remember(msg_id, outcome)
        if msg_id not in self.by_request:
            return
        self._news.append((msg_id, outcome))
        if not self._telling:
            self._tell_news()

    @contextmanager
    def told_later(self) -> Iterator[None]:
        """Tell tasks of requests that end within this context only afterwards: these tasks may end within it, too."""
        telling, self._telling = self._telling, True
        try:
            yield
        finally:
            self._telling = telling
        if not telling:
            self._tell_news()

    def forget(self, task: Task) -> None:
        """Forget a task that depends on others, and has ended."""
        for msg_id in task.depends_on:
            dependents = self.by_request.get(msg_id)
            if dependents is not None:
                dependents.pop(task.msg_id, None)
                if not dependents:
                    del self.by_request[msg_id]

    def _tell_news(self) -> None:
        self._telling = True
        try:
            while self._news:
                msg_id, outcome = self._news.popleft()
                for task in self.by_request.pop(msg_id, {}).values():
                    _tell(task, msg_id, outcome)
                    self._advance(task)
        finally:
            self._telling = False


def _tell(task: Task, msg_id: str, outcome: Outcome) -> None:
    for dependency in (task.after, task.follow):
        if dependency is not None and msg_id in dependency.open:
            dependency.ended(msg_id, outcome)
