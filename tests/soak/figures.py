"""The figures of a soak, which are printed at the end of the session."""

from __future__ import annotations

FIGURES: list[str] = []
