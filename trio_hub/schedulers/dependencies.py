"""Dependencies between tasks.

A task can depend on other tasks in two ways: it runs only *after* they have ended, or it *follows* them, that is, it
runs only on an engine on which they ran. Both dependencies are given as msg_ids, or as
``{"dependencies": [msg_id, …], "all": bool, "success": bool, "failure": bool}``. ``success`` and ``failure`` say which
outcomes are desired. ``all`` says whether all of the tasks must have a desired outcome, or any one of them. An integer
is accepted as a bool, as in Python.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from ..errors import InvalidDependency
from ..wire.recent import Recent

__all__ = ["Outcome", "Outcomes", "TaskDependency", "parse_dependency"]

REMEMBERED = 16_384
"""The least number of outcomes to remember. Earlier outcomes are looked up in the task database."""


class Outcome(NamedTuple):
    """The outcome of a request: whether it succeeded, and on which engine it ran (None if no engine answered)."""

    ok: bool
    engine: bytes | None


class TaskDependency:
    """One dependency of one task, and its state.

    - ``open``: the msg_ids of the requests that are not known to have ended;
    - ``met``, ``impossible``: at most one of the two is true; once true, it stays true;
    - ``engines``: the engines on which the requests with a desired outcome ran.
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
        """Whether all requests should be followed, and they ran on different engines, so that no engine qualifies."""
        return self.all and len(self.engines) > 1

    def ended(self, msg_id: str, outcome: Outcome) -> None:
        """Update the state after one of the open requests has ended."""
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


def parse_dependency(raw: Any, name: str) -> TaskDependency | None:
    """Parse the value of ``after`` or ``follow`` in a task's metadata. Return None if it names no request.

    Raises:
        InvalidDependency: The value has no known form.
    """
    if not raw:
        return None
    flags: dict[str, bool] = {}
    if isinstance(raw, dict):
        given = {flag: raw.get(flag, default) for flag, default in _FLAGS.items()}
        unknown = raw.keys() - _FLAGS.keys() - {"dependencies"}
        if unknown or not all(isinstance(value, int) for value in given.values()):
            raise InvalidDependency(
                f"{name}: a dependency has the keys dependencies, all, success and failure; the last three are true or "
                "false"
            )
        flags = {flag: bool(value) for flag, value in given.items()}
        if not (flags["success"] or flags["failure"]):
            raise InvalidDependency(f"{name}: success, failure or both must be true")
        raw = raw.get("dependencies", [])
    ids = [raw] if isinstance(raw, str) else raw
    if not isinstance(ids, list) or not all(isinstance(msg_id, str) for msg_id in ids):
        raise InvalidDependency(f"{name}: expected msg_ids, not {str(raw)[:100]!r}")
    return TaskDependency(frozenset(ids), **flags) if ids else None


_FLAGS = {"all": True, "success": True, "failure": False}


class Outcomes:
    """The latest outcomes, by msg_id, so that few outcomes are looked up in the task database.

    At least `size` outcomes are remembered, and at most twice as many, see `Recent`.
    """

    def __init__(self, size: int = REMEMBERED) -> None:
        self.size = size
        self._recent: Recent[Outcome] = Recent(size)
        self._kinds: dict[Outcome, Outcome] = {}
        """Equal outcomes share one object, which saves memory."""

    def __len__(self) -> int:
        return len(self._recent)

    def get(self, msg_id: str) -> Outcome | None:
        return self._recent.find(_mark_of(msg_id))

    def remember(self, msg_id: str, outcome: Outcome) -> None:
        """Remember how a request has ended. If an outcome of the request is remembered already, that one stays."""
        kinds = self._kinds
        kind = kinds.get(outcome)
        if kind is None:
            if len(kinds) >= self.size:  # each engine adds kinds of outcomes
                kinds.clear()
            kind = kinds[outcome] = outcome
        self._recent.remember(_mark_of(msg_id), kind)


def _mark_of(msg_id: str) -> int:
    return hash(msg_id) & 0xFFFF_FFFF_FFFF_FFFF  # randomised per process, so nobody can choose msg_ids that collide
