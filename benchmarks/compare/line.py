"""A line: one subject that is measured for several contenders, with targets."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

from .contenders import Contender

__all__ = ["Figure", "Figures", "Line", "Target"]

Figures: TypeAlias = dict[str, float]
"""The results of one measurement, by `Figure.key`."""


@dataclass(frozen=True)
class Figure:
    """One figure of a line. ``digits`` is the number of decimal places."""

    key: str
    title: str
    unit: str = ""
    digits: int = 1

    def text(self, value: float) -> str:
        return f"{value:,.{self.digits}f} {self.unit}".rstrip()


@dataclass(frozen=True)
class Target:
    """The upper limit (with ``at_least``, the lower limit) for a contender's figure: a number, or a multiple.

    If the limit is a multiple, ``of`` is the contender whose figure is multiplied.
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
    """One subject of measurement.

    ``measure`` gets a contender, and whether only the tiny form is wanted, and returns all ``figures``. ``text``
    describes the measurement, for the page.
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
