"""A bounded, compact memory of the latest 64-bit marks."""

from __future__ import annotations

from array import array
from typing import Generic, TypeVar

__all__ = ["Recent"]

T = TypeVar("T")

_LEAST = 64
"""The number of places in a new hash table. It must be a power of two."""
_FACTOR = 4
"""A hash table grows by this factor when half of its places are taken. It must be a power of two."""


class Recent(Generic[T]):
    """The latest marks, at least `size` and at most twice as many, and a value for each mark.

    A mark is a number from 0 to 2**64 - 1 whose last bits are practically random. The values should be few objects,
    each shared by many marks.

    There are two generations of marks. When the younger one is full, the older one is forgotten at once. So remembering
    a mark takes O(1), and memory is bounded. A generation is a hash table in an array of plain numbers. The array needs
    a quarter of the memory of a set of objects. It also avoids fragmentation: small objects that live long, created
    among millions that do not, would keep most of the memory of the others from being reused.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self.turns = 0
        """How often the older generation was forgotten."""
        self._young: _Generation[T] = _Generation(_LEAST)
        self._old: _Generation[T] = _Generation(_LEAST)

    def __len__(self) -> int:
        return self._young.count + self._old.count

    def find(self, mark: int) -> T | None:
        """Return the value of a mark; None if the mark is unknown or forgotten."""
        mark = mark or 1  # 0 means an empty place
        young, old = self._young, self._old
        found = young.values[young.place_of(mark)]
        return found if found is not None else old.values[old.place_of(mark)]

    def remember(self, mark: int, value: T) -> bool:
        """Remember a mark and its value, which must not be None.

        Returns:
            False if the mark is known already; then it keeps its value.
        """
        # Called for every message, so the search through both generations is written out here. It looks for a value at
        # each place first: reading a number from an array makes a new object.
        mark = mark or 1
        old = self._old
        values = old.values
        place = mark & old.last
        while values[place] is not None:
            if old.marks[place] == mark:
                return False
            place = (place + 1) & old.last
        young = self._young
        values = young.values
        place = mark & young.last
        while values[place] is not None:
            if young.marks[place] == mark:
                return False
            place = (place + 1) & young.last
        if young.count < self.size and 2 * young.count <= young.last:
            young.marks[place] = mark
            values[place] = value
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
    """A hash table with open addressing. A mark is at its own place, or at the first free place after it."""

    __slots__ = ("count", "last", "marks", "values")

    def __init__(self, places: int) -> None:
        self.count = 0
        self.last = places - 1
        self.marks = array("Q", bytes(8 * places))
        self.values: list[T | None] = [None] * places

    def place_of(self, mark: int) -> int:
        """Return the place of a mark, or an empty place for a mark that is not in the table."""
        marks = self.marks
        last = self.last
        place = mark & last
        while (there := marks[place]) and there != mark:
            place = (place + 1) & last
        return place

    def put(self, mark: int, value: T | None) -> None:
        """Add a mark. The mark must not be in the table, and the table must have an empty place."""
        place = self.place_of(mark)
        self.marks[place] = mark
        self.values[place] = value
        self.count += 1

    def grown(self) -> _Generation[T]:
        """Return a copy with more places."""
        grown: _Generation[T] = _Generation(_FACTOR * len(self.marks))
        marks, values, last = grown.marks, grown.values, grown.last
        for mark, value in zip(self.marks, self.values, strict=True):
            if value is not None:
                place = mark & last
                while values[place] is not None:
                    place = (place + 1) & last
                marks[place] = mark
                values[place] = value
        grown.count = self.count
        return grown
