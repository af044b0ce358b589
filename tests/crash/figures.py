"""What the crash tests have measured, for the end of the session."""

from __future__ import annotations

FIGURES: list[str] = []
