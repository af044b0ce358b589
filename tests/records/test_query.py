"""The query language: which queries are refused and how. Each query is either refused or answered."""

from __future__ import annotations

import json
import math
import re
from datetime import UTC, date, datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trio_hub.errors import QueryError
from trio_hub.records import Query, parse_keys, parse_query
from trio_hub.records.matching import OPERATORS
from trio_hub.records.query import MAX_DEPTH, Condition

from ..databases.contract import make
from . import oracle
from .strategies import NOON, json_values, packed, queries, record_values


def nested(depth: int) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = [value]
    return value


@pytest.mark.parametrize(
    ("raw", "told"),
    [
        (None, "query: expected an object, not null; {} matches everything"),
        ([], "query: expected an object, not list"),
        ({"colour": 1}, "query['colour']: records have no such key; the keys are msg_id, header"),
        ({"x" * 1000: 1}, "query['" + "x" * 60 + "']: records have no such key"),
        ({"": 1}, "query['']: records have no such key"),
        ({3: 1}, "query[int]: records have no such key"),
        ({"$or": [{}]}, "query['$or']: records have no such key"),
        ({"queue.x": 1}, "query['queue.x']: queue does not hold JSON, so a path cannot lead into it; use 'queue'"),
        ({"buffers.0": 1}, "query['buffers.0']: buffers does not hold JSON"),
        ({"header.": 1}, "query['header.']: a part of this path is empty; write a path such as 'header.msg_type'"),
        ({"header..x": 1}, "query['header..x']: a part of this path is empty"),
        ({"queue": {"$regex": "x"}}, "query['queue']: unknown operator '$regex'; the operators are $eq $ne $lt"),
        (
            {"queue": {"$in": [], "x": 1}},
            "query['queue']: 'x' is not an operator, but '$in' is; use operators only",
        ),
        ({"queue": {"x": 1, "$in": []}}, "query['queue']: 'x' is not an operator, but '$in' is"),
        ({"queue": {"$in": [], 3: 1}}, "query['queue']: int is not an operator"),
        ({"queue": {"$in": "task"}}, "query['queue']['$in']: expected a list, not str"),
        ({"queue": {"$nin": None}}, "query['queue']['$nin']: expected a list, not null"),
        ({"queue": {"$all": {"a": 1}}}, "query['queue']['$all']: expected a list, not dict"),
        ({"label": {"$mod": [3]}}, "query['label']['$mod']: expected [divisor, remainder], two whole numbers"),
        ({"label": {"$mod": 3}}, "['$mod']: expected [divisor"),
        ({"label": {"$mod": [3, "1"]}}, "['$mod']: expected [divisor"),
        ({"label": {"$mod": [True, 1]}}, "['$mod']: expected [divisor"),
        ({"label": {"$mod": [1.5, 1]}}, "['$mod']: expected [divisor"),
        ({"label": {"$mod": [math.inf, 1]}}, "['$mod']: expected [divisor"),
        ({"label": {"$mod": [0, 1]}}, "query['label']['$mod']: the divisor must not be zero"),
        ({"label": {"$mod": [-0.0, 1]}}, "['$mod']: the divisor must not be zero"),
        (
            {"queue": {"$glob": 3}},
            "query['queue']['$glob']: expected a pattern, a text with * ? [seq], not int",
        ),
        ({"queue": {"$exists": "yes"}}, "query['queue']['$exists']: expected true or false, not str"),
        ({"queue": {"$exists": 2}}, "['$exists']: expected true or false, not int"),
        ({"queue": {"$exists": None}}, "['$exists']: expected true or false, not null"),
        (
            {"label": {"$lt": [1]}},
            "query['label']['$lt']: expected a value with an order (number, text, date), not",
        ),
        ({"label": {"$gte": {"a": 1}}}, "query['label']['$gte']: expected a value with an order"),
        ({"submitted": "yesterday"}, "query['submitted']['$eq']: submitted is a date; expected one such as"),
        ({"submitted": {"$gt": "yesterday"}}, "such as '2024-05-01T12:00Z', not 'yesterday'"),
        ({"started": {"$lt": 1714564800}}, "query['started']['$lt']: started is a date; expected one such as"),
        ({"received": {"$nin": [None, "never"]}}, "query['received']['$nin']: received is a date"),
        ({"completed": {"$all": [True]}}, "query['completed']['$all']: completed is a date"),
        ({"completed": date(2024, 5, 1)}, "query['completed']['$eq']: completed is a date"),
        ({"completed": "9999-12-31T23:00:00-12:00"}, "['$eq']: completed is a date"),
        ({"completed": {"$glob": "2024-*"}}, "completed is a date; compare it with $gte and $lt"),
        ({"completed": {"$mod": [2, 1]}}, "completed is a date; compare it with $gte and $lt"),
        ({"buffers": []}, "query['buffers']['$eq']: buffers cannot be compared; use {'$exists': true}"),
        ({"result_buffers": {"$in": []}}, "query['result_buffers']['$in']: buffers cannot be compared"),
        ({"header.date": {"$gt": NOON}}, "header does not hold dates; dates inside JSON are text"),
        ({"label": b"x"}, "query['label']['$eq']: expected a JSON value, not bytes"),
        ({"label": {"$in": [{"a": {1, 2}}]}}, "query['label']['$in']: expected a JSON value, not set"),
        ({"label": [{3: 1}]}, "query['label']['$eq']: expected a JSON value, not dict"),
        ({"label": nested(MAX_DEPTH + 1)}, f"['$eq']: the value has more than {MAX_DEPTH} levels of nesting"),
        ({"label": nested(100_000)}, f"the value has more than {MAX_DEPTH} levels of nesting"),
    ],
)
def test_what_is_refused_and_how(raw: object, told: str) -> None:
    with pytest.raises(QueryError, match=re.escape(told)) as caught:
        parse_query(raw)
    assert len(str(caught.value)) < 500


def test_the_parsed_form_is_checked_and_its_own() -> None:
    tags = ["a", {"b": [1]}]
    query = parse_query(
        {
            "metadata.tags": tags,
            "submitted": {"$gte": "2024-05-01", "$lt": NOON.astimezone(timezone(timedelta(hours=3)))},
            "label": {"$mod": [4.0, 1]},
            "queue": {"$in": ("task", "mux"), "$exists": 1},
            "header": {},
        }
    )
    tags.append("later")
    assert query.conditions == (
        Condition(("metadata", "tags"), "$eq", ["a", {"b": [1]}]),
        Condition(("submitted",), "$gte", datetime(2024, 5, 1, tzinfo=UTC)),
        Condition(("submitted",), "$lt", NOON),
        Condition(("label",), "$mod", (4, 1)),
        Condition(("queue",), "$in", ("task", "mux")),
        Condition(("queue",), "$exists", True),
        Condition(("header",), "$eq", {}),
    )
    assert query.conditions[2].value.tzinfo is UTC


def test_a_dict_without_operators_is_an_exact_value() -> None:
    query = parse_query({"label": {"a": {"$gt": 1}}})
    assert query.matches(make("x", label={"a": {"$gt": 1}}))
    assert not query.matches(make("x", label={"a": 2}))


def test_dicts_can_be_asked_for_with_eq_whatever_their_keys() -> None:
    assert parse_query({"label": {"$eq": {"$a": 1}}}).matches(make("x", label={"$a": 1}))


@pytest.mark.parametrize(
    ("raw", "ids"),
    [
        ({}, None),
        ({"queue": "task"}, None),
        ({"msg_id": {"$nin": ["a"]}}, None),
        ({"msg_id": {"$gte": "a"}}, None),
        ({"msg_id": "a"}, {"a"}),
        ({"msg_id": {"$eq": "a"}, "queue": "task"}, {"a"}),
        ({"msg_id": {"$in": ["a", "b", None, 3, ["c"]]}}, {"a", "b"}),
        ({"msg_id": {"$in": ["a", "b"], "$eq": "b"}}, {"b"}),
        ({"msg_id": {"$in": ["a"], "$eq": "b"}}, set()),
        ({"msg_id": {"$in": []}}, set()),
        ({"msg_id": None}, set()),
    ],
)
def test_exact_ids(raw: object, ids: set[str] | None) -> None:
    assert parse_query(raw).exact_ids == ids


def test_shorthands() -> None:
    assert Query.everything() == parse_query({}) == Query()
    assert Query.where(queue="task", completed=None) == parse_query({"queue": "task", "completed": None})
    assert Query.where(label={"$in": 1}).matches(make("x", label={"$in": 1}))
    with pytest.raises(QueryError, match="colour"):
        Query.where(colour="red")


@pytest.mark.parametrize(
    ("wanted", "value", "expected"),
    [
        (True, 1, False),
        (1, True, False),
        (1, 1.0, True),
        ([1, {"a": True}], [1.0, {"a": True}], True),
        ([1, {"a": True}], [1, {"a": 1}], False),
        ({"a": 1, "b": 2}, {"b": 2, "a": 1}, True),
        (["a", "b"], ["b", "a"], False),
        ("a", ["a"], False),
        (math.nan, math.nan, True),
        ([math.nan], [math.nan], True),
        ({"$gte": math.nan}, math.nan, True),
        ({"$gte": math.nan}, 1, False),
        ({"$gt": math.nan}, math.nan, False),
        ({"$gte": 1}, math.nan, False),
        ({"$lt": math.inf}, 10**400, True),
        ({"$gt": 0}, True, False),
        ({"$gt": False}, True, True),
        ({"$gt": False}, 1, False),
        ({"$lt": None}, None, False),
        ({"$lte": None}, None, False),
        ({"$lt": "b"}, "a", True),
        ({"$lt": "a"}, "B", True),
        ({"$mod": [2, 1]}, True, False),
        ({"$mod": [2, 1]}, "3", False),
        ({"$mod": [2, 1]}, 3.9, True),
        ({"$mod": [2, 1]}, math.nan, False),
        ({"$mod": [2, 1]}, math.inf, False),
        ({"$mod": [3, -1]}, -7, True),
        ({"$mod": [3, 2]}, -7, False),
        ({"$mod": [-3, 1]}, 7, True),
        ({"$mod": [10, 7]}, 10**400 + 7, True),
        ({"$all": [None]}, None, True),
        ({"$all": [1, 1.0]}, [1], True),
        ({"$all": [[1]]}, [1], False),
        ({"$glob": "A*"}, "abc", False),
        ({"$glob": "a*c"}, "a\nc", True),
        ({"$glob": "[z-a]"}, "z", False),
        ({"$glob": "[[]*"}, "[x", True),
        ({"$glob": "[!--/]*"}, "x", True),
        ({"$glob": "*"}, 3, False),
        ({"$in": [1, "a", None]}, True, False),
        ({"$in": [1, "a", None]}, 1.0, True),
        ({"$nin": [1, "a", None]}, None, False),
    ],
)
def test_the_finer_points(wanted: object, value: object, expected: bool) -> None:
    assert parse_query({"label": wanted}).matches(make("x", label=value)) is expected


def test_a_pattern_made_to_be_slow_is_not() -> None:
    query = parse_query({"stdout": {"$glob": "*a" * 40 + "b"}})
    assert not query.matches(make("x", stdout="a" * 2000))


def test_json_is_decoded_once_and_only_when_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    decoded = []

    def decode(text: bytes) -> Any:
        decoded.append(text)
        return json.loads(text)

    monkeypatch.setattr("trio_hub.records.record._decode", decode)
    task = make("x", queue="task", header={"a": 1, "b": 2}, content={"c": 3})
    query = parse_query({"header.a": 1, "header.b": 2, "header": {"$exists": True}, "queue": "task"})
    assert query.matches(task)
    assert len(decoded) == 1
    assert not parse_query({"header.a": 1, "queue": "mux"}).matches(task)
    assert not parse_query({"result_header.a": {"$gt": 1}, "header.a": 1}).matches(task)
    assert decoded == [task.header]


def test_keys() -> None:
    assert parse_keys(["queue", "msg_id", "queue"]) == ("msg_id", "queue")
    assert len(parse_keys(None)) == 21
    for wrong in ("queue", {"queue": 1}, 3):
        with pytest.raises(QueryError, match="keys: expected a list"):
            parse_keys(wrong)
    for unknown in (None, 3, ["queue"], "colour"):
        with pytest.raises(QueryError, match="keys: records have no key"):
            parse_keys([unknown])


@pytest.mark.property
@given(values=record_values, query=queries())
def test_a_valid_query_agrees_with_the_oracle(values: dict[str, Any], query: dict[str, Any]) -> None:
    values = values | {"msg_id": "task"}
    assert parse_query(query).matches(packed(values)) is oracle.matches(query, values)


paths = st.sampled_from(["msg_id", "header", "header.a", "label", "submitted", "buffers", "stdout", "error.a.b"])
anything = st.recursive(
    json_values | st.text(max_size=8) | st.integers() | st.floats(),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from([*OPERATORS, "$not", "a"]) | st.text(max_size=3), inner, max_size=3)
    ),
    max_leaves=5,
)


@pytest.mark.property
@given(
    raw=anything | st.dictionaries(paths | st.text(max_size=8), anything, max_size=3),
    values=record_values,
)
def test_any_json_gives_a_refusal_or_an_answer(raw: object, values: dict[str, Any]) -> None:
    try:
        query = parse_query(raw)
    except QueryError as refusal:
        told = str(refusal)
    else:
        told = f"query: {query.matches(packed(values | {'msg_id': 'a'})):d}"
    assert told.startswith("query")
    assert told.encode()  # can be sent: no lone surrogates


@pytest.mark.property
@given(pattern=st.text(st.sampled_from("*?[]!^-a-z\\&|~{}()é"), max_size=12), text=st.text(max_size=6))
def test_any_text_is_a_pattern(pattern: str, text: str) -> None:
    assert parse_query({"stdout": {"$glob": pattern}}).matches(make("x", stdout=text)) in (True, False)
