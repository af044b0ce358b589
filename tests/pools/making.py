"""Pools for tests, and a small cluster that carries out the decisions on them."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

from trio_hub.pools.demand import Demand, Queued
from trio_hub.pools.memory import PoolMemory
from trio_hub.pools.settings import PoolSettings
from trio_hub.pools.sizing import Decision, decide
from trio_hub.pools.supply import Block, BlockState, Engine, Supply


def pool(**settings: Any) -> PoolSettings:
    """Return a pool of at most eight engines, in blocks of one, without a queue, unless the settings say otherwise."""
    return PoolSettings(**{"name": "local", "max": 8, "backlog": None, "idle_timeout": 8.0, **settings})


def engines(number: int, block: str = "", **what: Any) -> tuple[Engine, ...]:
    """Return idle engines, each with a block of its own unless one is named."""
    return tuple(
        Engine(f"{block or 'e'}{i}".encode(), block or f"b{i}", **{"idle_since": 0.0, **what}) for i in range(number)
    )


def there(*groups: tuple[Engine, ...], size: int = 1, more: tuple[Block, ...] = ()) -> Supply:
    """Return the supply with these engines, and with the running blocks that have brought them."""
    everybody = tuple(engine for group in groups for engine in group)
    names = list(dict.fromkeys(engine.block for engine in everybody))
    blocks = tuple(Block(name, size, BlockState.RUNNING, -100.0, -100.0, size) for name in names)
    return Supply(everybody, blocks + more)


SEASONED = PoolMemory(began=-1000.0, wait=1.0, startup=1.0)
"""The memory of a pool that was there for long, and whose blocks come within two seconds."""


def queued(tasks: int, runtime: float | None = 600.0, **what: Any) -> Demand:
    return (Queued(tasks, runtime=runtime, **what),) if tasks else ()


@dataclass
class World:
    """Carries out the decisions of a pool: blocks come after ``delay`` seconds, with all their engines.

    It stops a test at once that drains an engine with work, or cancels a block that has an engine with work.
    """

    settings: PoolSettings
    delay: float = 2.0
    now: float = 0.0
    memory: PoolMemory = field(default_factory=PoolMemory)
    engines: dict[bytes, Engine] = field(default_factory=dict)
    blocks: dict[str, Block] = field(default_factory=dict)
    submitted: int = 0
    cancelled: int = 0

    @property
    def supply(self) -> Supply:
        return Supply(tuple(self.engines.values()), tuple(self.blocks.values()))

    def step(self, demand: Demand, seconds: float = 1.0) -> Decision:
        """Let blocks come, decide, carry that out, and let time pass."""
        for block in list(self.blocks.values()):
            if block.state is not BlockState.RUNNING and self.now - block.asked >= self.delay:
                self.start(block)
        before = self.supply
        decision = decide(self.settings, demand, before, self.now, self.memory)
        self.check(decision)
        self.memory = decision.memory
        for ident in decision.undrain:
            self.engines[ident] = replace(self.engines[ident], draining=False, retiring=False)
        for ident in decision.drain:
            self.engines[ident] = replace(self.engines[ident], draining=True, retiring=True)
        for cancellation in decision.cancel:
            self.cancelled += 1
            del self.blocks[cancellation.block]
            for ident in [engine.ident for engine in self.engines.values() if engine.block == cancellation.block]:
                del self.engines[ident]
        for _ in range(decision.submit):
            self.submitted += 1
            name = f"b{self.submitted}"
            self.blocks[name] = Block(name, self.settings.engines_per_block, BlockState.WAITING, self.now)
        self.now += seconds
        return decision

    def start(self, block: Block) -> None:
        size = self.settings.engines_per_block
        self.blocks[block.ident] = replace(block, state=BlockState.RUNNING, started=self.now, arrived=size)
        for number in range(size):
            ident = f"{block.ident}.{number}".encode()
            self.engines[ident] = Engine(ident, block.ident, self.now)

    def busy(self, number: int, busy_for: float = 600.0) -> None:
        """Have so many of the engines that get tasks run one, or as many as there are, and all others none."""
        for engine in self.engines.values():
            at_work = number > 0 and (engine.stays or not engine.is_idle)
            number -= at_work
            if at_work:
                self.engines[engine.ident] = replace(engine, idle_since=None, busy_for=busy_for)
            elif engine.idle_since is None:
                self.engines[engine.ident] = replace(engine, idle_since=self.now, busy_for=0.0)

    def check(self, decision: Decision) -> None:
        """Check what must hold for each decision, whatever has happened before."""
        settings, supply = self.settings, self.supply
        states = {block.ident: block for block in supply.blocks}
        there = {engine.ident: engine for engine in supply.engines}
        assert decision.submit >= 0
        if decision.submit:
            assert supply.size() + decision.submit * settings.engines_per_block <= settings.max
            if settings.backlog is not None:
                waiting = sum(1 for block in supply.blocks if block.state.is_queued)
                assert waiting + decision.submit <= settings.backlog
        assert not (decision.submit and decision.drain)
        assert len(set(decision.drain)) == len(decision.drain)
        for ident in decision.drain:
            engine = there[ident]
            assert engine.is_idle
            assert not engine.retiring
            recently = engine.addressed is not None and self.now - engine.addressed < settings.idle_timeout
            assert settings.stateless or not recently
        staying = sum(1 for engine in supply.engines if engine.stays)
        drained = sum(1 for ident in decision.drain if there[ident].stays)
        if drained:
            assert staying - drained >= settings.min
        assert all(there[ident].retiring for ident in decision.undrain)
        assert len({one.block for one in decision.cancel}) == len(decision.cancel)
        for one in decision.cancel:
            assert states[one.block].state is not BlockState.CANCELLED
            for engine in supply.engines:
                if engine.block == one.block:
                    assert engine.retiring
                    assert engine.is_idle
                    assert engine.ident not in decision.undrain
        assert self.now < decision.ask_again <= self.now + 60
        assert decision.grow.word
        assert decision.grow.text
        assert decision.shrink.word
        assert decision.shrink.text
