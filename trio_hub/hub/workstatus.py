"""The work that is controlled, in numbers: the tasks by state and priority, the cancels, and the drained engines."""

from __future__ import annotations

from ..schedulers.tasks import TaskScheduler
from ..wire.messages import Message
from .draining import Draining
from .engines import Engines
from .interrupt import Purpose
from .interrupts import Interrupts
from .replies import Reply

__all__ = ["WorkStatus"]


class WorkStatus:
    """Answers the query for the numbers of controlled work. An answer costs little, however many tasks there are.

    Args:
        scheduler, engines, draining, interrupts: the parts of the hub that know the numbers.
    """

    def __init__(
        self,
        *,
        scheduler: TaskScheduler,
        engines: Engines,
        draining: Draining,
        interrupts: Interrupts,
    ) -> None:
        self._scheduler = scheduler
        self._engines = engines
        self._draining = draining
        self._interrupts = interrupts

    def work_status_request(self, client_id: list[bytes], msg: Message) -> Reply:
        """Reply with numbers of tasks and with the drained engines.

        - ``queued``, ``waiting``, ``paused``, ``running``: the numbers of tasks in these states;
        - ``priorities``: the number of queued tasks by priority, the highest first;
        - ``cancelling``: the number of requests that are interrupted, and have not ended yet;
        - ``drained``: by the id of each drained engine, who asked for it (``by``), the ``deadline`` (seconds since
          1970, or null) and what follows (``then``).
        """
        scheduler = self._scheduler
        queued, running, paused = len(scheduler.queue), scheduler.running, scheduler.timers.paused
        lengths = scheduler.queue.lengths_by_priority()
        drained = {}
        for ident, drain in self._draining.drains.items():
            engine = self._engines.by_ident.get(ident)
            if engine is not None:
                drained[str(engine.id)] = drain.as_dict()
        content = {
            "status": "ok",
            "queued": queued,
            "waiting": len(scheduler.tasks) - queued - running - paused,
            "paused": paused,
            "running": running,
            "priorities": {str(level): lengths[level] for level in sorted(lengths, reverse=True) if lengths[level]},
            "cancelling": sum(one.purpose is Purpose.END for one in self._interrupts.open.values()),
            "drained": drained,
        }
        return Reply("work_status_reply", content)
