"""Matching: which engines meet the needs of which tasks.

Tasks with the same needs share a `Demand`, and engines with the same offers share a `Kind`. So the cost of finding an
engine for a task depends on the number of kinds, and the cost of finding a task for an engine on the number of demands
that are queued, not on the number of engines or tasks. The engines with room of each kind are indexed by the amounts
that they have free. Only the names that tasks ask for count: engines that differ in their host name alone are of one
kind, as long as no task asks for a host.
"""

from __future__ import annotations

import math
from collections import Counter, OrderedDict
from collections.abc import Callable, Set
from functools import partial
from operator import add, sub
from typing import TYPE_CHECKING

from .rules import NO_RULES, Needs
from .schemes import Scheme

if TYPE_CHECKING:
    from .levels import Line
    from .task import Task, Worker

__all__ = ["Demand", "Kind", "Matching"]

AMOUNT_UNIT = 1e-6
"""Amounts are counted in whole numbers of this unit, so that sums of amounts are exact."""
MAX_UNUSED = 1000
"""The number of demands that are kept at most while no task has them."""
MAX_SHELVES = 4
"""The number of shelves among whose engines one is chosen for a task."""

_Amounts = tuple[int, ...]


class Demand:
    """What some tasks need of an engine.

    - ``needs``: tags and amounts;
    - ``runtime``: the seconds that the engine must still be there; 0 if it does not matter;
    - ``tasks``: the number of unfinished tasks that have the demand;
    - ``kinds``: the kinds of engines that meet the needs, at least when they are idle;
    - ``line``: the queued tasks that any of these engines may run.
    """

    __slots__ = ("kinds", "line", "needs", "runtime", "tasks")

    def __init__(self, needs: Needs, runtime: float) -> None:
        self.needs = needs
        self.runtime = runtime
        self.tasks = 0
        self.kinds: OrderedDict[Kind, _Amounts] = OrderedDict()
        self.line: Line | None = None

    def __repr__(self) -> str:
        return f"<Demand {dict(self.needs)} runtime={self.runtime:g}>"

    def open(self, line: Line) -> None:
        """Note that tasks are queued that any engine that meets the needs may run."""
        self.line = line
        for kind in self.kinds:
            kind.wanted[self] = line

    def close(self) -> None:
        """Note that no such tasks are queued any more."""
        self.line = None
        for kind in self.kinds:
            del kind.wanted[self]


class Kind:
    """Engines with the same offers, as far as tasks ask for them.

    - ``offers``: these offers;
    - ``names``: the names of the amounts among them, in order;
    - ``amounts``: how much of each an idle engine has, in units of `AMOUNT_UNIT`;
    - ``workers``: the number of engines of this kind;
    - ``wanted``: the lines of queued tasks whose needs engines of this kind meet, by demand;
    - ``shelves``: the engines with room, by the amounts that they have free. No shelf is empty.
    """

    __slots__ = ("amounts", "names", "offers", "shelves", "wanted", "workers")

    def __init__(self, offers: Needs) -> None:
        self.offers = offers
        amounts = [(name, value) for name, value in offers if not isinstance(value, str)]
        self.names = [name for name, _ in amounts]
        self.amounts: _Amounts = tuple(_units(value) for _, value in amounts)
        self.workers = 0
        self.wanted: dict[Demand, Line] = {}
        self.shelves: dict[_Amounts, Scheme] = {}

    def costs(self, needs: Needs) -> _Amounts | None:
        """Return how much of each of the kind's amounts a task with these needs takes up; None if they are not met."""
        return None if lacking(needs, self.offers) else self.costs_of(needs)

    def costs_of(self, needs: Needs) -> _Amounts:
        """Return how much of each of the kind's amounts a task with these needs takes up, even if they are not met."""
        asked = dict(needs)
        return tuple(0 if isinstance(value := asked.get(name, 0.0), str) else _units(value) for name in self.names)


def lacking(needs: Needs, offers: Needs) -> list[tuple[str, float | str]]:
    """Return the needs that an engine with these offers does not meet even when it is idle."""
    has = dict(offers)
    lacks = []
    for name, value in needs:
        offered = has.get(name)
        if isinstance(value, str) or isinstance(offered, str) or offered is None:
            if offered != value:
                lacks.append((name, value))
        elif _units(offered) < _units(value):
            lacks.append((name, value))
    return lacks


def _units(amount: float) -> int:
    return max(round(amount / AMOUNT_UNIT), 1) if amount else 0


def rounded_up(seconds: float) -> float:
    """Round a run time up, by at most an eighth, so that there are few demands.

    >>> rounded_up(61)
    64.0
    """
    if not seconds:
        return 0.0
    fraction, exponent = math.frexp(seconds)
    return math.ldexp(math.ceil(fraction * 16) / 16, exponent)


class Matching:
    """The demands of all tasks, and the kinds of all engines.

    Args:
        with_room: the engines that have room.
        make_shelf: returns an empty scheme of the same class.
        seconds_left: how long an engine will still be there.
    """

    def __init__(
        self, with_room: Scheme, make_shelf: Callable[[], Scheme], seconds_left: Callable[[Worker], float]
    ) -> None:
        self.with_room = with_room
        self._make_shelf = make_shelf
        self._seconds_left = seconds_left
        self._workers: dict[bytes, Worker] = {}
        self.joins = 0
        """The number of times that engines have come, or have changed what they offer."""
        self._shelved = 0
        """The number of engines on all shelves."""
        self._demands: dict[tuple[Needs, float], Demand] = {}
        self._asked: Counter[str] = Counter()
        """The number of demands that ask for each name."""
        self._kinds: dict[Needs, Kind] = {}
        self.plain = self._kinds[()] = Kind(())
        """The kind of engines that offer nothing that a task asks for. It exists even if there are no such engines."""

    # Tasks

    def begin(self, task: Task) -> None:
        """Give a new task its demand, if its rules make one."""
        rules = task.rules
        if rules is not NO_RULES and (rules.needs or rules.max_runtime):
            key = (rules.needs, rounded_up(rules.max_runtime) if rules.max_runtime else 0.0)
            demand = self._demands[key] if key in self._demands else self._new_demand(key)
            demand.tasks += 1
            task.demand = demand

    def _new_demand(self, key: tuple[Needs, float]) -> Demand:
        if len(self._demands) > MAX_UNUSED:
            self._forget_unused()
        demand = self._demands[key] = Demand(*key)
        names = {name for name, _ in demand.needs}
        new = names - self._asked.keys()
        self._asked.update(names)
        if new:
            self._asked_anew(new)
        for kind in self._kinds.values():
            self._relate(demand, kind)
        return demand

    def _relate(self, demand: Demand, kind: Kind) -> None:
        costs = kind.costs(demand.needs)
        if costs is not None:
            demand.kinds[kind] = costs
            if demand.line is not None:
                kind.wanted[demand] = demand.line

    def _forget_unused(self) -> None:
        for key, demand in list(self._demands.items()):
            if not demand.tasks:
                del self._demands[key]
                self._asked.subtract(name for name, _ in demand.needs)
        self._asked = +self._asked

    def tasks_by_need(self) -> dict[str, int]:
        """Return the number of unfinished tasks that need an amount or a tag, by its name, for statistics."""
        counts: Counter[str] = Counter()
        for demand in self._demands.values():
            if demand.tasks:
                counts.update({name: demand.tasks for name, _ in demand.needs})
        return counts

    # Engines

    def join(self, worker: Worker) -> None:
        """Give an engine its kind, and count the amounts that its running tasks use."""
        self.joins += 1
        self._workers[worker.ident] = worker
        offers = tuple(offer for offer in worker.offers if offer[0] in self._asked) if worker.offers else ()
        kind = self._kinds.get(offers)
        if kind is None:
            kind = self._kinds[offers] = Kind(offers)
            for demand in self._demands.values():
                self._relate(demand, kind)
        kind.workers += 1
        worker.kind = kind
        worker.free = kind.amounts
        for task in worker.running.values():
            if task.demand is not None:
                self.occupy(worker, task.demand)

    def leave(self, worker: Worker) -> None:
        """Forget an engine."""
        self.discard(worker)
        kind = worker.kind
        if kind is None:
            return
        if self._workers.get(worker.ident) is worker:
            del self._workers[worker.ident]
        worker.kind = None
        kind.workers -= 1
        if not kind.workers and kind is not self.plain:
            del self._kinds[kind.offers]
            for demand in self._demands.values():
                demand.kinds.pop(kind, None)

    def _asked_anew(self, names: set[str]) -> None:
        """Give the engines that offer one of these names, for which no task has asked before, their new kinds."""
        for worker in list(self._workers.values()):
            if any(name in names for name, _ in worker.offers):
                has_room = worker.shelf is not None or worker in self.with_room
                self.leave(worker)
                self.join(worker)
                if has_room:
                    self.add(worker)

    def occupy(self, worker: Worker, demand: Demand, occupied: bool = True) -> None:
        """Note that an engine runs a task with this demand; if not occupied, that it does not run it any more."""
        kind = worker.kind
        if kind is not None and kind.names:
            costs = demand.kinds[kind] if kind in demand.kinds else kind.costs_of(demand.needs)
            worker.free = tuple(map(sub if occupied else add, worker.free, costs))

    def add(self, worker: Worker) -> None:
        """Note that an engine has room, with its present load."""
        kind = worker.kind
        if kind is None or kind is self.plain:
            return
        shelf = kind.shelves.get(worker.free)
        if shelf is None:
            shelf = kind.shelves[worker.free] = self._make_shelf()
        shelf.add(worker)
        worker.shelf = worker.free
        self._shelved += 1

    def discard(self, worker: Worker) -> None:
        """Note that an engine is full, has gone, or is about to change its load or its amounts."""
        if worker.shelf is None:
            return
        assert worker.kind is not None
        shelf = worker.kind.shelves[worker.shelf]
        shelf.discard(worker)
        if not len(shelf):
            del worker.kind.shelves[worker.shelf]
        worker.shelf = None
        self._shelved -= 1

    # Matches

    def choose(self, task: Task) -> Worker | None:
        """Choose an engine with room for a task with a demand and without targets; None if there is none.

        If many kinds of engines can run the task, the scheme chooses among the engines of a few of them, which are
        others for the next task. So the cost does not grow with the number of kinds that have room.
        """
        demand = task.demand
        assert demand is not None
        refuses = partial(self._leaves_too_soon, demand) if demand.runtime else None
        if not demand.needs:
            return self.with_room.choose(task, refuses)
        if not self._shelved:
            return None
        most = len(self._workers) if refuses or task.refused else MAX_SHELVES
        shelves: list[Scheme] = []
        looked_at = []
        for kind, costs in demand.kinds.items():
            looked_at.append(kind)
            for free, shelf in kind.shelves.items():
                for has, cost in zip(free, costs, strict=True):
                    if has < cost:
                        break
                else:
                    shelves.append(shelf)
            if len(shelves) >= most:
                for kind in looked_at:
                    demand.kinds.move_to_end(kind)
                break
        if not shelves:
            return None
        return shelves[0].choose(task, refuses) if len(shelves) == 1 else shelves[0].choose_over(shelves, task, refuses)

    def fits(self, worker: Worker, demand: Demand) -> bool:
        """Return whether an engine has enough free, and enough time left, for a task with this demand."""
        assert worker.kind is not None
        if worker.kind not in demand.kinds:
            return False
        for has, cost in zip(worker.free, demand.kinds[worker.kind], strict=True):
            if has < cost:
                return False
        return not demand.runtime or not self._leaves_too_soon(demand, worker)

    def fits_later(self, worker: Worker, demand: Demand) -> bool:
        """Return whether an engine would have enough for a task with this demand if it were idle."""
        assert worker.kind is not None
        return worker.kind in demand.kinds and not (demand.runtime and self._leaves_too_soon(demand, worker))

    def somebody_meets(self, demand: Demand, refused: Set[bytes], targets: Set[bytes] | None) -> bool:
        """Return whether an engine that is a target and has not refused the task meets a demand, at least when idle."""
        if targets is None:
            number = 0
            for kind in demand.kinds:
                number += kind.workers
            return number > sum(1 for ident in refused if self._meets(demand, ident))
        return any(self._meets(demand, ident) for ident in targets - refused)

    def _meets(self, demand: Demand, ident: bytes) -> bool:
        worker = self._workers.get(ident)
        return worker is not None and worker.kind in demand.kinds

    def _leaves_too_soon(self, demand: Demand, worker: Worker) -> bool:
        return self._seconds_left(worker) < demand.runtime
