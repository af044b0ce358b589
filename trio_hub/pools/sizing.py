"""The decision how a pool grows or shrinks."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import NamedTuple

from .demand import Demand
from .memory import STEADY, STEPS, PoolMemory
from .needed import Needed, memory_of, needed_by
from .settings import PoolSettings
from .supply import BlockState, Engine, Supply

__all__ = ["Cancellation", "Decision", "Reason", "decide"]

MAX_SILENCE = 60.0
"""Seconds. The longest time between two decisions on a pool."""
SOON = 1.0
"""Seconds. The longest time between two decisions on a pool that has queued tasks, or blocks on their way."""


class Reason(NamedTuple):
    """Why a pool does not grow, or does not shrink.

    - ``word``: a stable word for programs. Growing: ``grows``, ``no_demand``, ``enough``, ``at_max``, ``backlog``,
      ``paused``, ``stopped``, ``probing``. Shrinking: ``shrinks``, ``empty``, ``at_min``, ``in_use``, ``direct``,
      ``rest_of_block``, ``draining``;
    - ``text``: a sentence for people without its subject, which is the pool.
    """

    word: str
    text: str


class Cancellation(NamedTuple):
    """A block to be cancelled.

    - ``block``: the block;
    - ``word``: ``drained``, ``not_needed`` (it still waits in the queue), ``startup_timeout`` or ``no_engines``;
    - ``text``: a sentence for people without its subject, which is the block;
    - ``failed``: whether this counts as a failure of the block. The memory of the decision knows that already.
    """

    block: str
    word: str
    text: str
    failed: bool = False


@dataclass(frozen=True, slots=True)
class Decision:
    """What is to be done with a pool, in this order.

    - ``undrain``: the retiring engines that get tasks again, since tasks are queued;
    - ``drain``: the idle engines that get no more tasks, because they are to be given back;
    - ``cancel``: the blocks to be cancelled;
    - ``submit``: the number of blocks to be asked for;
    - ``grow``, ``shrink``: why the pool does not grow or shrink, or that it does;
    - ``needed``: how many engines the tasks could use;
    - ``ask_again``: when to decide again at the latest. When the queue, the engines or the blocks change, decide at
      once, or within `SOON`;
    - ``memory``: what to pass to the next decision.
    """

    undrain: tuple[bytes, ...]
    drain: tuple[bytes, ...]
    cancel: tuple[Cancellation, ...]
    submit: int
    grow: Reason
    shrink: Reason
    needed: Needed
    ask_again: float
    memory: PoolMemory


def decide(settings: PoolSettings, demand: Demand, supply: Supply, now: float, memory: PoolMemory) -> Decision:
    """Decide how a pool grows or shrinks.

    Args:
        settings: the settings of the pool.
        demand: the queued tasks that the pool is to serve; with several pools, its share (`Plan.shares`).
        supply: the engines and blocks of the pool.
        now: the time in seconds, on the clock of all other times.
        memory: the memory that the last decision has returned.
    """
    needed = needed_by(settings, demand, supply, now, memory)
    memory = memory.observed(supply, needed.useful, needed.queued, now, memory_of(settings, memory))
    cancelled, memory = _useless(settings, supply, now, memory)
    gone = {one.block for one in cancelled}
    undrained = _undrained(settings, supply, needed, gone)
    submit, grow = _growth(settings, supply, needed, len(undrained), now, memory)
    waiting = _not_needed(settings, supply, needed, now, memory, gone) if not submit else []
    drained: tuple[bytes, ...] = ()
    shrink = Reason("in_use", "has tasks that could use more engines")
    if not submit and not undrained:
        drained, shrink = _shrinkage(settings, supply, needed, now, memory, gone)
    released = _released(settings, supply, now, gone, set(undrained))
    cancel = (*cancelled, *waiting, *released)
    ask_again = now + _pause(settings, supply, needed, now, memory)
    return Decision(undrained, drained, cancel, submit, grow, shrink, needed, ask_again, memory)


def _many(number: int, noun: str) -> str:
    """Return a number with its noun: "1 block", "3,000 blocks"."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


# Growing


def _undrained(settings: PoolSettings, supply: Supply, needed: Needed, gone: set[str]) -> tuple[bytes, ...]:
    """Return the retiring engines that are to get tasks again.

    To take engines back is faster and cheaper than to ask for other engines. So the pool takes engines back even if its
    other engines would have run all queued tasks before new engines could come.
    """
    wanted = max(needed.waiting, needed.missing, settings.min - needed.staying - needed.coming)
    wanted = min(wanted, settings.max - needed.staying - needed.coming)
    if wanted <= 0:
        return ()
    lost = gone | {block.ident for block in supply.blocks if block.state is BlockState.CANCELLED}
    back = [engine for engine in supply.engines if engine.retiring and engine.block not in lost]
    # Engines of blocks that cannot be given back anyway, since others of their engines are in use, come first.
    in_use = {engine.block for engine in supply.engines if not (engine.retiring and engine.is_idle)}
    back.sort(key=lambda engine: engine.block not in in_use)
    return tuple(engine.ident for engine in back[:wanted])


def _growth(
    settings: PoolSettings, supply: Supply, needed: Needed, undrained: int, now: float, memory: PoolMemory
) -> tuple[int, Reason]:
    """Return the number of blocks to ask for, and why there are no more."""
    there = needed.staying + needed.coming
    wanted = max(needed.missing, settings.min - there) - undrained
    if wanted <= 0:
        if undrained:
            return 0, Reason("grows", f"takes {undrained} of its engines back that were to be given back")
        if not needed.queued:
            return 0, Reason("no_demand", "has no queued tasks")
        return 0, Reason(
            "enough",
            f"will have run {_many(needed.queued, 'queued task')} before further engines could come and be used",
        )
    size = settings.engines_per_block
    room = (settings.max - supply.size()) // size
    if room <= 0:
        return 0, Reason(
            "at_max", f"has, or has asked for, {_many(supply.size(), 'engine')}; at most {settings.max:,} (max)"
        )
    if memory.stopped(settings):
        return 0, Reason(
            "stopped",
            f"asks for no more blocks, since {_many(memory.failures, 'block')} in a row failed ({memory.words}): mend "
            "the cause, then resume the pool",
        )
    if now < memory.paused_until:
        left = memory.paused_until - now
        return 0, Reason("paused", f"asks for the next block in {left:.0f} s, since a block has failed: {memory.words}")
    blocks = min(-(-wanted // size), room)
    if memory.failures > 1:
        if any(block.started is None or block.started >= memory.failed for block in supply.blocks):
            text = f"waits until a new block has worked, since the last blocks have failed: {memory.words}"
            return 0, Reason("probing", text)
        blocks = 1
    if settings.backlog is not None:
        queued = sum(1 for block in supply.blocks if block.state.is_queued)
        blocks = min(blocks, settings.backlog - queued)
        if blocks <= 0:
            return 0, Reason(
                "backlog",
                f"has {_many(queued, 'block')} in the queue of the batch system; at most {settings.backlog} (backlog)",
            )
    return blocks, Reason("grows", f"asks for {_many(blocks, 'block')} of {_many(size, 'engine')}")


# Shrinking


def _useless(
    settings: PoolSettings, supply: Supply, now: float, memory: PoolMemory
) -> tuple[list[Cancellation], PoolMemory]:
    """Return the running blocks that have no engines and will bring none."""
    alive = {engine.block for engine in supply.engines}
    found = []
    for block in supply.blocks:
        if block.state is not BlockState.RUNNING or block.started is None or block.ident in alive:
            continue
        age = now - block.started
        if block.coming(now, settings.startup_timeout):
            continue
        if block.arrived:
            failed = age < STEADY
            found.append(Cancellation(block.ident, "no_engines", "has no engines any more", failed))
        else:
            failed = True
            text = f"has brought no engine within {settings.startup_timeout:g} s of its start (startup_timeout)"
            found.append(Cancellation(block.ident, "startup_timeout", text, failed))
        if failed:
            memory = memory.after_failure(settings, now, f"block {block.ident} {found[-1].text}", block.asked)
    return found, memory


def _kept(settings: PoolSettings, needed: Needed, now: float, memory: PoolMemory, seconds: float) -> int:
    """Return the number of engines that are kept, since so many were needed within the last seconds."""
    peak = max(memory.peak(now, seconds, memory_of(settings, memory) / STEPS), needed.useful)
    return int(min(max(peak, settings.min), settings.max))


def _not_needed(
    settings: PoolSettings, supply: Supply, needed: Needed, now: float, memory: PoolMemory, gone: set[str]
) -> list[Cancellation]:
    """Return the blocks that wait in the batch system's queue and are not needed any more, the newest first.

    Such blocks have cost nothing yet. So the pool gives them up sooner than engines, after a quarter of
    ``idle_timeout``.
    """
    excess = needed.staying + needed.coming - _kept(settings, needed, now, memory, settings.idle_timeout / 4)
    found = []
    waiting = [block for block in supply.blocks if block.state is BlockState.WAITING and block.ident not in gone]
    for block in sorted(waiting, key=lambda block: -block.asked):
        if block.engines <= excess and now - block.asked >= settings.idle_timeout / 4:
            excess -= block.engines
            found.append(Cancellation(block.ident, "not_needed", "is not needed any more"))
    return found


def _shrinkage(
    settings: PoolSettings, supply: Supply, needed: Needed, now: float, memory: PoolMemory, gone: set[str]
) -> tuple[tuple[bytes, ...], Reason]:
    """Return the engines to be drained, and why there are no more.

    Engines are drained block by block, first in the blocks that have the least work left. So the tasks gather on the
    other blocks, and whole blocks become free.
    """
    if not supply.engines:
        return (), Reason("empty", "has no engines")
    seconds = memory_of(settings, memory)
    kept = _kept(settings, needed, now, memory, seconds)
    if memory.began is None or now - memory.began < settings.idle_timeout:
        kept = max(kept, min(needed.staying, settings.max))  # nobody knows how many were needed before
    # An engine that was idle for so long is not needed: the queued tasks, if there are any, cannot run on it.
    useless = sum(1 for engine in supply.engines if engine.stays and _idle_for(engine, now) >= settings.idle_timeout)
    surplus = max(needed.staying - kept, min(useless, needed.staying - settings.min))
    leaving = needed.staying < len(supply.engines)
    if surplus <= 0 and not leaving:
        if kept == settings.min:
            return (), Reason("at_min", f"has only as many engines as it must have at least: {settings.min:,} (min)")
        text = f"has needed {_many(kept, 'engine')} within the last {seconds:.0f} s"
        return (), Reason("in_use", text)
    blocks: defaultdict[str, list[Engine]] = defaultdict(list)
    with_idle = {engine.block for engine in supply.engines if engine.is_idle and not engine.retiring} - gone
    for engine in supply.engines:
        if engine.block in with_idle:
            blocks[engine.block].append(engine)
    drained: list[bytes] = []
    pinned = partial = 0
    for engines in sorted(blocks.values(), key=_work_left):
        if any(_is_pinned(settings, engine, now) for engine in engines):
            pinned += 1
            continue
        free = [engine for engine in engines if not engine.retiring and _may_go(settings, engine, now)]
        cost = sum(1 for engine in free if engine.stays)
        if cost > surplus:
            partial += 1
            continue
        surplus -= cost
        drained += [engine.ident for engine in free]
    if drained:
        return tuple(drained), Reason(
            "shrinks", f"gives {_many(len(drained), 'engine')} back, since the tasks do not need more"
        )
    if surplus <= 0:
        return (), Reason("draining", "has engines that are drained, and others of their blocks still have work")
    if pinned:
        text = f"has {_many(pinned, 'block')} with engines that a client addresses directly, or has addressed within"
        return (), Reason("direct", f"{text} {settings.idle_timeout:g} s (idle_timeout, stateless)")
    if partial:
        return (), Reason(
            "rest_of_block", f"does not need {surplus:,} of its engines, but has no whole block to give back"
        )
    return (), Reason("in_use", "has no idle engines that it could give back")


def _work_left(engines: list[Engine]) -> tuple[bool, int, float, float]:
    """Return a block's place in the order of draining: retiring blocks first, then those with the least work."""
    retiring = any(engine.retiring for engine in engines)
    busy = [engine.busy_for for engine in engines if not engine.is_idle]
    idle_since = min((engine.idle_since for engine in engines if engine.idle_since is not None), default=0.0)
    return not retiring, len(busy), max(busy, default=0.0), idle_since


def _idle_for(engine: Engine, now: float) -> float:
    """Return for how many seconds the engine has been idle."""
    return now - engine.idle_since if engine.idle_since is not None and engine.is_idle else 0.0


def _is_pinned(settings: PoolSettings, engine: Engine, now: float) -> bool:
    """Return whether the engine may not go because of direct requests."""
    if engine.direct:
        return True
    if settings.stateless or engine.addressed is None:
        return False
    return now - engine.addressed < settings.idle_timeout


def _may_go(settings: PoolSettings, engine: Engine, now: float) -> bool:
    """Return whether an engine may be drained that `_is_pinned` does not keep: whether the engine is idle.

    An engine that somebody else has drained counts towards no number of engines. Such an engine goes when it has been
    idle for ``idle_timeout``.
    """
    return engine.is_idle and (engine.stays or _idle_for(engine, now) >= settings.idle_timeout)


def _released(
    settings: PoolSettings, supply: Supply, now: float, gone: set[str], undrained: set[bytes]
) -> list[Cancellation]:
    """Return the running blocks whose engines are all retiring, and have no work.

    An engine that this very decision drains may be given a task before it is drained. So its block is cancelled by a
    later decision. A client may still address a retiring engine directly; then its block is kept for as long as any
    other.
    """
    if not any(engine.retiring for engine in supply.engines):
        return []
    engines: defaultdict[str, list[Engine]] = defaultdict(list)
    for engine in supply.engines:
        engines[engine.block].append(engine)
    found = []
    for block in supply.blocks:
        of_block = engines.get(block.ident, [])
        if block.state is not BlockState.RUNNING or block.ident in gone or not of_block:
            continue
        if all(
            engine.retiring
            and engine.is_idle
            and engine.ident not in undrained
            and not _is_pinned(settings, engine, now)
            for engine in of_block
        ):
            found.append(Cancellation(block.ident, "drained", "has no engine that is needed"))
    return found


def _pause(settings: PoolSettings, supply: Supply, needed: Needed, now: float, memory: PoolMemory) -> float:
    """Return the seconds until the next decision, at most."""
    if needed.queued or needed.coming or any(engine.retiring for engine in supply.engines):
        return SOON
    if not supply.engines and not supply.blocks:
        return MAX_SILENCE if now >= memory.paused_until else SOON
    return min(max(settings.idle_timeout / STEPS, SOON / 4), MAX_SILENCE)
