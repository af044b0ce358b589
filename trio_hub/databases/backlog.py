"""All that is not yet in the database, in layers, and how much of it there may be."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from .backend import Change
from .layers import OVERHEAD, Layer, is_finished, size_of

__all__ = ["Backlog"]


class Backlog:
    """Layers of changes: those that are frozen, the oldest first, and the one that is open.

    Args:
        bound: Bytes, roughly, from which on it is crowded. Twice that is the limit: beyond it, something must go.
            One change weighs a quarter of this at most, so that one large record alone does not crowd the backlog.

    Attributes:
        open: What changes go into.
        frozen: Layers that do not change any more. Some of the oldest may be in use by a thread that will `replace`
            them: ``busy`` is how many.
        frozen_weight: The sum of their weights, in bytes.
        limit: The weight, in bytes, from which on `grown` is to be called.
        crowded: Whether the bound was exceeded, and less than a quarter of it has been got rid of since.
    """

    __slots__ = ("bound", "busy", "crowded", "frozen", "frozen_weight", "limit", "most", "open")

    def __init__(self, bound: int) -> None:
        self.bound = bound
        self.most = bound // 4
        self.open = Layer(most=self.most)
        self.frozen: list[Layer] = []
        self.frozen_weight = 0
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
        return sum(layer.size for layer in self.layers())

    @property
    def weight(self) -> int:
        """What counts of that for the bound."""
        return self.frozen_weight + self.open.weight

    def layers(self) -> list[Layer]:
        """Those that hold something, the oldest first."""
        return [*self.frozen, self.open] if self.open.changes else self.frozen

    def freeze(self) -> list[Layer]:
        """What is pending now, in layers that will not change any more."""
        if self.open.changes:
            self.frozen.append(self.open)
            self.frozen_weight += self.open.weight
            self.open = Layer(most=self.most)
        return self.frozen.copy()

    def replace(self, layers: Sequence[Layer], changes: dict[str, Change], sizes: Iterable[int] | None = None) -> None:
        """Put one layer with these changes, or none if there are none, in the place of some frozen ones.

        Args:
            layers: Which ones: they follow each other.
            changes: All that is still to be written of them.
            sizes: Of the changes, in bytes; None if they are the sum of the layers, and weigh as much.

        Calls that wait for the commit of the layers wait for the commit of the one.
        """
        if sizes is None:
            weight, unweighed = sum(layer.weight for layer in layers), sum(layer.unweighed for layer in layers)
        else:
            weight = unweighed = 0
            for size in sizes:
                weight += min(size, self.most)
                unweighed += max(size - self.most, 0)
        calls = [call for layer in layers for call in layer.calls]
        one = Layer(changes, weight, layers[0].since, calls, most=self.most, unweighed=unweighed)
        start = self.frozen.index(layers[0])
        self.frozen[start : start + len(layers)] = [one] if changes else []
        self.frozen_weight = sum(layer.weight for layer in self.frozen)
        self._shrunk()

    def clear(self) -> None:
        """Forget everything."""
        self.open = Layer(most=self.most)
        self.frozen.clear()
        self.frozen_weight = 0
        self._shrunk()

    def grown(self) -> int:
        """Take note that the weight exceeds the limit: from the bound on, the backlog is crowded.

        Beyond twice the bound, finished records are given up. Returns how many were.
        """
        self.crowded = True
        if self.weight > 2 * self.bound:
            return self._relieve()
        self.limit = 2 * self.bound
        return 0

    def _shrunk(self) -> None:
        """Take note that the weight may be less: the backlog is not crowded any more at three quarters of the bound."""
        if self.weight <= self.bound * 3 // 4:
            self.crowded = False
            self.limit = self.bound
        elif self.crowded and self.weight <= 2 * self.bound:
            self.limit = 2 * self.bound

    def _relieve(self) -> int:
        """Give up finished records, the oldest first, down to seven eighths of twice the bound; say how many.

        The database is to forget them, since a hub that comes later must not take them for unfinished.
        """
        self.freeze()
        excess = self.frozen_weight - 2 * self.bound * 7 // 8
        given_up = 0
        for index in range(self.busy, len(self.frozen)):
            layer = self.frozen[index]
            changes, weight, unweighed = layer.changes.copy(), layer.weight, layer.unweighed
            for msg_id, change in layer.changes.items():
                if excess <= 0:
                    break
                if is_finished(change):
                    changes[msg_id] = Change(msg_id, removed=True)
                    size = size_of(change) - OVERHEAD
                    less = min(size, self.most, weight)
                    excess -= less
                    weight -= less
                    unweighed -= min(max(size - self.most, 0), unweighed)
                    given_up += 1
            self.frozen[index] = Layer(changes, weight, layer.since, layer.calls, most=self.most, unweighed=unweighed)
        self.frozen_weight = sum(layer.weight for layer in self.frozen)
        # Where there is nothing to give up, it would be no use to look again for every change.
        self.limit = max(2 * self.bound, self.frozen_weight + self.bound // 8)
        return given_up
