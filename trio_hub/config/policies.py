"""The setting ``policies``: the ``[[policy]]`` tables of the file of settings, checked."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from ..errors import ConfigError, WireError
from ..schedulers.policy import Policy, parse_policy
from ..schedulers.rules import shown
from .rules import Rule

__all__ = ["POLICIES", "read_policies"]


def read_policies(tables: Any, label: str) -> tuple[Policy, ...]:
    """Return the policies in a list of tables. `Policy` objects in the list stay as they are.

    Args:
        tables: the list.
        label: where the list comes from, for the error.

    Raises:
        ConfigError: A table cannot be used. The text names its source, its number and its name, and the remedy.
    """
    if isinstance(tables, str | bytes | dict) or not isinstance(tables, Iterable):
        raise ConfigError(f"{label} is {shown(tables)}: expected {POLICIES.accepts}")
    policies: dict[str, Policy] = {}
    for number, table in enumerate(tables, 1):
        try:
            policy = table if isinstance(table, Policy) else parse_policy(table)
        except WireError as error:
            raise ConfigError(f"{label}, number {number}: {error}") from None
        if policy.name in policies:
            raise ConfigError(f"{label}, number {number}: there is a policy {policy.name!r} already: use another")
        policies[policy.name] = policy
    return tuple(policies.values())


def _check(value: Any) -> tuple[Policy, ...]:
    return read_policies(value, "policies")


POLICIES = Rule("a list of tables, each with a name, conditions and rules", _check, json.loads, "JSON")
