"""The changes that are not in the database yet, in layers, and the limit for their size."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from .backend import Change
from .layers import OVERHEAD, Layer, is_finished, size_of

__all__ = ["Backlog"]


class Backlog:
    """Layers of pending changes: the frozen layers, the oldest first, and the open layer.

    Args:
        bound: The approximate size, in bytes, above which the backlog is crowded. Above twice the bound, records are
            given up. Above an eighth of the bound, the backlog is large: it must be written without delay. One change
            counts as at most a quarter of the bound, so that one large record alone does not crowd the backlog.

    Attributes:
        open: The layer to which new changes are added.
        frozen: The layers that do not change any more. A thread may be writing the oldest ``busy`` layers; then
            `replace` is called for them.
        frozen_weight: The sum of the weights of the frozen layers, in bytes.
        limit: The weight, in bytes, above which `grown` is to be called.
        large: Whether the weight exceeded an eighth of the bound, and has not fallen below that since.
        crowded: Whether the weight exceeded the bound, and has not fallen to three quarters of the bound since.
    """

    __slots__ = ("bound", "busy", "crowded", "frozen", "frozen_weight", "large", "limit", "most", "open")

    def __init__(self, bound: int) -> None:
        self.bound = bound
        self.most = bound // 4
        self.open = Layer(most=self.most)
        self.frozen: list[Layer] = []
        self.frozen_weight = 0
        self.busy = 0
        self.limit = bound // 8
        self.large = False
        self.crowded = False

    def __len__(self) -> int:
        """Return the number of records with pending changes."""
        layers = [layer.changes for layer in self.layers()]
        return len(set().union(*layers)) if len(layers) > 1 else len(layers[0]) if layers else 0

    @property
    def size(self) -> int:
        """The approximate size of the backlog in memory, in bytes."""
        return sum(layer.size for layer in self.layers())

    @property
    def weight(self) -> int:
        """The part of `size` that counts for the bound, in bytes."""
        return self.frozen_weight + self.open.weight

    def layers(self) -> list[Layer]:
        """Return the layers that have changes, the oldest first."""
        return [*self.frozen, self.open] if self.open.changes else self.frozen

    def freeze(self) -> list[Layer]:
        """Freeze the open layer, and return all pending changes, in layers that will not change any more."""
        if self.open.changes:
            self.frozen.append(self.open)
            self.frozen_weight += self.open.weight
            self.open = Layer(most=self.most)
        return self.frozen.copy()

    def replace(self, layers: Sequence[Layer], changes: dict[str, Change], sizes: Iterable[int] | None = None) -> None:
        """Replace frozen layers by one layer with these changes, or by none if there are no changes.

        Args:
            layers: The layers to replace, which follow each other.
            changes: The changes of the layers that are still to be written.
            sizes: The sizes of the changes in bytes. None if all changes of the layers are still to be written.

        Calls that wait for the commit of the layers then wait for the commit of the new layer.
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
        """Forget all changes."""
        self.open = Layer(most=self.most)
        self.frozen.clear()
        self.frozen_weight = 0
        self._shrunk()

    def grown(self) -> int:
        """Handle a weight above the limit: the backlog is large, and above the bound, it is crowded.

        Above twice the bound, finished records are given up. Returns the number of records that were given up.
        """
        self.large = True
        if self.weight <= self.bound:
            self.limit = self.bound
            return 0
        self.crowded = True
        if self.weight > 2 * self.bound:
            return self._relieve()
        self.limit = 2 * self.bound
        return 0

    def _shrunk(self) -> None:
        """Handle a smaller weight: at three quarters of the bound, the backlog is not crowded any more."""
        if self.weight <= self.bound * 3 // 4:
            self.crowded = False
            self.large = self.weight > self.bound // 8
            self.limit = self.bound if self.large else self.bound // 8
        elif self.crowded and self.weight <= 2 * self.bound:
            self.limit = 2 * self.bound

    def _relieve(self) -> int:
        """Give up finished records, the oldest first, down to seven eighths of twice the bound. Return their number.

        They are removed from the database, too, since a later hub must not take them for unfinished.
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
        # If nothing can be given up, it is useless to try again for each change.
        self.limit = max(2 * self.bound, self.frozen_weight + self.bound // 8)
        return given_up
