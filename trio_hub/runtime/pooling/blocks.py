"""A block of a pool, as the hub knows it: what was asked for, what has become of it, and which engines have come."""

from __future__ import annotations

import math
import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, TypeGuard

from ...launching.launcher import Job
from ...pools.supply import Block, BlockState

__all__ = ["PooledBlock", "new_name", "pool_of"]

_NAME = re.compile(r"(.+)-[0-9a-f]{8}")
LIMIT = 10**12
"""The limit of a number in a record. With a larger number, or with NaN, the record is damaged."""


def new_name(pool: str) -> str:
    """Return a name for a new block of a pool. It is part of the names of files and jobs."""
    return f"{pool}-{secrets.token_hex(4)}"


def pool_of(block: str) -> str | None:
    """Return the name of the pool to which a block belongs, by the name of the block; None for any other text."""
    match = _NAME.fullmatch(block)
    return None if match is None else match[1]


@dataclass(slots=True, eq=False)
class PooledBlock:
    """A block of a pool. All times are seconds since 1970.

    - ``name``: its name; its engines say it when they register;
    - ``engines``: the number of engines that were asked for;
    - ``state``, ``asked``, ``started``: as in `trio_hub.pools.supply.Block`;
    - ``job``: what the launcher needs to find the block again; None while it is being submitted, and for a block that
      is known only by its engines;
    - ``uuids``: the uuids of all engines that it has brought so far;
    - ``words``: the last words of the batch system about it.

    The following facts are not kept over a restart:

    - ``present``: the number of its engines that are registered now;
    - ``restarting``: the number of its engines that will register again, as the launcher says;
    - ``awaited``: until when its engines are awaited after a restart of the hub;
    - ``left``: since when none of its engines is there, if some have been there;
    - ``seen``: when the latest look began that found the block in the batch system;
    - ``is_ending``: whether the batch system is about to end the block;
    - ``unanswered``: since when the batch system does not tell its state; None if the batch system tells it;
    - ``is_submitting``: whether its submission is under way;
    - ``released``: when the launcher has accepted that the block is to be cancelled; None before that;
    - ``is_over``: whether the batch system has said that it has ended, though its engines seemed to be there;
    - ``is_unresolved``: whether an earlier hub has begun to submit it, and nobody knows whether it was accepted;
    - ``is_failed``: whether it was counted as failed;
    - ``told``: the events that were logged about it, and are not logged again.
    """

    name: str
    engines: int
    state: BlockState
    asked: float
    started: float | None = None
    job: Job | None = None
    uuids: set[str] = field(default_factory=set)
    words: str = ""
    present: int = 0
    restarting: int = 0
    awaited: float = -math.inf
    left: float | None = None
    seen: float | None = None
    is_ending: bool = False
    unanswered: float | None = None
    is_submitting: bool = False
    released: float | None = None
    is_over: bool = False
    is_unresolved: bool = False
    is_failed: bool = False
    told: set[str] = field(default_factory=set)

    @property
    def is_known_by_its_engines_only(self) -> bool:
        """Whether no launcher knows the block, so that only its engines can be told to end."""
        return self.job is None and not self.is_submitting

    def as_supply(self, now: float) -> Block:
        """Return the block as the rules of sizing see it.

        If engines are to register again, they are to be expected like those of a block that has just started.
        """
        arrived, started = min(len(self.uuids), self.engines), self.started
        expected = self.engines - self.present if now < self.awaited else self.restarting
        if expected > 0 and started is not None:
            arrived, started = max(self.engines - expected, 0), now
        return Block(self.name, self.engines, self.state, self.asked, started, arrived)

    def engine_seconds(self, now: float) -> float:
        """Return the engine-seconds of the block so far: its number of engines times the seconds of its run."""
        return 0.0 if self.started is None else self.engines * max(now - self.started, 0.0)

    @property
    def job_text(self) -> str | None:
        """The number of its job in the batch system; None if it has none."""
        number = (self.job or {}).get("job")
        return str(number) if number else None

    def begin_once(self, what: str) -> bool:
        """Return whether an event of the block was not logged before. From now on, it counts as logged."""
        is_new = what not in self.told
        self.told.add(what)
        return is_new

    def as_record(self, now: float) -> dict[str, Any]:
        """Return the facts about the block for the next hub, as JSON values for `from_record`."""
        return {
            "block": self.name,
            "engines": self.engines,
            "state": self.state.value,
            "asked": self.asked,
            "started": self.started,
            "arrived": sorted(self.uuids),
            "engine_seconds": round(self.engine_seconds(now), 3),
            "words": self.words,
            "job": None if self.job is None else dict(self.job),
        }

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> PooledBlock:
        """Return the block of a record.

        Raises:
            ValueError: the record is damaged. The text says what is wrong.
        """
        name, engines, asked, started = (record.get(key) for key in ("block", "engines", "asked", "started"))
        if not isinstance(name, str) or pool_of(name) is None:
            raise ValueError("it has no name of a block")
        if not _is_count(engines) or engines == 0:
            raise ValueError("it has no number of engines")
        if not _is_time(asked) or not (started is None or _is_time(started)):
            raise ValueError("its times are not numbers")
        job, uuids = record.get("job"), record.get("arrived", [])
        if not (job is None or isinstance(job, dict)):
            raise ValueError("its job is not a table")
        if job is not None and not _is_count(job.get("engines", 0)):
            raise ValueError("its job has no number of engines")
        if not isinstance(uuids, list) or not all(isinstance(uuid, str) for uuid in uuids):
            raise ValueError("its engines are not a list of uuids")
        state = BlockState(record.get("state"))
        return cls(name, engines, state, asked, started, job, set(uuids), str(record.get("words", "")))


def _is_count(value: Any) -> TypeGuard[int]:
    return type(value) is int and 0 <= value < LIMIT


def _is_time(value: Any) -> TypeGuard[float]:
    return isinstance(value, int | float) and not isinstance(value, bool) and -LIMIT < value < LIMIT
