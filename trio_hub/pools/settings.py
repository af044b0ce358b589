"""The settings that decide how large a pool is."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

from ..errors import ConfigError, WireError
from ..schedulers.matching import lacking, rounded_up
from ..schedulers.rules import Needs, parse_needs, shown
from .demand import Queued

__all__ = ["PoolSettings"]

MAX_ENGINES = 1_000_000
USABLE = 0.9
"""The part of ``time_limit`` that a task may use. The rest is a reserve for the time in which the engines of the block
start."""


@dataclass(frozen=True, slots=True)
class PoolSettings:
    """The settings of one pool on which its size depends.

    - ``name``: the name of the pool;
    - ``min``, ``max``: the numbers of engines that the pool has at least and at most. A pool asks for whole blocks, so
      it may have up to ``engines_per_block - 1`` engines more than ``min``, and as many less than ``max``. With a
      ``max`` of 0 the pool asks for no engines;
    - ``engines_per_block``: the number of engines that one job of the batch system brings;
    - ``backlog``: the number of blocks that may wait in the batch system's queue at once; None for a launcher without a
      queue, such as ``local``: then only ``max`` limits how many blocks are asked for at once;
    - ``idle_timeout``: engines that were idle for this many seconds are given back;
    - ``startup_timeout``: the seconds that a block may take from its start to its first engine;
    - ``time_limit``: the seconds for which a block may run; None: no limit;
    - ``tags``: the tags and amounts that each engine of the pool offers, as a mapping or as `Needs`;
    - ``parallelism``: above 0 and at most 1. The pool asks for this part of the engines that the tasks could use at
      once;
    - ``stateless``: whether an engine may be given back although a client has addressed it directly within
      ``idle_timeout``;
    - ``cost``: what an hour of one engine costs, in any unit. Of several pools that could run a task, the cheapest
      grows first;
    - ``retry_pause``: the seconds before another block is asked for after one has failed, doubled after each further
      failure, at most `MAX_PAUSE` seconds;
    - ``max_failures``: after this many failures in a row the pool asks for no more blocks, until it is resumed.

    Raises:
        ConfigError: a setting cannot be used. The message names the setting and the remedy.
    """

    name: str
    min: int = 0
    max: int = 1
    engines_per_block: int = 1
    backlog: int | None = 1
    idle_timeout: float = 30.0
    startup_timeout: float = 300.0
    time_limit: float | None = None
    tags: Mapping[str, object] | Needs = ()
    parallelism: float = 1.0
    stateless: bool = False
    cost: float = 1.0
    retry_pause: float = 2.0
    max_failures: int = 10

    def __post_init__(self) -> None:
        if type(self.name) is not str or not self.name:
            raise ConfigError(f"name is {shown(self.name)}: give each pool a name, such as 'local'")
        self._whole("min", 0)
        self._whole("max", 0)
        self._whole("engines_per_block", 1)
        self._whole("max_failures", 1)
        if self.backlog is not None:
            self._whole("backlog", 1)
        self._seconds("idle_timeout")
        self._seconds("startup_timeout")
        self._seconds("retry_pause")
        if self.time_limit is not None:
            self._seconds("time_limit")
        self._number("parallelism", 1.0, "a number above 0 and at most 1; 1 asks for all engines that tasks could use")
        self._number("cost", math.inf, "a positive number, such as 1")
        if not isinstance(self.stateless, bool):
            raise self._wrong("stateless", "true or false")
        try:
            tags = dict(self.tags) if isinstance(self.tags, tuple) else self.tags
            object.__setattr__(self, "tags", parse_needs("tags", tags))
        except (WireError, TypeError, ValueError) as error:
            what = error if isinstance(error, WireError) else "tags must be a mapping of names to amounts or tags"
            raise ConfigError(f"pool {self.name}: {what}") from None
        self._check_sizes()

    def _check_sizes(self) -> None:
        size = self.engines_per_block
        if self.min > self.max:
            raise ConfigError(
                f"pool {self.name}: min is {self.min}, which is more than max, {self.max}: lower min or raise max"
            )
        if size > self.max > 0:
            raise ConfigError(
                f"pool {self.name}: engines_per_block is {size}, which is more than max, {self.max}, so that no block "
                f"could be asked for: set max to at least {size}, or lower engines_per_block"
            )
        if (least := -(-self.min // size) * size) > self.max:
            raise ConfigError(
                f"pool {self.name}: min is {self.min}, which takes {least} engines in blocks of {size}, more than max, "
                f"{self.max}: set max to at least {least}, or min to at most {self.max // size * size}"
            )

    def _whole(self, name: str, low: int) -> None:
        value = getattr(self, name)
        if type(value) is not int or not low <= value <= MAX_ENGINES:
            raise self._wrong(name, f"a whole number from {low} to {MAX_ENGINES}")

    def _seconds(self, name: str) -> None:
        self._number(name, math.inf, "a positive number of seconds, such as 30")

    def _number(self, name: str, high: float, what: str) -> None:
        value = getattr(self, name)
        numeric = isinstance(value, int | float) and not isinstance(value, bool)
        if not numeric or not math.isfinite(value) or not 0 < value <= high:
            raise self._wrong(name, what)

    def _wrong(self, name: str, what: str) -> ConfigError:
        return ConfigError(f"pool {self.name}: {name} is {shown(getattr(self, name))}: it must be {what}")

    @property
    def offers(self) -> Needs:
        """What each engine of the pool offers."""
        assert isinstance(self.tags, tuple)
        return self.tags

    def fits(self, queued: Queued) -> bool:
        """Return whether a new, idle engine of the pool could run these tasks."""
        if self.time_limit is not None and rounded_up(queued.max_runtime) > self.time_limit * USABLE:
            return False
        return not queued.needs or not lacking(queued.needs, self.offers)

    def scaled(self, engines: int) -> PoolSettings:
        """Return the settings of the same pool with a fixed number of engines, rounded up to whole blocks.

        With 0 engines, the pool asks for none, and gives back the engines that it has when they are idle.
        """
        size = -(-engines // self.engines_per_block) * self.engines_per_block
        return replace(self, min=size, max=size)
