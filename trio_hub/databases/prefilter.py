"""The part of a query that a database can check by itself.

A database on a disk or a server selects candidates by terms, which compare columns with plain texts and dates. If the
terms are not the whole query, `Query.matches` then checks each candidate; the record needs only the keys in ``needs``
for that. So all backends give the same answers, although their own query languages differ.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal, NamedTuple, TypeAlias

from ..records.query import Condition, Query
from ..records.record import DATE_KEYS

__all__ = ["PLAIN_KEYS", "Comparison", "Prefilter", "Term", "prefilter"]

# Keys whose columns a database can compare: texts, only for equality, and dates.
_PLAIN_TEXTS = frozenset(("msg_id", "client_uuid", "engine_uuid", "queue", "resubmitted"))
PLAIN_KEYS = _PLAIN_TEXTS | DATE_KEYS

# As in SQL, a column without a value passes only "is null" and "in or null".
Comparison: TypeAlias = Literal["<", "<=", ">", ">=", "in", "in or null", "is null", "is not null"]

_ORDERS: dict[str, Comparison] = {"$lt": "<", "$lte": "<=", "$gt": ">", "$gte": ">="}


class Term(NamedTuple):
    """A comparison of a column with a value, which each matching record passes.

    For ``<``, ``<=``, ``>`` and ``>=`` the value is an aware `datetime` in UTC. For ``in`` and ``in or null`` it is a
    tuple of texts or of such dates, without repetitions and without None; no column is ``in`` an empty tuple. For the
    other comparisons it is None.
    """

    column: str
    comparison: Comparison
    value: Any = None


@dataclass(frozen=True, slots=True)
class Prefilter:
    """Terms that each matching record passes. If ``exact``, all records that pass the terms match.

    ``needs`` are the keys that `Query.matches` needs; none if ``exact``, since it need not be called then.
    """

    terms: tuple[Term, ...]
    exact: bool
    needs: frozenset[str]


def prefilter(query: Query) -> Prefilter:
    """Return the terms of a query. All conditions that list msg_ids become one term, which comes first."""
    terms: list[Term] = []
    exact = True
    if query.exact_ids is not None:
        terms.append(Term("msg_id", "in", tuple(query.exact_ids)))
    for condition in query.conditions:
        key, operator = condition.path[0], condition.operator
        if key == "msg_id" and operator in ("$eq", "$in"):
            continue  # this term is part of `exact_ids`
        term = _term(condition) if key in PLAIN_KEYS else None
        if term is None:
            exact = False
        else:
            terms.append(term)
    needs = frozenset() if exact else frozenset(condition.path[0] for condition in query.conditions)
    return Prefilter(tuple(terms), exact, needs)


def _term(condition: Condition) -> Term | None:
    """Return the term that is equivalent to a condition on a plain key; None if there is none."""
    (column,), operator, value = condition.path, condition.operator, condition.value
    is_date = column in DATE_KEYS
    if operator in ("$eq", "$in"):
        return _among(column, value if operator == "$in" else (value,))
    if operator == "$exists":
        return Term(column, "is not null" if value else "is null")
    if operator == "$ne" and value is None:
        return Term(column, "is not null")
    if operator in _ORDERS and is_date:
        # None is neither less nor greater than anything
        return Term(column, "in", ()) if value is None else Term(column, _ORDERS[operator], value)
    return None


def _among(column: str, listed: Sequence[Any]) -> Term:
    # A value of another type, such as a number, equals no value of a plain key.
    kind = datetime if column in DATE_KEYS else str
    values = tuple(dict.fromkeys(value for value in listed if isinstance(value, kind)))
    if None not in listed:
        return Term(column, "in", values)
    return Term(column, "in or null", values) if values else Term(column, "is null")
