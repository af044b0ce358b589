"""Random records and random queries, drawn from few values, so that queries find something."""

from __future__ import annotations

import json
import math
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

from hypothesis import strategies as st

from trio_hub.records.record import BUFFER_KEYS, DATE_KEYS, PACKED_KEYS, RECORD_KEYS, TaskRecord, empty_record

NOON = datetime(2024, 5, 1, 12, tzinfo=UTC)
MOMENTS = [NOON + timedelta(seconds=seconds) for seconds in (-3600, 0, 0.000001, 1, 86400)]
EAST = timezone(timedelta(hours=5, minutes=30))

numbers: st.SearchStrategy[Any] = st.sampled_from(
    [0, 1, -1, 2, -7, 10**400, 0.0, -0.0, 1.0, 1.5, -7.5, math.nan, math.inf, -math.inf]
)
texts = st.sampled_from(["", "a", "A", "ab", "é", "日本", "\ud800", "task", "true", "2024-05-01T12:00:00Z"])
scalars = st.none() | st.booleans() | numbers | texts
names = st.sampled_from(["a", "b", "msg_type", "é", "0"])
json_values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=3),
    max_leaves=6,
)
json_objects = st.dictionaries(names, json_values, max_size=4)
moments = st.sampled_from(MOMENTS)
# the same moments, as clients and embedders may write them
written_moments = st.one_of(
    moments,
    moments.map(lambda moment: moment.astimezone(EAST)),
    moments.map(lambda moment: moment.replace(tzinfo=None)),
    moments.map(lambda moment: moment.isoformat()),
    moments.map(lambda moment: moment.isoformat().replace("+00:00", "Z")),
    moments.map(lambda moment: moment.astimezone(EAST).isoformat()),
    moments.map(lambda moment: moment.replace(tzinfo=None).isoformat(" ")),
)


def value_of(key: str) -> st.SearchStrategy[Any]:
    """Draw decoded values of a record's key."""
    if key in PACKED_KEYS:
        return st.none() | json_objects
    if key in DATE_KEYS:
        return st.none() | moments
    if key in BUFFER_KEYS:
        return st.none() | st.lists(st.sampled_from([b"", b"one", b"two" * 10]), max_size=2)
    if key == "label":
        return json_values
    return texts if key in ("stdout", "stderr") else st.none() | texts


# Decoded records without their msg_id, most of their keys empty.
record_values = st.fixed_dictionaries({}, optional={key: value_of(key) for key in RECORD_KEYS if key != "msg_id"}).map(
    lambda given: empty_record() | given
)


@st.composite
def many_records(draw: st.DrawFn) -> list[dict[str, Any]]:
    """Draw decoded records, each with its own msg_id."""
    drawn = draw(st.lists(record_values, max_size=6))
    msg_ids = draw(st.permutations(["a", "b", "task", "é", "m4", "m5"]))
    return [values | {"msg_id": msg_id} for values, msg_id in zip(drawn, msg_ids, strict=False)]


def packed(values: dict[str, Any]) -> TaskRecord:
    """Return the record of these decoded values, as the hub gives it to a store."""
    record = TaskRecord(values["msg_id"])
    for key, value in values.items():
        if key in PACKED_KEYS and value is not None:
            value = json.dumps(value).encode()
        elif key in BUFFER_KEYS and value is not None:
            value = tuple(value)
        setattr(record, key, value)
    return record


@st.composite
def queries(draw: st.DrawFn) -> dict[str, Any]:
    """Draw valid queries."""
    query: dict[str, Any] = {}
    for _ in range(draw(st.integers(0, 3))):
        key = draw(st.sampled_from(RECORD_KEYS))
        if key in PACKED_KEYS or key == "label":
            key = ".".join([key, *draw(st.lists(names, max_size=2))])
        query[key] = draw(wanted(key))
    return query


@st.composite
def wanted(draw: st.DrawFn, key: str) -> Any:
    if key in BUFFER_KEYS:
        return {"$exists": draw(st.booleans())}
    values = st.none() | written_moments if key in DATE_KEYS else json_values
    lists = st.lists(values, max_size=3)
    bounds = st.none() | written_moments if key in DATE_KEYS else scalars
    operators = {
        **dict.fromkeys(("$eq", "$ne"), values),
        **dict.fromkeys(("$lt", "$gt", "$lte", "$gte"), bounds),
        **dict.fromkeys(("$in", "$nin", "$all"), lists),
        "$exists": st.sampled_from([True, False, 1, 0]),
    }
    if key not in DATE_KEYS:
        operators["$mod"] = st.tuples(st.sampled_from([1, 2, -2, 3.0]), st.sampled_from([0, 1, -1])).map(list)
        operators["$glob"] = st.sampled_from(["*", "", "a*", "?", "[ab]*", "[!a]?", "*é*", "2024-*Z", "A"])
    some = st.lists(st.sampled_from(sorted(operators)), min_size=1, max_size=2, unique=True)
    if draw(st.booleans()):
        return draw(values)
    return {name: draw(operators[name]) for name in draw(some)}
