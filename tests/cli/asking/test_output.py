"""Printing values that others have sent: `--json` is valid JSON, and text has no control characters."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given

from trio_hub.cli.asking.output import one_line, print_json

from ...wire.odd import odd_values


def printed(value: Any, capsys: pytest.CaptureFixture[str]) -> str:
    print_json(value)
    return capsys.readouterr().out


def test_json_of_the_usual_values(capsys: pytest.CaptureFixture[str]) -> None:
    value = {"a": [1, 2.5, None, True, "é"], "at": datetime(2026, 5, 1, tzinfo=UTC)}
    assert printed(value, capsys) == ('{"a": [1, 2.5, null, true, "\\u00e9"], "at": "2026-05-01T00:00:00+00:00"}\n')


def test_json_of_odd_values(capsys: pytest.CaptureFixture[str]) -> None:
    value = [float("nan"), "\udcff", {(1, 2): 10**5000}]
    assert json.loads(printed(value, capsys)) == [
        None,
        "\udcff",
        {"<a key of type tuple>": "<an integer of too many digits>"},
    ]


@given(odd_values)
@pytest.mark.property
def test_whatever_it_is_it_is_one_line(value: Any) -> None:
    line = one_line(value)
    assert line.isprintable()
    assert line.encode().decode() == line
