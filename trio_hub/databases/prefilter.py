"""What of a query a database can check by itself.

A database on disk selects candidates by these terms, over columns that hold plain texts and dates. Unless the terms
say all that the query says, it then asks `Query.matches` about each candidate, for which the record needs no more than
the keys in ``needs``. So it answers as every other backend does, whatever its own language makes of the rest.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal, NamedTuple, TypeAlias

from ..records.query import Condition, Query
from ..records.record import DATE_KEYS

__all__ = ["PLAIN_KEYS", "Comparison", "Prefilter", "Term", "prefilter"]

# Keys with a column of their own that a database can compare: texts, compared for equality only, and dates.
_PLAIN_TEXTS = frozenset(("msg_id", "client_uuid", "engine_uuid", "queue", "resubmitted"))
PLAIN_KEYS = _PLAIN_TEXTS | DATE_KEYS

# As in SQL: a column without a value passes "is null" and "in or null", and nothing else.
Comparison: TypeAlias = Literal["<", "<=", ">", ">=", "in", "in or null", "is null", "is not null"]

_ORDERS: dict[str, Comparison] = {"$lt": "<", "$lte": "<=", "$gt": ">", "$gte": ">="}


class Term(NamedTuple):
    """One thing that holds for every record that matches: the column passes the comparison with the value.

    The value is an aware UTC `datetime` for the orders, a tuple of texts or of such dates (without repetitions, never
    None among them) for ``in`` and ``in or null``, and None for the rest. Nothing is ``in`` an empty tuple.
    """

    column: str
    comparison: Comparison
    value: Any = None


@dataclass(frozen=True, slots=True)
class Prefilter:
    """Terms that all hold for every record that matches; if ``exact``, then also for no other.

    ``needs`` are the record's keys that `Query.matches` looks at; none if ``exact``, since it need not be asked.
    """

    terms: tuple[Term, ...]
    exact: bool
    needs: frozenset[str]


def prefilter(query: Query) -> Prefilter:
    """The terms of a query; those that list msg_ids become one, which comes first."""
    terms: list[Term] = []
    exact = True
    if query.exact_ids is not None:
        terms.append(Term("msg_id", "in", tuple(query.exact_ids)))
    for condition in query.conditions:
        key, operator = condition.path[0], condition.operator
        if key == "msg_id" and operator in ("$eq", "$in"):
            continue  # one of those above
        term = _term(condition) if key in PLAIN_KEYS else None
        if term is None:
            exact = False
        else:
            terms.append(term)
    needs = frozenset() if exact else frozenset(condition.path[0] for condition in query.conditions)
    return Prefilter(tuple(terms), exact, needs)


def _term(condition: Condition) -> Term | None:
    """The term that says the same as a condition on a plain key, if there is one."""
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
    # What is neither a text nor a date, a number say, equals the value of no plain key.
    kind = datetime if column in DATE_KEYS else str
    values = tuple(dict.fromkeys(value for value in listed if isinstance(value, kind)))
    if None not in listed:
        return Term(column, "in", values)
    return Term(column, "in or null", values) if values else Term(column, "is null")
