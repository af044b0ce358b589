"""The rules that a program gives its tasks: their rank, their limits, when they are repeated, and what they need."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Literal, TypedDict

__all__ = ["Rules", "sent_rules"]

RetryOn = str | type[BaseException] | Iterable[str | type[BaseException]]


class Rules(TypedDict, total=False):
    """Rules of a task. The hub's policies set the rules that are not given.

    - ``priority``: tasks with a higher number go first, also before other clients' tasks; from -1000 to 1000; by
      default 0;
    - ``weight``: the share of this client among the clients that have tasks of the same priority; by default 1;
    - ``max_runtime``: the seconds for which one attempt may run. Then it is interrupted: ``TaskTimeout``;
    - ``grace``: the seconds that an interrupted attempt has to end, before its engine is killed; by default 10;
    - ``max_attempts``: how often the task is tried; by default once;
    - ``retry_on``: what the task is repeated after: exceptions or their names, ``"death"`` (its engine was lost)
      or ``"all"``; by default any failure;
    - ``retry_pause``: the seconds before the second attempt, doubled before each further attempt;
    - ``max_deaths``: a task that was lost with this many engines is not given to another engine; by default 3;
    - ``needs``: what an engine must have: an amount that must be free (``{"gpu": 1, "memory": "32G"}``), or a tag that
      must be equal (``{"site": "a"}``);
    - ``on_cancel``: ``"interrupt"`` if a cancelled call that runs is to be interrupted; by default it goes on.
    """

    priority: int | None
    weight: float | None
    max_runtime: float | None
    grace: float | None
    max_attempts: int | None
    retry_on: RetryOn | None
    retry_pause: float | None
    max_deaths: int | None
    needs: Mapping[str, float | str | bool] | None
    on_cancel: Literal["withdraw", "interrupt"] | None


_NAMES = Rules.__annotations__.keys()


def sent_rules(rules: Mapping[str, Any]) -> dict[str, Any]:
    """Return rules as they are sent to the hub, which checks the values. Rules that are None are left out.

    Raises:
        TypeError: there is no rule of such a name, or ``retry_on`` has something else than names and exceptions.
    """
    unknown = rules.keys() - _NAMES
    if unknown:
        raise TypeError(f"there is no rule {min(unknown)!r}: the rules are {', '.join(_NAMES)}")
    sent = {name: value for name, value in rules.items() if value is not None}
    if "retry_on" in sent:
        causes = sent["retry_on"]
        sent["retry_on"] = [_cause(one) for one in ([causes] if isinstance(causes, (str, type)) else causes)]
    if "needs" in sent:
        sent["needs"] = dict(sent["needs"])
    return sent


def _cause(cause: Any) -> str:
    if isinstance(cause, type) and issubclass(cause, BaseException):
        return cause.__name__
    if isinstance(cause, str):
        return cause
    raise TypeError(f"retry_on has {cause!r}: give exceptions, names of exceptions, 'death' or 'all'")
