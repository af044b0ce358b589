"""Policies: their tables, and which tasks they match."""

from __future__ import annotations

import fnmatch
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trio_hub.errors import WireError
from trio_hub.schedulers.policy import parse_policy, text_matches


def test_a_policy_is_read_and_written_in_one_form() -> None:
    table: dict[str, Any] = {
        "name": "night",
        "label": {"run": "n*", "kind": 3},
        "function": "fit",
        "client": "c*",
        "user": "ada",
    }
    table |= {"priority": -5, "needs": {"gpu": 1, "memory": "32G"}, "retry_on": ["death"]}
    policy = parse_policy(table)
    assert policy.as_dict() == table
    assert parse_policy(policy.as_dict()) == policy
    assert policy.said == {"priority": -5, "needs": {"gpu": 1, "memory": "32G"}, "retry_on": ["death"]}


@pytest.mark.parametrize(
    ("table", "told"),
    [
        ("night", "a policy must be a table with a name and rules, not 'night'"),
        ({"priority": 1}, "a policy must have a name of 1 to 100 printable characters, not 'null'"),
        ({"name": "a\nb", "priority": 1}, "a policy must have a name of 1 to 100 printable characters"),
        ({"name": "n", "prority": 1}, "policy 'n': 'prority' is no condition and no rule: did you mean priority?"),
        (
            {"name": "n", "quux": 1},
            "policy 'n': 'quux' is no condition and no rule: the keys are name, label, function",
        ),
        ({"name": "n"}, "policy 'n' sets no rule: the rules are grace, max_attempts,"),
        ({"name": "n", "label": "x"}, "policy 'n' sets no rule"),
        ({"name": "n", "priority": "high"}, "policy 'n': priority is 'high': it must be a whole number from -1000 to"),
        ({"name": "n", "needs": {"gpu": -1}}, "policy 'n': needs[gpu] is -1: it must be a positive amount"),
        ({"name": "n", "priority": 1, "label": 3}, "policy 'n': label is '3': it must be a text, in which * is any"),
        ({"name": "n", "priority": 1, "label": {"a": []}}, "policy 'n': the values in label must be texts, numbers"),
        ({"name": "n", "priority": 1, "function": ""}, "policy 'n': function is '': it must be a text, in which *"),
        ({"name": "n", "priority": 1, "client": {}}, "policy 'n': client is '{}': it must be a text, in which * is"),
    ],
)
def test_a_wrong_policy_is_refused_with_what_to_write(table: Any, told: str) -> None:
    with pytest.raises(WireError) as caught:
        parse_policy(table)
    assert told.replace(" is -1", " is '-1'") in str(caught.value)


@pytest.mark.parametrize(
    ("conditions", "matches"),
    [
        ({}, True),
        ({"label": "night-*"}, True),
        ({"label": "night"}, False),
        ({"label": {"run": "*"}}, False),
        ({"function": "f*t"}, True),
        ({"function": "fi"}, False),
        ({"client": "session-1"}, True),
        ({"user": "a*"}, True),
        ({"user": "ben"}, False),
        ({"label": "*7", "function": "fit", "client": "*", "user": "ada"}, True),
        ({"label": "*7", "function": "fit", "client": "*", "user": "ben"}, False),
    ],
)
def test_all_conditions_must_match(conditions: dict[str, Any], matches: bool) -> None:
    policy = parse_policy({"name": "n", "priority": 1} | conditions)
    assert policy.matches("night-7", "fit", "session-1", "ada") is matches


@pytest.mark.parametrize(
    ("wanted", "label", "matches"),
    [
        ({"run": "n*"}, {"run": "night", "more": [1]}, True),
        ({"run": "n*"}, {"run": 7}, False),
        ({"run": 7}, {"run": 7.0}, True),
        ({"run": 1}, {"run": True}, False),
        ({"run": True}, {"run": True}, True),
        ({"run": "n", "kind": "k"}, {"run": "n"}, False),
        ({"run": "n"}, None, False),
        ("*", None, False),
        ("*", {"run": "n"}, False),
    ],
)
def test_a_label_is_a_text_or_a_dict(wanted: Any, label: Any, matches: bool) -> None:
    assert parse_policy({"name": "n", "priority": 1, "label": wanted}).matches(label, "", "", "") is matches


@given(st.text("ab*", max_size=8), st.text("ab", max_size=12))
def test_a_star_is_any_text_as_in_a_shell(pattern: str, text: str) -> None:
    assert text_matches(pattern, text) == fnmatch.fnmatchcase(text, pattern)


def test_other_characters_stand_for_themselves() -> None:
    assert text_matches("run[1]?", "run[1]?")
    assert not text_matches("run[1]?", "run12")
    assert not text_matches("*a" * 500 + "c", "a" * 10_000)  # soon, however many stars there are
