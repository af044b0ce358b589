"""Dependencies between tasks: what a task waits for, and what follows from how that ended.

A task may run only *after* other tasks, and only where others ran (*follow*). Both are given as msg_ids, or as
``{"dependencies": [msg_id, …], "all": bool, "success": bool, "failure": bool}``: whether all must end the
desired way, or any one of them; and which ways are desired. An integer will do for a bool, as in Python.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from ..errors import InvalidDependency
from ..wire.recent import Recent

__all__ = ["Condition", "Outcome", "Outcomes", "parse_dependency"]

REMEMBERED = 16_384
"""Outcomes that are remembered here, at least. What ended before these is asked of the store."""


class Outcome(NamedTuple):
    """How a request ended: whether well, and on which engine (None if no engine answered)."""

    ok: bool
    engine: bytes | None


class Condition:
    """One dependency of one task, and how far it is met.

    - ``open``: the msg_ids that have not ended yet, as far as is known;
    - ``met``, ``impossible``: at most one of them is true, and neither ever becomes false again;
    - ``engines``: where those ran that ended the desired way.
    """

    __slots__ = ("all", "engines", "failure", "impossible", "met", "open", "success")

    def __init__(self, ids: frozenset[str], *, all: bool = True, success: bool = True, failure: bool = False) -> None:
        self.open = set(ids)
        self.all = all
        self.success = success
        self.failure = failure
        self.met = not ids
        self.impossible = False
        self.engines: set[bytes] = set()

    @property
    def torn(self) -> bool:
        """Whether all of them should be followed, and they ran on different engines."""
        return self.all and len(self.engines) > 1

    def ended(self, msg_id: str, outcome: Outcome) -> None:
        """One of those that are open has ended."""
        self.open.discard(msg_id)
        desired = self.success if outcome.ok else self.failure
        if desired and outcome.engine is not None:
            self.engines.add(outcome.engine)
        if self.all:
            if not desired:
                self.impossible = True
            elif not self.open and not self.impossible:
                self.met = True
        elif desired:
            self.met = True
        elif not self.open and not self.met:
            self.impossible = True


def parse_dependency(raw: Any, name: str) -> Condition | None:
    """The condition that a task's metadata states under ``after`` or ``follow``; None if there is none.

    Raises:
        InvalidDependency: it is of no known form.
    """
    if not raw:
        return None
    flags: dict[str, bool] = {}
    if isinstance(raw, dict):
        given = {flag: raw.get(flag, default) for flag, default in _FLAGS.items()}
        unknown = raw.keys() - _FLAGS.keys() - {"dependencies"}
        if unknown or not all(isinstance(value, int) for value in given.values()):
            raise InvalidDependency(f"{name}: a dependency has the keys dependencies, all, success and failure")
        flags = {flag: bool(value) for flag, value in given.items()}
        if not (flags["success"] or flags["failure"]):
            raise InvalidDependency(f"{name}: a dependency must be on success or on failure, or on both")
        raw = raw.get("dependencies", [])
    ids = [raw] if isinstance(raw, str) else raw
    if not isinstance(ids, list) or not all(isinstance(msg_id, str) for msg_id in ids):
        raise InvalidDependency(f"{name}: a dependency is on msg_ids, not on {str(raw)[:100]!r}")
    return Condition(frozenset(ids), **flags) if ids else None


_FLAGS = {"all": True, "success": True, "failure": False}


class Outcomes:
    """The latest outcomes, by msg_id: a bounded memory, so that few questions reach the store.

    At least `size` and at most twice as many, see `Recent`.
    """

    def __init__(self, size: int = REMEMBERED) -> None:
        self.size = size
        self._recent: Recent[Outcome] = Recent(size)
        self._kinds: dict[Outcome, Outcome] = {}
        """One of each, for all requests that have ended so."""

    def __len__(self) -> int:
        return len(self._recent)

    def get(self, msg_id: str) -> Outcome | None:
        return self._recent.find(_mark_of(msg_id))

    def remember(self, msg_id: str, outcome: Outcome) -> None:
        """How a request has ended; the first time counts, as long as that is known."""
        kinds = self._kinds
        if outcome not in kinds:
            if len(kinds) >= self.size:  # engines have come and gone
                kinds.clear()
            kinds[outcome] = outcome
        self._recent.remember(_mark_of(msg_id), kinds[outcome])


def _mark_of(msg_id: str) -> int:
    return hash(msg_id) & 0xFFFF_FFFF_FFFF_FFFF  # which is secret in each process, so nobody can make two the same
