"""The rules of a task: its rank, its limits, when it is repeated, and what an engine needs to run it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from ..errors import WireError
from ..wire.plain import json_text

__all__ = [
    "ANY_FAILURE",
    "DEATH",
    "INTERRUPT",
    "NO_RULES",
    "RULE_NAMES",
    "Needs",
    "TaskRules",
    "parse_needs",
    "parse_rules",
    "shown",
]

Needs = tuple[tuple[str, float | str], ...]
"""What a task needs of its engine, sorted by name: an amount as a number (``("gpu", 1.0)``), a tag as a text."""

ANY_FAILURE = "all"
"""In `TaskRules.retry_on`: the task is repeated after any failure."""
DEATH = "death"
"""In `TaskRules.retry_on`: the task is repeated if its engine is lost."""
INTERRUPT = "interrupt"
"""In `TaskRules.on_cancel`: the attempt that runs is interrupted."""
MAX_PRIORITY = 1000
MAX_WEIGHT = 100.0
MAX_SECONDS = 1e8
MAX_ATTEMPTS = 1000
MAX_NAMES = 50
"""The maximum number of names in `needs` or `retry_on`."""
MAX_AMOUNT = 1e100
_UNITS = {"k": 2.0**10, "m": 2.0**20, "g": 2.0**30, "t": 2.0**40}


@dataclass(frozen=True, slots=True)
class TaskRules:
    """The rules of a task. The defaults change nothing: the task is treated as one without rules.

    - ``priority``: tasks with a higher number go first, also before other clients' tasks; from -1000 to 1000;
    - ``weight``: the share of the client's session among the sessions that have tasks of the same priority;
    - ``max_runtime``: the seconds for which one attempt may run; 0: no limit;
    - ``grace``: the seconds that an attempt has to end after it was interrupted, before its engine is killed;
    - ``max_attempts``: how often the task is tried; 0: as often as its ``retries`` say;
    - ``retry_on``: what the task is repeated after: names of exceptions, `DEATH`, `ANY_FAILURE`; None: any failure;
    - ``retry_pause``: the seconds before the second attempt, doubled before each further attempt; 0: no pause;
    - ``max_deaths``: the task is not given to another engine after it was lost with this many engines;
    - ``needs``: what an engine must have, see `Needs`;
    - ``on_cancel``: ``"interrupt"`` or ``"withdraw"``: whether the attempt that runs is interrupted by a cancel of the
      client's own future.
    """

    priority: int = 0
    weight: float = 1.0
    max_runtime: float = 0.0
    grace: float = 10.0
    max_attempts: int = 0
    retry_on: frozenset[str] | None = None
    retry_pause: float = 0.0
    max_deaths: int = 3
    needs: Needs = ()
    on_cancel: str = "withdraw"

    def as_dict(self) -> dict[str, Any]:
        """Return the rules that are not the defaults, as JSON values that `parse_rules` reads."""
        said: dict[str, Any] = {}
        for field in fields(self):
            value = getattr(self, field.name)
            if value == field.default:
                continue
            if field.name == "needs":
                value = dict(value)
            elif isinstance(value, frozenset):
                value = sorted(value)
            said[field.name] = value
        return said


NO_RULES = TaskRules()
"""The rules of a task for which nobody has said a rule. `task.rules is NO_RULES` finds such tasks at no cost."""
RULE_NAMES = frozenset(field.name for field in fields(TaskRules))


def parse_rules(said: Mapping[str, Any]) -> TaskRules:
    """Return the rules in a mapping that names some of `RULE_NAMES`. Other names are ignored.

    Raises:
        WireError: a value cannot be used. The message names the rule and what it may be.
    """
    given = {name: _PARSERS[name](name, said[name]) for name in RULE_NAMES & said.keys() if said[name] is not None}
    rules = TaskRules(**given)
    return NO_RULES if rules == NO_RULES else rules


def shown(value: Any) -> str:
    """Return a value of a client for an error: in quotes, and at most 100 characters. Never fails, unlike `str`."""
    return repr((value if isinstance(value, str) else json_text(value))[:100])


def parse_needs(name: str, value: Any) -> Needs:
    """Return needs, or the tags and amounts of an engine, in sorted order.

    Args:
        name: the name of the rule or option, for the error.
        value: a mapping of names to amounts (numbers, or texts such as ``"32G"``), to tags (texts), or to true.

    Raises:
        WireError: the value cannot be used.
    """
    if not isinstance(value, Mapping) or len(value) > MAX_NAMES:
        raise _wrong(name, value, f"a mapping of at most {MAX_NAMES} names to amounts or tags")
    needs = []
    for key, amount in value.items():
        if not isinstance(key, str) or not key:
            raise _wrong(name, value, "a mapping of names to amounts or tags")
        needs.append((key, _amount_or_tag(f"{name}[{key}]", amount)))
    return tuple(sorted(needs))


def _amount_or_tag(name: str, value: Any) -> float | str:
    if value is True:
        return 1.0
    if isinstance(value, str) and value:
        number, unit = (value[:-1], _UNITS[value[-1].lower()]) if value[-1].lower() in _UNITS else (value, 1.0)
        try:
            amount = float(number) * unit
        except ValueError:
            return value
    elif isinstance(value, int | float):
        amount = float(value) if abs(value) <= MAX_AMOUNT else math.inf
    else:
        raise _wrong(name, value, "a positive amount, such as 2 or 32G, or a text")
    if not (math.isfinite(amount) and amount > 0):
        raise _wrong(name, value, "a positive amount, such as 2 or 32G, or a text")
    return amount


def _integer(low: int, high: int) -> Any:
    def parse(name: str, value: Any) -> int:
        if type(value) is not int or not low <= value <= high:
            raise _wrong(name, value, f"a whole number from {low} to {high}")
        return value

    return parse


def _number(low: float, high: float, what: str) -> Any:
    def parse(name: str, value: Any) -> float:
        if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
            raise _wrong(name, value, what)
        return float(value)

    return parse


def _names(name: str, value: Any) -> frozenset[str]:
    names = [value] if isinstance(value, str) else value
    usable = isinstance(names, list | tuple | set | frozenset) and 0 < len(names) <= MAX_NAMES
    if not usable or not all(isinstance(one, str) and one for one in names):
        raise _wrong(name, value, f'names of exceptions, "{DEATH}" or "{ANY_FAILURE}"')
    return frozenset(names)


def _on_cancel(name: str, value: Any) -> str:
    if value not in (INTERRUPT, "withdraw"):
        raise _wrong(name, value, '"interrupt" or "withdraw"')
    return str(value)


def _wrong(name: str, value: Any, what: str) -> WireError:
    return WireError("wrong_type", f"{name[:200]} is {shown(value)}: it must be {what}")


_seconds = _number(0, MAX_SECONDS, f"a number of seconds, at most {MAX_SECONDS:g}")
_PARSERS: dict[str, Any] = {
    "priority": _integer(-MAX_PRIORITY, MAX_PRIORITY),
    "weight": _number(1 / MAX_WEIGHT, MAX_WEIGHT, f"a number from {1 / MAX_WEIGHT:g} to {MAX_WEIGHT:g}"),
    "max_runtime": _seconds,
    "grace": _seconds,
    "max_attempts": _integer(0, MAX_ATTEMPTS),
    "retry_on": _names,
    "retry_pause": _seconds,
    "max_deaths": _integer(1, MAX_ATTEMPTS),
    "needs": parse_needs,
    "on_cancel": _on_cancel,
}
