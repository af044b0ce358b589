"""Writing a batch of changes, of which some may be at fault, and the database as well."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from ..errors import StoreError
from .backend import Backend, Batch, Change
from .layers import Changes, joined, merged, size_of

__all__ = ["NOBODY", "Attempt", "write_layers"]

NOBODY = "trio_hub: nobody"
"""The msg_id of no record."""


@dataclass(slots=True)
class Attempt:
    """What came of an attempt to write."""

    rest: dict[str, Change] = field(default_factory=dict)
    """What remains to be written, and its size in bytes."""
    size: int = 0
    batches: int = 0
    written: int = 0
    refused: dict[str, Exception] = field(default_factory=dict)
    """Why which records cannot be written ever."""
    error: StoreError | None = None


def write_layers(backend: Backend, layers: Sequence[Changes], batch: Batch | None = None) -> Attempt:
    """In a thread: write the sum of these layers, which ``batch`` may have taken already.

    An error that is no `StoreError` may be the fault of one record. That one is looked for by halves, and left out
    if the database can write something else.
    """
    attempt = Attempt()
    pending = merged(layers)
    if batch is not None:
        try:
            batch.write()
        except StoreError as error:
            attempt.error = error
            attempt.rest = pending
        except Exception:  # once more below, where its cause is looked for
            pass
        else:
            attempt.batches = 1
            attempt.written = len(pending)
            return attempt
    todo = [[joined(change) for change in pending.values()]]
    while todo and attempt.error is None:
        changes = todo.pop()
        try:
            backend.write(changes)
            attempt.batches += 1
            attempt.written += len(changes)
        except StoreError as error:
            attempt.error = error
        except Exception as error:
            if len(changes) > 1:
                half = len(changes) // 2
                todo += [changes[half:], changes[:half]]
                continue
            attempt.error = _probe(backend)
            if attempt.error is None:
                attempt.refused[changes[0].msg_id] = error
        if attempt.error is not None:
            todo.append(changes)
    remaining = {change.msg_id for changes in todo for change in changes}
    attempt.rest = {msg_id: change for msg_id, change in pending.items() if msg_id in remaining}
    attempt.size = sum(map(size_of, attempt.rest.values()))
    return attempt


def _probe(backend: Backend) -> StoreError | None:
    """Why the database cannot write even what changes nothing."""
    try:
        backend.write([Change(NOBODY, removed=True)])
    except StoreError as error:
        return error
    except Exception as error:
        failure = StoreError(f"the task database failed: {type(error).__name__}: {error}")
        failure.__cause__ = error
        return failure
    return None
