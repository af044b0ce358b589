"""What a soak has counted, for the end of the session."""

from __future__ import annotations

FIGURES: list[str] = []
