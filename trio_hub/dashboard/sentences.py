"""Parts of the sentences that the journal and the alerts have in common, and the sentences about blocks of pools."""

from __future__ import annotations

from typing import Literal, TypeAlias

from ..hub.events import BlockEnded, BlockStarted, BlockSubmitted

__all__ = ["BlockEvent", "Level", "block_kind", "block_line", "engines_in_words", "plural", "without_stop"]

Level: TypeAlias = Literal["info", "warn", "bad"]
BlockEvent: TypeAlias = BlockEnded | BlockStarted | BlockSubmitted
"""The events of a block."""


def plural(n: int, noun: str) -> str:
    """Return a number with its noun, which gets an s at its end: "1 record", "3,000 records"."""
    return f"{n:,} {noun}" if n == 1 else f"{n:,} {noun}s"


def engines_in_words(least: int, most: int) -> str:
    """Return a number of engines, or a range: "4 engines", "0 to 8 engines"."""
    return plural(most, "engine") if least == most else f"{least:,} to {plural(most, 'engine')}"


def without_stop(words: str) -> str:
    """Return the words of a batch system as a part of a sentence: without a full stop and white space at the end."""
    return words.strip().rstrip(".")


def block_kind(event: BlockEvent) -> tuple[Level, str]:
    """Return the level and the kind of an event. Events of one kind are of one pool."""
    match event:
        case BlockSubmitted():
            return "info", f"blocks_submitted:{event.pool}"
        case BlockStarted():
            return "info", f"blocks_started:{event.pool}"
        case BlockEnded(failed=True):
            return "warn", f"blocks_failed:{event.pool}"
        case _:
            return "info", f"blocks_ended:{event.pool}"


def block_line(event: BlockEvent, number: int) -> str:
    """Return a sentence about equal events of a number of blocks, the last of which is in the event."""
    match event:
        case BlockSubmitted():
            engines = plural(event.engines, "engine")
            if number == 1:
                return f"Pool {event.pool} has asked for block {event.block} with {engines}."
            return f"Pool {event.pool} has asked for {number:,} blocks. The last one is {event.block} with {engines}."
        case BlockStarted():
            did, words = "started", ""
        case _:
            did, words = "failed" if event.failed else "ended", without_stop(event.words)
    cause = f": {words}" if words else ""
    if number == 1:
        return f"Block {event.block} of pool {event.pool} has {did}{cause}."
    return f"{number:,} blocks of pool {event.pool} have {did}. The last one is {event.block}{cause}."
