"""Prefilters: each matching record passes the terms and, if they are exact, no other record does."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trio_hub.databases.prefilter import PLAIN_KEYS, Prefilter, Term, prefilter
from trio_hub.records import TaskRecord, parse_query

from ..records.strategies import EAST, NOON, packed, queries, record_values, wanted

plain_queries = st.lists(st.sampled_from(sorted(PLAIN_KEYS)), max_size=3, unique=True).flatmap(
    lambda keys: st.fixed_dictionaries({key: wanted(key) for key in keys})
)


def passes(filter: Prefilter, record: TaskRecord) -> bool:
    return all(holds(term, getattr(record, term.column)) for term in filter.terms)


def holds(term: Term, value: Any) -> bool:
    """Return whether a value passes a term, as in a database."""
    assert term.column in PLAIN_KEYS
    match term.comparison:
        case "is null":
            return value is None
        case "is not null":
            return value is not None
        case "in":
            return value in term.value and value is not None
        case "in or null":
            return value in term.value or value is None
        case "<":
            return value is not None and value < term.value
        case "<=":
            return value is not None and value <= term.value
        case ">":
            return value is not None and value > term.value
        case ">=":
            return value is not None and value >= term.value


@pytest.mark.property
@given(queries() | plain_queries, record_values)
def test_nothing_that_matches_is_left_out(raw: dict[str, Any], values: dict[str, Any]) -> None:
    query, record = parse_query(raw), packed(values | {"msg_id": "a"})
    filter = prefilter(query)
    if filter.exact:
        assert passes(filter, record) is query.matches(record)
    else:
        assert passes(filter, record) or not query.matches(record)


@pytest.mark.property
@given(queries() | plain_queries, record_values)
def test_a_record_with_no_more_than_what_is_needed_matches_as_the_whole_does(
    raw: dict[str, Any], values: dict[str, Any]
) -> None:
    query, record = parse_query(raw), packed(values | {"msg_id": "a"})
    filter = prefilter(query)
    part = TaskRecord("a")
    for key in filter.needs:
        setattr(part, key, getattr(record, key))
    assert filter.exact or query.matches(part) is query.matches(record)


LATER = NOON + timedelta(hours=1)


@pytest.mark.parametrize(
    ("raw", "terms"),
    [
        ({}, []),
        ({"queue": "task"}, [Term("queue", "in", ("task",))]),
        ({"queue": None}, [Term("queue", "is null")]),
        ({"queue": 3}, [Term("queue", "in", ())]),
        ({"engine_uuid": {"$in": ["a", 1, "a", None]}}, [Term("engine_uuid", "in or null", ("a",))]),
        ({"engine_uuid": {"$in": [None, {}]}}, [Term("engine_uuid", "is null")]),
        ({"resubmitted": {"$in": []}}, [Term("resubmitted", "in", ())]),
        ({"client_uuid": {"$ne": None}}, [Term("client_uuid", "is not null")]),
        ({"msg_id": {"$eq": "a", "$in": ["a", "b"]}}, [Term("msg_id", "in", ("a",))]),
        ({"msg_id": None}, [Term("msg_id", "in", ())]),
        (
            {"completed": {"$gte": NOON.astimezone(EAST), "$lt": LATER.isoformat()}, "msg_id": "a"},
            [Term("msg_id", "in", ("a",)), Term("completed", ">=", NOON), Term("completed", "<", LATER)],
        ),
        ({"started": {"$gt": None}}, [Term("started", "in", ())]),
        ({"started": {"$exists": 1}, "received": None}, [Term("started", "is not null"), Term("received", "is null")]),
        ({"submitted": {"$in": [NOON, None]}}, [Term("submitted", "in or null", (NOON,))]),
    ],
)
def test_what_sql_can_say_it_says_exactly(raw: dict[str, Any], terms: list[Term]) -> None:
    assert prefilter(parse_query(raw)) == Prefilter(tuple(terms), exact=True, needs=frozenset())


@pytest.mark.parametrize(
    "raw",
    [
        {"header.msg_type": "x"},
        {"stdout": ""},
        {"label": None},
        {"content": {"$exists": True}},
        {"queue": {"$glob": "*"}},
        {"queue": {"$lt": "x"}},
        {"queue": {"$ne": "x"}},
        {"started": {"$ne": NOON}},
        {"started": {"$nin": []}},
        {"msg_id": {"$nin": ["a"]}},
    ],
)
def test_the_rest_is_left_to_python(raw: dict[str, Any]) -> None:
    (key,) = raw
    filter = prefilter(parse_query(raw | {"started": NOON} if key != "started" else raw))
    assert not filter.exact
    assert key.split(".")[0] in filter.needs
    assert filter.terms == (() if key == "started" else (Term("started", "in", (NOON,)),))
