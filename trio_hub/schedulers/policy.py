"""A policy: rules that a hub gives to the tasks that match it, so that users need not change their programs."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ..errors import WireError
from ..wire.plain import json_text
from .rules import RULE_NAMES, parse_rules, shown

__all__ = ["CONDITIONS", "MAX_NAME", "Policy", "parse_policy", "text_matches"]

CONDITIONS = ("label", "function", "client", "user")
"""The conditions of a policy, see `Policy`."""
MAX_NAME = 100
"""The maximum number of characters of a policy's name."""
MAX_PATTERN = 1000
"""The maximum number of characters of a pattern, and the maximum number of keys of a label."""
_KNOWN = ("name", *CONDITIONS, *sorted(RULE_NAMES))


@dataclass(frozen=True)
class Policy:
    """A named set of rules for the tasks that match all its conditions. A policy without conditions matches all tasks.

    - ``name``: the name, by which the policy is listed and removed;
    - ``label``: a pattern for the task's label, if it is a text; or a dict, whose keys must all be in the task's label,
      with values that match; None: any label;
    - ``function``: a pattern for the name of the function, without its module and class; None: any function;
    - ``client``: a pattern for the client's session; None: any client;
    - ``user``: a pattern for the user name in the task's header; None: any user;
    - ``said``: the rules that the policy sets, by name. `parse_rules` accepts them.

    In a pattern, ``*`` stands for any characters. All other characters stand for themselves.
    """

    name: str
    label: str | Mapping[str, Any] | None = field(default=None, hash=False)
    function: str | None = None
    client: str | None = None
    user: str | None = None
    said: Mapping[str, Any] = field(default_factory=dict, hash=False)

    def as_dict(self) -> dict[str, Any]:
        """Return the policy as JSON values, in the form that `parse_policy` reads."""
        conditions = {name: getattr(self, name) for name in CONDITIONS}
        given = {name: value for name, value in conditions.items() if value is not None}
        return {"name": self.name} | given | dict(self.said)

    def matches(self, label: Any, function: str, client: str, user: str) -> bool:
        """Return whether a task with this label, function, client session and user name meets all conditions."""
        return (
            (self.function is None or text_matches(self.function, function))
            and (self.client is None or text_matches(self.client, client))
            and (self.user is None or text_matches(self.user, user))
            and (self.label is None or _label_matches(self.label, label))
        )


def parse_policy(table: Any) -> Policy:
    """Return the policy in a table: ``name``, conditions (`CONDITIONS`), and rules (`RULE_NAMES`).

    Raises:
        WireError: The table has an unknown key or an unusable value. The text names the policy, the key, and what the
            value must be.
    """
    if not isinstance(table, Mapping):
        raise _refused(f"a policy must be a table with a name and rules, not {shown(table)}")
    name = table.get("name")
    if not isinstance(name, str) or not name or len(name) > MAX_NAME or not name.isprintable():
        raise _refused(f"a policy must have a name of 1 to {MAX_NAME} printable characters, not {shown(name)}")
    for key in table:
        if key not in _KNOWN:
            near = difflib.get_close_matches(key[:MAX_NAME] if isinstance(key, str) else "", _KNOWN, n=1)
            hint = f"did you mean {near[0]}?" if near else f"the keys are {', '.join(_KNOWN)}"
            raise _refused(f"policy {name!r}: {shown(key)} is no condition and no rule: {hint}")
    conditions = {key: _condition(name, key, table[key]) for key in CONDITIONS if table.get(key) is not None}
    said = {key: _plain(table[key]) for key in sorted(RULE_NAMES & table.keys()) if table[key] is not None}
    if not said:
        raise _refused(f"policy {name!r} sets no rule: the rules are {', '.join(sorted(RULE_NAMES))}")
    try:
        parse_rules(said)
    except WireError as error:
        raise _refused(f"policy {name!r}: {error}") from None
    return Policy(name, said=said, **conditions)


def text_matches(pattern: str, text: str) -> bool:
    """Return whether a text matches a pattern, in which ``*`` stands for any characters. Takes linear time."""
    first, *rest = pattern.split("*")
    if not rest:
        return pattern == text
    last = rest.pop()
    if len(text) < len(first) + len(last) or not text.startswith(first) or not text.endswith(last):
        return False
    at, end = len(first), len(text) - len(last)
    for part in rest:
        at = text.find(part, at, end)
        if at < 0:
            return False
        at += len(part)
    return True


def _label_matches(wanted: str | Mapping[str, Any], label: Any) -> bool:
    if isinstance(wanted, str):
        return isinstance(label, str) and text_matches(wanted, label)
    return isinstance(label, Mapping) and all(
        key in label and _value_matches(wanted[key], label[key]) for key in wanted
    )


def _value_matches(wanted: Any, value: Any) -> bool:
    if isinstance(wanted, str) and isinstance(value, str):
        return text_matches(wanted, value)
    return isinstance(wanted, bool) == isinstance(value, bool) and bool(wanted == value)


def _condition(name: str, key: str, value: Any) -> Any:
    if isinstance(value, str) and 0 < len(value) <= MAX_PATTERN:
        return value
    if key == "label" and isinstance(value, Mapping) and 0 < len(value) <= MAX_PATTERN:
        if all(isinstance(part, str | int | float) and len(json_text(part)) <= MAX_PATTERN for part in value.values()):
            return {str(part): wanted for part, wanted in value.items()}
        raise _refused(f"policy {name!r}: the values in label must be texts, numbers, true or false")
    table = ", or a table of them" if key == "label" else ""
    raise _refused(f"policy {name!r}: {key} is {shown(value)}: it must be a text, in which * is any text{table}")


def _plain(value: Any) -> Any:
    """Return the value of a rule as JSON can hold it, and as a copy."""
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, set | frozenset):
        return sorted(value, key=str)
    return list(value) if isinstance(value, list | tuple) else value


def _refused(text: str) -> WireError:
    return WireError("wrong_type", text)
