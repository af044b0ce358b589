"""What has been seen lately, by 64-bit marks, in memory that is bounded and all in one piece."""

from __future__ import annotations

from array import array
from typing import Generic, TypeVar

__all__ = ["Recent"]

T = TypeVar("T")

_LEAST = 64
"""Places in a generation that has just begun; a power of two, as all numbers of places are."""
_FACTOR = 4
"""By which it grows when half of them are taken."""


class Recent(Generic[T]):
    """The latest marks, at least `size` and at most twice as many, and something that each stands for.

    Two generations: when the younger is full, the older is forgotten at once, so that remembering is O(1) and memory is
    bounded. They are hash tables in arrays of plain numbers, which take up a quarter of what a set of objects does. And
    small objects that live for long, made one by one among millions that do not, would hold on to most of the memory
    that these have taken up. (What marks stand for had better be few objects, of which many marks have the same.)

    A mark is a number from 0 to 2**64 - 1 whose last bits are as good as random.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self.turns = 0
        """How often the older generation has been forgotten."""
        self._young: _Generation[T] = _Generation(_LEAST)
        self._old: _Generation[T] = _Generation(_LEAST)

    def __len__(self) -> int:
        return self._young.count + self._old.count

    def find(self, mark: int) -> T | None:
        """What a mark stands for; None if it is not known (any more)."""
        mark = mark or 1  # 0 is an empty place
        young, old = self._young, self._old
        found = young.values[young.place_of(mark)]
        return found if found is not None else old.values[old.place_of(mark)]

    def remember(self, mark: int, value: T) -> bool:
        """Remember what a mark stands for, which is never None.

        Returns:
            False if the mark is known already: then it stands for what it did before.
        """
        # This is done for every message, so both generations are looked through right here.
        mark = mark or 1
        old = self._old
        marks = old.marks
        last = old.last
        place = mark & last
        while there := marks[place]:
            if there == mark:
                return False
            place = (place + 1) & last
        young = self._young
        marks = young.marks
        last = young.last
        place = mark & last
        while there := marks[place]:
            if there == mark:
                return False
            place = (place + 1) & last
        if young.count < self.size and 2 * young.count <= last:
            marks[place] = mark
            young.values[place] = value
            young.count += 1
        else:
            self._make_room().put(mark, value)
        return True

    def _make_room(self) -> _Generation[T]:
        young = self._young
        if young.count < self.size:
            self._young = young.grown()
        else:
            self.turns += 1
            self._old = young
            self._young = _Generation(len(young.marks))
        return self._young


class _Generation(Generic[T]):
    """A hash table with open addressing; a mark is at its own place, or at the first free one behind that."""

    __slots__ = ("count", "last", "marks", "values")

    def __init__(self, places: int) -> None:
        self.count = 0
        self.last = places - 1
        self.marks = array("Q", bytes(8 * places))
        self.values: list[T | None] = [None] * places

    def place_of(self, mark: int) -> int:
        """Where a mark is; or, if it is not there, an empty place for it."""
        marks = self.marks
        last = self.last
        place = mark & last
        while (there := marks[place]) and there != mark:
            place = (place + 1) & last
        return place

    def put(self, mark: int, value: T | None) -> None:
        """A mark that is not there, for which there is room."""
        place = self.place_of(mark)
        self.marks[place] = mark
        self.values[place] = value
        self.count += 1

    def grown(self) -> _Generation[T]:
        """The same with more room."""
        grown: _Generation[T] = _Generation(_FACTOR * len(self.marks))
        marks, values, last = grown.marks, grown.values, grown.last
        for mark, value in zip(self.marks, self.values, strict=True):
            if mark:
                place = mark & last
                while marks[place]:
                    place = (place + 1) & last
                marks[place] = mark
                values[place] = value
        grown.count = self.count
        return grown
