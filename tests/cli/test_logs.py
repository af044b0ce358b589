from __future__ import annotations

import json
import logging
import sys
from typing import Any

import pytest

from trio_hub.cli.logs import JsonFormatter, KindLimit, TextFormatter


def record(message: str = "hello", *arguments: object, level: int = logging.WARNING, **extra: Any) -> Any:
    made = logging.getLogger("trio_hub.test").makeRecord(
        "trio_hub.test", level, __file__, 1, message, arguments, None, extra=extra
    )
    made.created = 1_700_000_000.25  # 2023-11-14, 22:13:20 UTC
    return made


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def test_a_kind_is_logged_once_in_a_period_and_the_rest_is_counted() -> None:
    clock = Clock()
    limit = KindLimit(clock, period=5.0)
    assert limit.filter(record(kind="malformed"))
    assert not limit.filter(record(kind="malformed"))
    assert limit.filter(record(kind="replayed")), "each kind for itself"
    clock.now += 4.9
    assert not limit.filter(record(kind="malformed"))
    clock.now += 0.1
    next_one = record(kind="malformed")
    assert limit.filter(next_one)
    assert next_one.suppressed == 2
    clock.now += 5.0
    another = record(kind="malformed")
    assert limit.filter(another)
    assert not hasattr(another, "suppressed"), "counted anew"


def test_what_has_no_kind_is_always_logged() -> None:
    limit = KindLimit(Clock())
    assert all(limit.filter(record(engine=3)) for _ in range(3))


def test_text_is_one_line() -> None:
    line = TextFormatter().format(record("engine %d\nforged \x1b[2J \x9b", 3, suppressed=7))
    assert line.endswith(r" WARNING trio_hub.test: engine 3\nforged \x1b[2J \x9b (and 7 more of this kind before)")
    assert line.startswith("2023-11-1")
    assert "\n" not in line


def test_json_is_one_line_with_every_extra() -> None:
    line = JsonFormatter().format(record("engine %d\n\udcff", 3, engine=3, kind="x", task=None, path={1}))
    assert "\n" not in line
    assert line.isascii()
    assert json.loads(line) == {
        "time": "2023-11-14T22:13:20.250+00:00",
        "level": "warning",
        "logger": "trio_hub.test",
        "message": "engine 3\n\udcff",
        "engine": 3,
        "kind": "x",
        "task": None,
        "path": "{1}",
    }


@pytest.mark.parametrize("formatter", [TextFormatter(), JsonFormatter()])
def test_a_traceback_is_shown(formatter: logging.Formatter) -> None:
    made = record()
    try:
        raise ValueError("deep down")
    except ValueError:
        made.exc_info = sys.exc_info()
    assert "ValueError: deep down" in formatter.format(made)
