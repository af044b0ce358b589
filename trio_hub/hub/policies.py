"""Policies of the hub: the rules of tasks whose clients say no rules, or not all of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import msgspec

from ..errors import WireError
from ..logs import get_logger
from ..schedulers.policy import Policy, parse_policy
from ..schedulers.rules import NO_RULES, RULE_NAMES, TaskRules, parse_rules, shown
from ..wire.messages import Message, Session, TaskMetadata
from .labels import Labels
from .replies import Reply

__all__ = ["NOTHING", "Applied", "Policies"]

log = get_logger("trio_hub.hub")

MAX_POLICIES = 1000
"""The maximum number of policies that are added to a running hub."""
REMEMBERED = 1000
"""The maximum number of kinds of tasks whose rules are remembered."""
MAX_KEY = 4096
"""The maximum size, in bytes, of a task's label and own rules, if the rules that apply are to be remembered."""


class Applied(NamedTuple):
    """What applies to a task: its rules, and the names of the policies that have set some of them."""

    rules: TaskRules = NO_RULES
    policies: tuple[str, ...] = ()


NOTHING = Applied()
"""What applies to a task for which nobody has said a rule."""


class Policies:
    """Finds the rules that apply to each task.

    Rules come from three places, in this order:

    1. the key ``rules`` in the metadata of the request: clients of this project send it;
    2. the label of the request, if it is a dict with some of `RULE_NAMES`: all that a stock client can say;
    3. the policies that match the request: first those that were added to the running hub, the newest first, then those
       of the configuration, in the order of the file.

    A later place sets only the rules that no earlier place has set. Rules are found once, when the task is submitted.
    So a change of the policies affects only tasks that come afterwards.

    A caller need not ask for tasks that have none of these, see `active`. The first task of a kind (own rules, label,
    function, client, user) takes time in proportion to the number of policies. The rules for the kind are remembered.

    Args:
        session: reads queries.
        labels: finds names of functions.
        changed: is called when policies were added or removed.
        configured: the policies of the configuration.
    """

    def __init__(
        self, session: Session, labels: Labels, changed: Callable[[], None], configured: Iterable[Policy] = ()
    ) -> None:
        self._session = session
        self._labels = labels
        self._changed = changed
        self._configured = {policy.name: policy for policy in configured}
        self._added: dict[str, Policy] = {}
        self._remembered: dict[tuple[bytes, str, str, str], Applied] = {}
        self._sort()

    def _sort(self) -> None:
        added = list(self._added.values())[::-1]
        self._sorted = [*added, *(each for name, each in self._configured.items() if name not in self._added)]
        self._remembered.clear()
        self.active = bool(self._sorted)
        """Whether there are policies. If not, only tasks with ``rules`` or with a dict as label have rules."""
        self._asks_function = any(policy.function is not None for policy in self._sorted)
        self._asks_client = any(policy.client is not None for policy in self._sorted)
        self._asks_user = any(policy.user is not None for policy in self._sorted)

    # For tasks

    def applied_to(self, msg: Message, metadata: TaskMetadata) -> Applied:
        """Return the rules that apply to a new task. Raises `WireError` if the client has said an unusable rule."""
        header = msg.header
        function = self._labels.function_of(header.msg_type, msg.frames[6:]) if self._asks_function else ""
        client = header.session if self._asks_client else ""
        user = header.username if self._asks_user else ""
        try:
            said = _encode((metadata.label, metadata.rules))
        except Exception:  # a MessagePack extension, for instance
            return self._found(metadata, function, client, user)
        key = (said, function, client, user)
        applied = self._remembered.get(key)
        if applied is None:
            applied = self._found(metadata, function, client, user)
            if len(said) <= MAX_KEY:
                if len(self._remembered) >= REMEMBERED:
                    del self._remembered[next(iter(self._remembered))]
                self._remembered[key] = applied
        return applied

    def _found(self, metadata: TaskMetadata, function: str, client: str, user: str) -> Applied:
        said = _said_by_client(metadata)
        names = []
        for policy in self._sorted:
            if policy.matches(metadata.label, function, client, user):
                new = {name: value for name, value in policy.said.items() if name not in said}
                if new:
                    said |= new
                    names.append(policy.name)
        return Applied(parse_rules(said), tuple(names))

    # For administrators

    @property
    def added(self) -> list[dict[str, Any]]:
        """The policies that were added to the running hub, the oldest first, as `parse_policy` reads them."""
        return [policy.as_dict() for policy in self._added.values()]

    def listed(self) -> list[dict[str, Any]]:
        """Return all policies in the order in which they apply, each with its ``source``: configuration or added."""
        return [
            {"source": "added" if policy.name in self._added else "configuration"} | policy.as_dict()
            for policy in self._sorted
        ]

    def add(self, table: Mapping[str, Any]) -> Policy:
        """Add a policy, given as `parse_policy` reads it, in front of all others. It replaces one with its name.

        Raises:
            WireError: The policy cannot be used, or there are too many.
        """
        policy = parse_policy(table)
        self._added.pop(policy.name, None)
        if len(self._added) >= MAX_POLICIES:
            raise WireError("too_large", f"at most {MAX_POLICIES:,} policies can be added: remove some first")
        self._added[policy.name] = policy
        self._sort()
        log.info("policy added", policy=policy.name)
        self._changed()
        return policy

    def remove(self, name: Any) -> None:
        """Remove a policy. If it had replaced one of the configuration, that one applies again.

        A removed policy of the configuration comes back when the hub is started again.

        Raises:
            KeyError: There is no policy of this name.
        """
        if not isinstance(name, str) or not (self._added.pop(name, None) or self._configured.pop(name, None)):
            there = ", ".join(policy.name for policy in self._sorted) or "none"
            raise KeyError(f"there is no policy {shown(name)}; the policies are: {there}")
        self._sort()
        log.info("policy removed", policy=name)
        self._changed()

    def restore(self, tables: Iterable[Any]) -> None:
        """Add the policies that an earlier hub has left. A policy that cannot be used is left out, with a warning."""
        for table in tables:
            try:
                policy = parse_policy(table)
            except WireError as error:
                log.warning("a policy is not restored", kind="policy", error=error)
            else:
                self._added[policy.name] = policy
        self._sort()

    def policy_request(self, client_id: list[bytes], msg: Message) -> Reply:
        """List, add or remove policies, as the ``action`` in the query says; reply with all policies.

        ``add`` needs the ``policy``, as `parse_policy` reads it, and ``remove`` its ``name``.
        """
        content = self._session.content(msg)
        match content.get("action", "list"):
            case "list":
                pass
            case "add":
                self.add(content.get("policy") or {})
            case "remove":
                self.remove(content.get("name"))
            case action:
                raise ValueError(f"the action must be list, add or remove, not {shown(action)}")
        return Reply("policy_reply", {"status": "ok", "policies": self.listed()})


def _said_by_client(metadata: TaskMetadata) -> dict[str, Any]:
    """Return the rules in the metadata and in the label, unchecked. Raises `WireError`."""
    rules = metadata.rules
    if rules is not None and not isinstance(rules, dict):
        raise WireError("wrong_type", f"rules is {shown(rules)}: it must be a mapping of rules to values")
    said: dict[str, Any] = {}
    for place in (metadata.label, rules):
        if isinstance(place, dict):
            said |= {name: place[name] for name in RULE_NAMES & place.keys() if place[name] is not None}
    return said


_encode = msgspec.msgpack.Encoder().encode
