"""What decides on the size of the simulated pool: the rules of trio_hub, or those of Dask."""

from __future__ import annotations

import math
from collections.abc import Coroutine, Iterable
from typing import Any

from trio_hub.pools.demand import Queued
from trio_hub.pools.memory import PoolMemory
from trio_hub.pools.settings import PoolSettings
from trio_hub.pools.sizing import decide
from trio_hub.pools.supply import Block, Engine, Supply

from .simulation import Cluster, Node

__all__ = ["DaskController", "PoolController"]


class PoolController:
    """Calls `decide` as the hub does, and carries out its decisions."""

    def __init__(self, settings: PoolSettings) -> None:
        self.settings = settings
        self.memory = PoolMemory()
        self.steps = 0

    def step(self, cluster: Cluster) -> float:
        self.steps += 1
        supply = Supply(
            tuple(_engine(node, cluster) for node in cluster.nodes.values()),
            tuple(
                Block(job.ident, job.engines, job.state, job.asked, job.started, len(job.nodes))
                for job in cluster.jobs.values()
            ),
        )
        demand = tuple(
            Queued(number, runtime=self._expected(label, cluster)) for label, number in cluster.queued.items()
        )
        decision = decide(self.settings, demand, supply, cluster.now, self.memory)
        self.memory = decision.memory
        for ident in decision.undrain:
            cluster.drain(ident, draining=False)
        for ident in decision.drain:
            assert cluster.nodes[ident].task is None, "an engine with a task was drained"
            cluster.drain(ident)
        for cancellation in decision.cancel:
            cluster.cancel(cancellation.block)
        cluster.submit(decision.submit)
        return decision.ask_again

    @staticmethod
    def _expected(label: str, cluster: Cluster) -> float | None:
        since = cluster.running_since.get(label, cluster.now)
        return cluster.run_times.expected(label, cluster.now - since)


def _engine(node: Node, cluster: Cluster) -> Engine:
    busy_for = 0.0
    if node.task is not None:
        busy_for = cluster.run_times.remaining(node.task.label, cluster.now - node.task.started)
    return Engine(node.ident, node.job.ident, node.idle_since, busy_for, retiring=node.retiring)


class DaskController:
    """Dask's adaptive scaling: `AdaptiveCore`, and the target that Dask's scheduler computes.

    As in dask-jobqueue, whole blocks are asked for, and given back when all their engines are idle. The target is
    computed here as in `Scheduler.adaptive_target`: the expected seconds of all running and queued tasks, divided by
    ``target_duration`` (5 s), but at most one worker per task. If this is less than the number of workers that there
    are, the target is the number of workers that have work. Dask's workers would also hold tasks in advance. Here they
    do not, which is to Dask's advantage.
    """

    TARGET_DURATION = 5.0
    UNKNOWN = 0.5
    """Seconds. The run time that Dask assumes for tasks with unknown names."""

    def __init__(self, most: int, interval: float = 1.0, wait_count: int = 3) -> None:
        from distributed.deploy.adaptive_core import AdaptiveCore

        controller = self

        class Core(AdaptiveCore):
            @property
            def plan(self) -> set[Any]:
                return set(controller.cluster.jobs)

            requested = plan

            @property
            def observed(self) -> set[Any]:
                return {job.ident for job in controller.cluster.jobs.values() if job.nodes}

            async def target(self) -> int:
                return -(-controller.target() // controller.cluster.engines_per_block)

            async def workers_to_close(self, target: int) -> list[Any]:
                jobs = controller.cluster.jobs.values()
                there = [job for job in jobs if job.nodes]
                idle = [job.ident for job in there if not any(node.task for node in job.nodes)]
                return idle[: max(len(there) - target, 0)]

            async def scale_up(self, n: int) -> None:  # type: ignore[override]
                controller.cluster.submit(n - len(controller.cluster.jobs))

            async def scale_down(self, workers: Iterable[str]) -> None:  # type: ignore[override]
                for ident in workers:
                    controller.cluster.cancel(ident)

        self.cluster: Cluster
        self._interval = interval
        self._most = most
        self._core = Core(minimum=0, wait_count=wait_count)

    def step(self, cluster: Cluster) -> float:
        self.cluster = cluster
        self._core.maximum = self._most // cluster.engines_per_block
        _run(self._core.adapt())
        return cluster.now + self._interval

    def target(self) -> int:
        cluster = self.cluster
        queued = sum(number * self._expected(label) for label, number in cluster.queued.items())
        running = [node.task for node in cluster.nodes.values() if node.task is not None]
        occupancy = sum(self._expected(task.label) for task in running)
        wanted = math.ceil((queued + occupancy) / self.TARGET_DURATION)
        wanted = min(wanted, len(cluster.queue) + len(running))
        if cluster.queue and not cluster.nodes:
            wanted = max(wanted, 1)
        return wanted if wanted >= len(cluster.nodes) else len(running)

    def _expected(self, label: str) -> float:
        expected = self.cluster.run_times.expected(label)
        return self.UNKNOWN if expected is None else expected


def _run(coroutine: Coroutine[Any, Any, None]) -> None:
    """Run a coroutine that waits for nothing."""
    try:
        coroutine.send(None)
    except StopIteration:
        return
    raise AssertionError("the coroutine waits")
