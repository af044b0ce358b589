"""Writing a batch of changes, of which some may be at fault, and the database as well."""

from __future__ import annotations

from dataclasses import dataclass, field

from ..errors import StoreError
from .backend import Backend, Batch, Change
from .layers import joined

__all__ = ["NOBODY", "Attempt", "write_batch", "write_in_parts"]

NOBODY = "trio_hub: nobody"
"""The msg_id of no record."""


@dataclass(slots=True)
class Attempt:
    """What came of an attempt to write.

    - ``rest``: what remains to be written;
    - ``refused``: why which records cannot be written ever;
    - ``error``: why the database cannot write now.
    """

    rest: dict[str, Change] = field(default_factory=dict)
    batches: int = 0
    written: int = 0
    refused: dict[str, Exception] = field(default_factory=dict)
    error: StoreError | None = None


def write_batch(batch: Batch, pending: dict[str, Change], *, taken: bool) -> Attempt | None:
    """In a thread: write these changes, which the batch may have ``taken`` already, in one transaction.

    None: an error that may be the fault of one record; nothing was written. See `write_in_parts`.
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
    """In a thread: write these changes, of which one or several may be at fault.

    Those are looked for by halves, and left out if the database can write something else.
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
