"""The figures that the crash tests have measured, printed at the end of the session."""

from __future__ import annotations

FIGURES: list[str] = []
