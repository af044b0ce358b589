"""The names of the blocks of pools, and the uuids with which stock engines tell the hub the names of their blocks."""

from __future__ import annotations

import re

__all__ = ["BLOCK_NAME", "block_in", "uuid_with_block"]

BLOCK_NAME = re.compile("[!-~]{1,100}")
"""The usable names of blocks: ASCII characters that can be printed, without spaces."""
_WITH_BLOCK = re.compile(f"({BLOCK_NAME.pattern}):[0-9a-f]{{32}}")


def uuid_with_block(block: str, digits: str) -> str:
    """Return a uuid for an engine of a block, with the name of the block and 32 random hexadecimal digits."""
    return f"{block}:{digits}"


def block_in(uuid: str) -> str:
    """Return the name of the block in the uuid of an engine; empty if there is none.

    >>> block_in("slurm-1f2e3d4c:" + 32 * "0")
    'slurm-1f2e3d4c'
    """
    found = _WITH_BLOCK.fullmatch(uuid)
    return "" if found is None else found[1]
