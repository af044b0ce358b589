"""The query language of task databases. Queries are checked and parsed once.

A query is a dict, as in ``client.db_query({"engine_uuid": "…", "completed": {"$gte": "2024-05-01"}})``. All
entries must match, so ``{}`` matches every record.

- The key is one of the 23 record keys, or a dotted path into a key that holds JSON: ``header.msg_type``,
  ``result_content.ename``, ``label.run.number``. A path leads through dicts only, not through lists.
- The value is a dict of operators, all of which must match. Any other value, including a dict without ``$`` keys, must
  be equal to the record's value.

`trio_hub.records.matching` defines the operators. Their operands are:

===============================  ==============================================================
``$eq $ne``                      any value
``$lt $gt $lte $gte``            a number, text, date, bool or null
``$in $nin $all``                a list of values
``$mod``                         ``[divisor, remainder]``: whole numbers, the divisor not zero
``$exists``                      ``true`` or ``false`` (or 1, 0); a value that is None is not there
``$glob``                        a pattern with ``* ? [seq] [!seq]``; case matters
===============================  ==============================================================

The four date keys hold dates, so they are compared only with dates or None. A date is a `datetime`, or ISO 8601 text
from JSON. A date without a zone is in UTC. Dates *inside* JSON (``header.date``) are text. For buffers, a query can
only ask whether they exist.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from typing import Any

from ..errors import QueryError
from .matching import OPERATORS, Predicate, predicate
from .record import BUFFER_KEYS, DATE_KEYS, PACKED_KEYS, RECORD_KEYS, TaskRecord, unpacked

__all__ = ["Condition", "Query", "parse_keys", "parse_query"]

# Operands nested deeper than this are refused, so that comparing them cannot exhaust the stack.
MAX_DEPTH = 64

_DEFAULT_KEYS = tuple(key for key in RECORD_KEYS if key not in BUFFER_KEYS)
_KNOWN_KEYS = ", ".join(RECORD_KEYS)


@dataclass(frozen=True)
class Condition:
    """One condition of a query: the record's value at ``path`` passes ``operator`` with the operand ``value``.

    ``path`` starts with a record key. ``value`` is checked: it is a tuple for ``$in $nin $all``, two ints for
    ``$mod``, a bool for ``$exists``. For a date key, it contains aware datetimes in UTC.
    """

    path: tuple[str, ...]
    operator: str
    value: Any


@dataclass(frozen=True)
class Query:
    """Conditions that must all match. Made by `parse_query`, `Query.where` or `Query.everything`."""

    conditions: tuple[Condition, ...] = ()

    @classmethod
    def everything(cls) -> Query:
        """Return the query that matches every record."""
        return cls()

    @classmethod
    def where(cls, **exact: Any) -> Query:
        """Return the query for records whose keys have exactly these values."""
        return parse_query({key: {"$eq": value} for key, value in exact.items()})

    @cached_property
    def exact_ids(self) -> frozenset[str] | None:
        """The only msg_ids that can match, or None if the query does not list them.

        A backend looks up these msg_ids instead of scanning all records. It must still check the other conditions.
        """
        ids: frozenset[str] | None = None
        for condition in self.conditions:
            if condition.path == ("msg_id",) and condition.operator in ("$eq", "$in"):
                listed = condition.value if condition.operator == "$in" else (condition.value,)
                named = frozenset(value for value in listed if isinstance(value, str))
                ids = named if ids is None else ids & named
        return ids

    def matches(self, record: TaskRecord) -> bool:
        """Return whether a record matches all conditions. Decodes each JSON key at most once, and only when needed."""
        decoded: dict[str, Any] = {}
        for key, parts, check in self._plan:
            value = getattr(record, key)
            if key in PACKED_KEYS and value is not None:
                if key not in decoded:
                    decoded[key] = unpacked(key, value)
                value = decoded[key]
            for part in parts:
                value = value.get(part) if isinstance(value, dict) else None
            if not check(value):
                return False
        return True

    @cached_property
    def _plan(self) -> list[tuple[str, tuple[str, ...], Predicate]]:
        # Conditions that need no decoding go first: most records fail one of them.
        cheap_first = sorted(self.conditions, key=lambda condition: condition.path[0] in PACKED_KEYS)
        return [(each.path[0], each.path[1:], predicate(each.operator, each.value)) for each in cheap_first]


def parse_query(raw: object) -> Query:
    """Check and parse a query. The result keeps no reference to `raw`.

    Raises:
        QueryError: The query is invalid. The message names the invalid part and the remedy.
    """
    if not isinstance(raw, dict):
        raise QueryError(f"query: expected an object, not {_type(raw)}; {{}} matches everything")
    conditions = []
    for key, wanted in raw.items():
        path = _parse_path(key)
        for name, operand in _operations(key, wanted):
            where = f"query[{_quoted(key)}][{name!r}]"
            conditions.append(Condition(path, name, _checked(path, name, operand, where)))
    return Query(tuple(conditions))


def parse_keys(raw: object) -> tuple[str, ...]:
    """Check a list of record keys. Return ``msg_id`` followed by the other keys, each once.

    None means all keys except the buffers.

    Raises:
        QueryError: `raw` is not a list, or contains a key that records do not have.
    """
    if raw is None:
        return _DEFAULT_KEYS
    if not isinstance(raw, list | tuple):
        raise QueryError(f"keys: expected a list of record keys, not {_type(raw)}")
    for key in raw:
        if not isinstance(key, str) or key not in RECORD_KEYS:
            raise QueryError(f"keys: records have no key {_quoted(key)}; the keys are {_KNOWN_KEYS}")
    return tuple(dict.fromkeys(("msg_id", *raw)))


def _parse_path(key: object) -> tuple[str, ...]:
    where = f"query[{_quoted(key)}]"
    root, *parts = key.split(".") if isinstance(key, str) else [""]
    if root not in RECORD_KEYS:
        raise QueryError(f"{where}: records have no such key; the keys are {_KNOWN_KEYS}")
    if parts and root not in PACKED_KEYS and root != "label":
        raise QueryError(f"{where}: {root} does not hold JSON, so a path cannot lead into it; use {root!r}")
    if not all(parts):
        raise QueryError(f"{where}: a part of this path is empty; write a path such as 'header.msg_type'")
    return (root, *parts)


def _operations(key: str, wanted: object) -> Iterator[tuple[str, object]]:
    """Yield the conditions on one key, as pairs of operator and operand."""
    names = list(wanted) if isinstance(wanted, dict) else []
    operators = [name for name in names if isinstance(name, str) and name.startswith("$")]
    if not isinstance(wanted, dict) or not operators:
        yield "$eq", wanted
        return
    where = f"query[{_quoted(key)}]"
    for name in names:
        if name not in operators:
            raise QueryError(
                f"{where}: {_quoted(name)} is not an operator, but {_quoted(operators[0])} is; "
                "use operators only, or put an exact value into {'$eq': …}"
            )
        if name not in OPERATORS:
            raise QueryError(f"{where}: unknown operator {_quoted(name)}; the operators are {' '.join(OPERATORS)}")
        yield name, wanted[name]


def _checked(path: tuple[str, ...], name: str, operand: object, where: str) -> Any:
    """Check an operand, and return it in the form that a `Condition` holds."""
    key = path[0]
    if name == "$exists":
        if isinstance(operand, int) and operand in (0, 1):
            return bool(operand)
        raise QueryError(f"{where}: expected true or false, not {_type(operand)}")
    if key in BUFFER_KEYS:
        raise QueryError(f"{where}: buffers cannot be compared; use {{'$exists': true}}")
    if name in ("$mod", "$glob"):
        if key in DATE_KEYS:
            raise QueryError(f"{where}: {key} is a date; compare it with $gte and $lt")
        return _checked_mod(operand, where) if name == "$mod" else _checked_glob(operand, where)
    if name in ("$in", "$nin", "$all"):
        if not isinstance(operand, list | tuple):
            raise QueryError(f"{where}: expected a list, not {_type(operand)}")
        return tuple(_checked_value(key, value, where) for value in operand)
    value = _checked_value(key, operand, where)
    if name not in ("$eq", "$ne") and isinstance(value, dict | list):
        raise QueryError(f"{where}: expected a value with an order (number, text, date), not {_type(operand)}")
    return value


def _checked_mod(operand: object, where: str) -> tuple[int, int]:
    if isinstance(operand, list | tuple) and len(operand) == 2 and all(map(_is_whole, operand)):
        divisor, remainder = map(int, operand)
        if divisor != 0:
            return divisor, remainder
        raise QueryError(f"{where}: the divisor must not be zero")
    raise QueryError(f"{where}: expected [divisor, remainder], two whole numbers")


def _is_whole(value: object) -> bool:
    return (isinstance(value, int) and not isinstance(value, bool)) or (isinstance(value, float) and value.is_integer())


def _checked_glob(operand: object, where: str) -> str:
    if isinstance(operand, str):
        return operand
    raise QueryError(f"{where}: expected a pattern, a text with * ? [seq], not {_type(operand)}")


def _checked_value(key: str, value: object, where: str) -> Any:
    if key in DATE_KEYS:
        return _checked_date(key, value, where)
    return _checked_json(key, value, where, MAX_DEPTH)


def _checked_date(key: str, value: object, where: str) -> datetime | None:
    """Return a date in UTC, or None for None."""
    if value is None:
        return None
    try:
        moment = datetime.fromisoformat(value) if isinstance(value, str) else value
        if isinstance(moment, datetime):
            # OverflowError: a date at the end of the year 9999 may be after it in UTC
            return moment.replace(tzinfo=UTC) if moment.utcoffset() is None else moment.astimezone(UTC)
    except (ValueError, OverflowError):
        pass
    raise QueryError(f"{where}: {key} is a date; expected one such as '2024-05-01T12:00Z', not {_quoted(value)}")


def _checked_json(key: str, value: object, where: str, depth: int) -> Any:
    """Return a copy of a JSON value, so that the caller may change the original."""
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if depth == 0:
        raise QueryError(f"{where}: the value has more than {MAX_DEPTH} levels of nesting")
    if isinstance(value, list | tuple):
        return [_checked_json(key, item, where, depth - 1) for item in value]
    if isinstance(value, dict) and all(isinstance(name, str) for name in value):
        return {name: _checked_json(key, item, where, depth - 1) for name, item in value.items()}
    if isinstance(value, datetime):
        raise QueryError(f"{where}: {key} does not hold dates; dates inside JSON are text, so compare with text")
    raise QueryError(f"{where}: expected a JSON value, not {_type(value)}")


def _quoted(value: object) -> str:
    """Return a key of any type as a short, readable text for an error message."""
    return f"{value[:60]!r}" if isinstance(value, str) else _type(value)


def _type(value: object) -> str:
    return "null" if value is None else type(value).__name__
