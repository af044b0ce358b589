"""Ids, uuids and offers of engines: the hub gives the ids; engines choose their uuids, and say what they offer."""

from __future__ import annotations

from collections.abc import Callable, Container
from itertools import count
from typing import Any

from ..errors import WireError
from ..logs import get_logger
from ..schedulers.rules import Needs, parse_needs
from ..wire.blocks import BLOCK_NAME

__all__ = ["MAX_ID", "EngineIds", "requested_id", "valid_block", "valid_offers", "valid_uuid"]

log = get_logger("trio_hub.hub")

MAX_ID = 2**31 - 2
"""The highest id of an engine. The next id, too, then is an integer of 32 bits, as other programs may expect."""
MAX_UUID = 255
"""The maximum length of an engine's uuid in bytes. It is the maximum length of a ZeroMQ identity."""


class EngineIds:
    """Gives ids to engines: each id once, unless an engine asks for a free id, or no higher id is left."""

    def __init__(self) -> None:
        self.next = 0
        """The lowest id that was never given."""

    def reserve(self, until: int) -> None:
        """Give no id below this, unless an engine asks for it."""
        self.next = max(self.next, min(until, MAX_ID + 1))

    def give(self, requested: int | None, owner: Callable[[int], object]) -> int:
        """Return the requested id if no engine has it, else the next id that was never used.

        When the highest id was given, return the lowest id that no engine has.
        """
        if requested is not None:
            if owner(requested) is None:
                self.reserve(requested + 1)
                return requested
            log.warning("the requested engine id is in use: another is given", kind="id_in_use", engine=requested)
        if self.next > MAX_ID:
            return next(engine_id for engine_id in count() if owner(engine_id) is None)
        self.next += 1
        return self.next - 1


def requested_id(requested: Any) -> int | None:
    """Return the id that an engine asks for, or None. Raises `ValueError` if the value cannot be an id."""
    if requested is not None and (type(requested) is not int or not 0 <= requested <= MAX_ID):
        raise ValueError(f"the requested engine id must be an integer from 0 to {MAX_ID}, not {requested!r}")
    return requested


def valid_uuid(uuid: Any, *taken: Container[bytes]) -> str:
    """Return the uuid of an engine after checking it.

    Raises `TypeError`, `ValueError`, or `KeyError` if it is in use.
    """
    if not isinstance(uuid, str) or not uuid:
        raise TypeError("a registration_request must name the engine's uuid, a text that is not empty")
    ident = uuid.encode("utf-8", "replace")
    if len(ident) > MAX_UUID or ident[0] == 0:
        raise ValueError(f"the engine's uuid must have at most {MAX_UUID} bytes, and must not begin with NUL")
    if any(ident in idents for idents in taken):
        raise KeyError(f"uuid {uuid!r} in use")
    return uuid


def valid_offers(offers: Any) -> Needs:
    """Return what an engine says that it offers (None: nothing) after checking it. Raises `ValueError`."""
    try:
        return parse_needs("offers", offers) if offers is not None else ()
    except WireError as error:
        raise ValueError(str(error)) from None


def valid_block(block: Any) -> str:
    """Return a value if it is a usable name of a block; empty for any other value."""
    return block if isinstance(block, str) and BLOCK_NAME.fullmatch(block) else ""
