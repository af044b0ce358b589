"""Whether connections are encrypted, in words for people."""

from __future__ import annotations

__all__ = ["in_words"]


def in_words(connections: str) -> str:
    """Return ``encrypted`` as it is, and ``open``, the word of the JSON, with its meaning."""
    return "open (not encrypted)" if connections == "open" else connections
