"""What a line is: one subject, measured of several contenders, with targets."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

from .contenders import Contender

__all__ = ["Figure", "Figures", "Line", "Target"]

Figures: TypeAlias = dict[str, float]
"""What one measurement has found, by `Figure.key`."""


@dataclass(frozen=True)
class Figure:
    """One of the figures of a line; ``digits`` are those behind the point."""

    key: str
    title: str
    unit: str = ""
    digits: int = 1

    def text(self, value: float) -> str:
        return f"{value:,.{self.digits}f} {self.unit}".rstrip()


@dataclass(frozen=True)
class Target:
    """What a contender's figure should be at most (or, with ``at_least``, at least): a number, or a multiple.

    ``of`` is the contender of whose figure the limit is a multiple.
    """

    contender: Contender
    figure: str
    limit: float
    of: Contender | None = None
    at_least: bool = False

    def reached(self, value: float) -> bool:
        return value >= self.limit if self.at_least else value <= self.limit


@dataclass(frozen=True)
class Line:
    """One subject.

    ``measure`` takes a contender and whether only the tiny form is wanted, and returns all ``figures``. ``text`` says
    in plain words what is measured, for the page.
    """

    name: str
    title: str
    text: str
    contenders: tuple[Contender, ...]
    figures: tuple[Figure, ...]
    measure: Callable[[Contender, bool], Figures]
    targets: tuple[Target, ...] = ()
    long: bool = False
    limit: float = 600.0
    """Seconds for one measurement."""
