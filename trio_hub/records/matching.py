"""The operators of the query language, each as a predicate on one value.

The rules are those of MongoDB, except that values are compared as a whole: only ``$all`` looks at the items of a list.

- Numbers are equal by value (``1`` and ``1.0``); ``true`` is not ``1``; NaN equals NaN; dicts are equal
  whatever the order of their keys. These rules also apply inside lists and dicts.
- A missing value is None. None equals only None.
- ``$lt $gt $lte $gte`` compare two numbers, two texts (by code point), two dates or two bools. For other pairs, and
  if a side is None, they are false. NaN is neither less nor greater than anything.
- ``$all`` treats a value that is not a list as a list of one item. An empty ``$all`` matches nothing.
- ``$mod`` drops the fraction of a number, and the remainder has the sign of the number, as in C and SQL.

Predicates never raise an exception, whatever the value.
"""

from __future__ import annotations

import fnmatch
import math
import operator
import re
from collections.abc import Callable, Sequence
from datetime import datetime
from functools import partial
from typing import Any, TypeAlias

__all__ = ["OPERATORS", "Predicate", "predicate", "same"]

Predicate: TypeAlias = Callable[[Any], bool]


def predicate(name: str, operand: Any) -> Predicate:
    """Return the predicate of an operator (one of `OPERATORS`) with an operand that was checked."""
    return _MAKERS[name](operand)


def same(a: Any, b: Any) -> bool:
    """Return whether two values are equal. Recurses no deeper than the shallower of the two."""
    if isinstance(a, bool) or isinstance(b, bool):
        return a is b
    if isinstance(a, dict):
        return isinstance(b, dict) and a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if isinstance(a, list):
        return isinstance(b, list) and len(a) == len(b) and all(map(same, a, b))
    return bool(a == b) or (_is_nan(a) and _is_nan(b))


def _is_nan(value: Any) -> bool:
    return isinstance(value, float) and math.isnan(value)


def _never(value: Any) -> bool:
    return False


def _unless(check: Predicate) -> Predicate:
    return lambda value: not check(value)


def _equal(operand: Any) -> Predicate:
    # For the usual operands, Python's equality has the same rules, and a C function compares them faster.
    return partial(operator.eq if operand is None or isinstance(operand, str) else same, operand)


def _ordered(compare: Callable[[Any, Any], Any], bound: Any) -> Predicate:
    if bound is None:
        return _never
    if _is_nan(bound):
        return _is_nan if compare in (operator.le, operator.ge) else _never
    # bool comes first, since isinstance(True, int) is true
    kinds = next(kinds for kinds in ((bool,), (int, float), (str,), (datetime,)) if isinstance(bound, kinds))
    return lambda value: type(value) in kinds and bool(compare(value, bound))


def _one_of(operands: Sequence[Any]) -> Predicate:
    # Long lists usually contain msg_ids, so texts are looked up in a set instead of compared one by one.
    hashed = frozenset(operand for operand in operands if isinstance(operand, str | datetime))
    others = [operand for operand in operands if not isinstance(operand, str | datetime)]

    def check(value: Any) -> bool:
        if isinstance(value, str | datetime):
            return value in hashed
        return any(same(value, other) for other in others)

    return check


def _contains_all(operands: Sequence[Any]) -> Predicate:
    if not operands:
        return _never

    def check(value: Any) -> bool:
        items = value if isinstance(value, list) else [value]
        return all(any(same(item, operand) for item in items) for operand in operands)

    return check


def _modulo(operands: tuple[int, int]) -> Predicate:
    divisor, remainder = abs(operands[0]), operands[1]

    def check(value: Any) -> bool:
        if type(value) is float and math.isfinite(value):
            value = math.trunc(value)
        if type(value) is not int:
            return False
        # Python's % has the sign of the divisor.
        rest = value % divisor if value >= 0 else -(-value % divisor)
        return rest == remainder

    return check


def _exists(wanted: bool) -> Predicate:
    return lambda value: (value is not None) is wanted


def _glob(pattern: str) -> Predicate:
    match = re.compile(fnmatch.translate(pattern)).match
    return lambda value: isinstance(value, str) and match(value) is not None


_MAKERS: dict[str, Callable[[Any], Predicate]] = {
    "$eq": _equal,
    "$ne": lambda operand: _unless(_equal(operand)),
    "$lt": partial(_ordered, operator.lt),
    "$gt": partial(_ordered, operator.gt),
    "$lte": partial(_ordered, operator.le),
    "$gte": partial(_ordered, operator.ge),
    "$in": _one_of,
    "$nin": lambda operands: _unless(_one_of(operands)),
    "$all": _contains_all,
    "$mod": _modulo,
    "$exists": _exists,
    "$glob": _glob,
}
OPERATORS = tuple(_MAKERS)
