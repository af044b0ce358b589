"""A second, simple implementation of the query language, over decoded records.

It shares no code with `trio_hub.records`, and does not care how slow it is.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from datetime import UTC, datetime
from fractions import Fraction
from typing import Any

DATES = ("submitted", "started", "completed", "received")


def matches(query: dict[str, Any], record: dict[str, Any]) -> bool:
    """Return whether a decoded record (all 23 keys) matches a valid query."""
    for key, wanted in query.items():
        value = look_up(record, key)
        asked = {"$eq": wanted}
        if isinstance(wanted, dict) and any(name.startswith("$") for name in wanted):
            asked = wanted
        for operator, operand in asked.items():
            if key in DATES:
                operand = [date(each) for each in operand] if isinstance(operand, list) else date(operand)
            if not holds(value, operator, operand):
                return False
    return True


def in_order(records: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return records in the order of history. They are given in the order of their arrival."""
    records = list(records)
    dated = [record for record in records if record["submitted"] is not None]
    return sorted(dated, key=lambda record: stamp(record["submitted"])) + [
        record for record in records if record["submitted"] is None
    ]


def look_up(value: Any, path: str) -> Any:
    key, _, rest = path.partition(".")
    value = value[key] if isinstance(value, dict) and key in value else None
    return look_up(value, rest) if rest else value


def date(value: Any) -> Any:
    if isinstance(value, str):
        value = datetime.fromisoformat(value.replace("Z", "+00:00"))
    if isinstance(value, datetime) and value.tzinfo is None:
        value = value.replace(tzinfo=UTC)
    return value


def stamp(value: datetime) -> Fraction:
    """Return a date as seconds since 1970, without rounding."""
    since = value - datetime(1970, 1, 1, tzinfo=UTC)
    return since.days * 86400 + since.seconds + Fraction(since.microseconds, 1_000_000)


def holds(value: Any, operator: str, operand: Any) -> bool:
    match operator:
        case "$eq":
            return canonical(value) == canonical(operand)
        case "$ne":
            return canonical(value) != canonical(operand)
        case "$lt":
            return less(value, operand)
        case "$gt":
            return less(operand, value)
        case "$lte":
            return less(value, operand) or (has_order(value) and holds(value, "$eq", operand))
        case "$gte":
            return less(operand, value) or (has_order(value) and holds(value, "$eq", operand))
        case "$in":
            return canonical(value) in [canonical(each) for each in operand]
        case "$nin":
            return canonical(value) not in [canonical(each) for each in operand]
        case "$all":
            there = [canonical(each) for each in (value if isinstance(value, list) else [value])]
            return operand != [] and all(canonical(each) in there for each in operand)
        case "$mod":
            if kind(value) != "number" or canonical(value)[1] in ("nan", math.inf, -math.inf):
                return False
            whole, divisor = math.trunc(value), int(operand[0])
            return bool(whole - divisor * math.trunc(Fraction(whole, divisor)) == operand[1])
        case "$exists":
            return (value is not None) == bool(operand)
        case "$glob":
            return isinstance(value, str) and glob(operand, value)
    raise AssertionError(operator)


def kind(value: Any) -> str:
    if isinstance(value, bool):
        return "bool"
    if isinstance(value, int | float):
        return "number"
    names = {type(None): "none", str: "text", datetime: "date", list: "list", dict: "dict"}
    return names[type(value)]


def canonical(value: Any) -> tuple[str, Any]:
    """Return a form of a value that is the same for equal values."""
    name = kind(value)
    if name == "number":
        if isinstance(value, float) and not math.isfinite(value):
            return name, "nan" if math.isnan(value) else value
        return name, Fraction(value)
    if name == "date":
        return name, stamp(value)
    if name == "list":
        return name, tuple(canonical(each) for each in value)
    if name == "dict":
        return name, frozenset((key, canonical(each)) for key, each in value.items())
    return name, value


def has_order(value: Any) -> bool:
    return kind(value) in ("bool", "number", "text", "date")


def less(a: Any, b: Any) -> bool:
    (a_kind, a_value), (b_kind, b_value) = canonical(a), canonical(b)
    if a_kind != b_kind or not has_order(a) or ("nan" in (a_value, b_value) and a_kind == "number"):
        return False
    return bool(a_value < b_value)


def glob(pattern: str, text: str) -> bool:
    if not pattern:
        return not text
    if pattern[0] == "*":
        return any(glob(pattern[1:], text[start:]) for start in range(len(text) + 1))
    if not text:
        return False
    if pattern[0] == "[" and "]" in pattern:
        listed, _, rest = pattern[1:].partition("]")
        hit = text[0] not in listed[1:] if listed[0] == "!" else text[0] in listed
        return hit and glob(rest, text[1:])
    return pattern[0] in ("?", text[0]) and glob(pattern[1:], text[1:])
