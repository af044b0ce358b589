"""Writes a batch of changes. An error may be the fault of some changes, or of the database."""

from __future__ import annotations

from dataclasses import dataclass, field

from ..errors import StoreError
from .backend import Backend, Batch, Change
from .layers import joined

__all__ = ["NOBODY", "Attempt", "write_batch", "write_in_parts"]

NOBODY = "trio_hub: nobody"
"""A msg_id that no record has."""


@dataclass(slots=True)
class Attempt:
    """The outcome of an attempt to write.

    - ``rest``: the changes that are still to be written;
    - ``batches``, ``written``: the number of batches, and of records, that were written;
    - ``refused``: for each record that can never be written, by msg_id, the error;
    - ``error``: the error if the database cannot write now; else None.
    """

    rest: dict[str, Change] = field(default_factory=dict)
    batches: int = 0
    written: int = 0
    refused: dict[str, Exception] = field(default_factory=dict)
    error: StoreError | None = None


def write_batch(batch: Batch, pending: dict[str, Change], *, taken: bool) -> Attempt | None:
    """Write changes in one transaction. Called in a thread. ``taken`` is whether the batch has them already.

    Returns None after an error that may be the fault of one record. Then nothing was written, see `write_in_parts`.
    """
    try:
        if not taken:
            for change in pending.values():
                batch.take(joined(change))
        batch.write()
    except StoreError as error:
        return Attempt(rest=pending, error=error)
    except Exception:
        return None
    return Attempt(batches=1, written=len(pending))


def write_in_parts(backend: Backend, pending: dict[str, Change]) -> Attempt:
    """Write changes of which some may be impossible to write. Called in a thread.

    The faulty changes are found by halving. They are left out if the database can write anything else.
    """
    attempt = Attempt()
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
    return attempt


def _probe(backend: Backend) -> StoreError | None:
    """Return why the database cannot write even a change without effect; None if it can."""
    try:
        backend.write([Change(NOBODY, removed=True)])
    except StoreError as error:
        return error
    except Exception as error:
        failure = StoreError(f"the task database failed: {type(error).__name__}: {error}")
        failure.__cause__ = error
        return failure
    return None
