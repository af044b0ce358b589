"""Writes the facts about pools for the next hub: the records of blocks, and the numbers of the pools."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import trio

from .files import PoolFiles
from .tending import Tending

__all__ = ["Saving"]

GAP = 0.25
"""Seconds between two times of writing, so that a thousand registrations need few writes."""


class Saving:
    """Writes the files of the pools when something has changed.

    Args:
        files: the files.
        pools: all pools.
        now: the time in seconds since 1970.
    """

    def __init__(self, files: PoolFiles, pools: Iterable[Tending], now: Callable[[], float]) -> None:
        self.files = files
        self._pools = pools
        self._now = now
        self._changed: set[str] = set()
        self._wake = trio.Event()
        self.numbers: Callable[[], dict[str, Any]] | None = None
        """Returns the numbers of the pools; None: they are not written, since no later hub reads them."""

    def note(self, block: str = "") -> None:
        """Note that a block has changed, or has ended; without a block: that a number of a pool has changed."""
        if self.files.directory is not None:
            self._changed.add(block)
            self._wake.set()

    async def run(self) -> None:
        """Write whatever has changed. Runs for ever."""
        while True:
            await self._wake.wait()
            await self.save()
            await trio.sleep(GAP)

    async def save(self) -> None:
        """Write what has changed."""
        self._wake = trio.Event()
        changed, self._changed = self._changed, set()
        if self.files.directory is None:
            return
        now = self._now()
        blocks = {name: (tending.pool, block) for tending in self._pools for name, block in tending.pool.blocks.items()}
        records: dict[str, dict[str, Any] | None] = {}
        for name in changed - {""}:
            if name not in blocks:
                records[name] = None
            elif not blocks[name][1].is_submitting:  # `Tending.submit` writes its record before the submission
                records[name] = blocks[name][0].record(blocks[name][1], now)
        numbers = None if self.numbers is None else self.numbers()
        try:
            await trio.to_thread.run_sync(self._write, records, numbers)
        except trio.Cancelled:  # before anything was written
            self._changed |= changed
            raise

    def _write(self, records: dict[str, dict[str, Any] | None], numbers: dict[str, Any] | None) -> None:
        for name, record in records.items():
            if record is None:
                self.files.remove_record(name)
            else:
                self.files.write_record(name, record)
        if numbers:
            self.files.write_numbers(numbers)
