"""The errors in a group of exceptions."""

from __future__ import annotations

from collections.abc import Iterator

from ..errors import HubError

__all__ = ["leaves"]


def leaves(group: BaseExceptionGroup[HubError]) -> Iterator[HubError]:
    """Return the errors in a group, at any depth."""
    for error in group.exceptions:
        if isinstance(error, BaseExceptionGroup):
            yield from leaves(error)
        else:
            yield error
