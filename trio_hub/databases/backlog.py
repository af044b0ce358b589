"""All that is not yet in the database, in layers, and how much of it there may be."""

from __future__ import annotations

from collections.abc import Callable

from .backend import Change
from .layers import OVERHEAD, Layer, is_finished, size_of

__all__ = ["Backlog"]


class Backlog:
    """Layers of changes: those that are frozen, the oldest first, and the one that is open.

    Args:
        bound: Bytes, roughly, from which on it is crowded. Twice that is the limit: beyond it, something must go.

    Attributes:
        open: What changes go into.
        frozen: Layers that do not change any more. Some of the oldest may be in use by a thread that will `replace`
            them: ``busy`` is how many.
        frozen_size: The sum of their sizes, in bytes.
        limit: Bytes from which on `grown` is to be called.
        crowded: Whether the bound was exceeded, and less than a quarter of it has been got rid of since.
    """

    __slots__ = ("bound", "busy", "crowded", "frozen", "frozen_size", "limit", "open")

    def __init__(self, bound: int) -> None:
        self.bound = bound
        self.open = Layer()
        self.frozen: list[Layer] = []
        self.frozen_size = 0
        self.busy = 0
        self.limit = bound
        self.crowded = False

    def __len__(self) -> int:
        """The number of records of which something is pending."""
        layers = [layer.changes for layer in self.layers()]
        return len(set().union(*layers)) if len(layers) > 1 else len(layers[0]) if layers else 0

    @property
    def size(self) -> int:
        """Bytes of memory that it takes, roughly."""
        return self.frozen_size + self.open.size

    def layers(self) -> list[Layer]:
        """Those that hold something, the oldest first."""
        return [*self.frozen, self.open] if self.open.changes else self.frozen

    def calls(self, number: int) -> list[Callable[[], None]]:
        """What is to be called after the commit of so many of the oldest layers."""
        return [call for layer in self.frozen[:number] for call in layer.calls]

    def freeze(self) -> list[Layer]:
        """What is pending now, in layers that will not change any more."""
        if self.open.changes:
            self.frozen.append(self.open)
            self.frozen_size += self.open.size
            self.open = Layer()
        return self.frozen.copy()

    def replace(self, number: int, layer: Layer | None) -> None:
        """Put one layer, or none, in the place of so many of the oldest ones."""
        self.frozen[:number] = [] if layer is None else [layer]
        self.frozen_size = sum(layer.size for layer in self.frozen)
        self.shrunk()

    def grown(self) -> int:
        """Take note that the size exceeds the limit: from the bound on, the backlog is crowded.

        Beyond twice the bound, finished records are given up. Returns how many were.
        """
        self.crowded = True
        if self.size > 2 * self.bound:
            return self._relieve()
        self.limit = 2 * self.bound
        return 0

    def shrunk(self) -> None:
        """Take note that the size may be less: the backlog is not crowded any more at three quarters of the bound."""
        if self.size <= self.bound * 3 // 4:
            self.crowded = False
            self.limit = self.bound
        elif self.crowded and self.size <= 2 * self.bound:
            self.limit = 2 * self.bound

    def _relieve(self) -> int:
        """Give up finished records, the oldest first, down to seven eighths of twice the bound; say how many.

        The database is to forget them, since a hub that comes later must not take them for unfinished.
        """
        self.freeze()
        excess = self.frozen_size - 2 * self.bound * 7 // 8
        given_up = 0
        for index in range(self.busy, len(self.frozen)):
            layer = self.frozen[index]
            changes, size = layer.changes.copy(), layer.size
            for msg_id, change in layer.changes.items():
                if excess <= 0:
                    break
                if is_finished(change):
                    changes[msg_id] = Change(msg_id, removed=True)
                    less = min(size_of(change) - OVERHEAD, size)
                    excess -= less
                    size -= less
                    given_up += 1
            self.frozen[index] = Layer(changes, size, layer.since, layer.calls)
        self.frozen_size = sum(layer.size for layer in self.frozen)
        # Where there is nothing to give up, it would be no use to look again for every change.
        self.limit = max(2 * self.bound, self.frozen_size + self.bound // 8)
        return given_up
