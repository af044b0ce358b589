from __future__ import annotations

import json
import logging
import os
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trio_hub.cli.logs import MESSAGE, TRACEBACK, VALUE, JournalFormatter, JsonFormatter, KindLimit, TextFormatter
from trio_hub.cli.logs import _is_journal as is_journal
from trio_hub.logs import get_logger

FORMATTERS = [TextFormatter(), JsonFormatter()]
NAN = float("nan")


def record(message: str = "hello", *arguments: object, level: int = logging.WARNING, **extra: Any) -> Any:
    made = logging.getLogger("trio_hub.test").makeRecord(
        "trio_hub.test", level, __file__, 1, message, arguments, None, extra=extra
    )
    made.created = 1_700_000_000.25  # 2023-11-14, 22:13:20 UTC
    return made


def failed(error: Exception, **extra: Any) -> Any:
    made = record(**extra)
    try:
        raise error
    except Exception:
        made.exc_info = sys.exc_info()
    return made


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


class Unspeakable:
    def __str__(self) -> str:
        raise RuntimeError("no")


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


# The form of a line


def test_text_is_one_line_with_every_field() -> None:
    line = TextFormatter().format(record("engine registered", engine=3, uuid="a b", said='"\n', none="", suppressed=7))
    assert line.endswith(
        r' WARNING trio_hub.test: engine registered engine=3 uuid="a b" said="\"\n" none="" suppressed=7'
    )
    assert line.startswith("2023-11-1")


def test_text_cannot_be_forged() -> None:
    line = TextFormatter().format(record("a\nb \x1b[2J \x9b \u2028 \u202e", error="c\r\nd\udcff\\"))
    assert line.endswith(r' a\nb \x1b[2J \x9b \u2028 \u202e error="c\x0d\nd\udcff\\"')


def test_json_is_one_line_with_every_field() -> None:
    line = JsonFormatter().format(
        record("engine %d\n\udcff", 3, engine=3, kind="x", task=None, path={1}, lag=0.5, odd=NAN, huge=1 << 70)
    )
    assert "\n" not in line
    assert line.isascii()
    assert json.loads(line) == {
        "ts": "2023-11-14T22:13:20.250Z",
        "level": "warning",
        "logger": "trio_hub.test",
        "message": "engine 3\n\udcff",
        "engine": 3,
        "kind": "x",
        "task": None,
        "path": "{1}",
        "lag": 0.5,
        "odd": "nan",
        "huge": str(1 << 70),
    }


def test_fields_do_not_replace_what_every_line_has() -> None:
    event = json.loads(JsonFormatter().format(record("hello", level_=1, ts="never", logger="mine")))
    assert (event["ts"], event["logger"]) == ("2023-11-14T22:13:20.250Z", "trio_hub.test")


def test_a_traceback_follows_indented() -> None:
    first, *rest = TextFormatter().format(failed(ValueError("deep\ndown \x1b"))).splitlines()
    assert first.endswith(": hello")
    assert rest[0] == "    Traceback (most recent call last):"
    assert rest[-2:] == ["    ValueError: deep", r"    down \x1b"]
    assert all(line.startswith("    ") for line in rest)


def test_a_traceback_is_a_key() -> None:
    assert "ValueError: deep down" in json.loads(JsonFormatter().format(failed(ValueError("deep down"))))["exception"]


@pytest.mark.parametrize("formatter", FORMATTERS)
def test_what_is_long_is_cut(formatter: logging.Formatter) -> None:
    long = "<" + "x" * 1_000_000 + ">"
    line = formatter.format(failed(ValueError(long), message=long, said=long))
    assert len(line) < MESSAGE + VALUE + 2 * TRACEBACK
    assert "<xx" in line
    assert "xx>" in line
    assert "more characters" in line


@pytest.mark.parametrize("formatter", FORMATTERS)
@pytest.mark.parametrize(
    "address",
    ["postgresql://lab:s3cret@db/tasks", "postgresql://:s3cret@db", "x postgresql://lab:s3c@s3cret@db:5432/tasks y"],
)
def test_passwords_in_addresses_are_not_shown(formatter: logging.Formatter, address: str) -> None:
    for made in (record(address), record("no %s", address), record(error=address), failed(OSError(address))):
        line = formatter.format(made)
        assert "s3c" not in line
        assert ":***@db" in line


@pytest.mark.parametrize("formatter", FORMATTERS)
def test_records_that_others_made_badly_are_shown_all_the_same(formatter: logging.Formatter) -> None:
    assert "%d engines" in formatter.format(record("%d engines", "many"))
    assert "cannot be shown" in formatter.format(record(error=Unspeakable()))
    assert "cannot be shown" in formatter.format(record(engine=10**10_000))


VALUES = st.text() | st.integers() | st.floats() | st.booleans() | st.none() | st.binary() | st.lists(st.text())
ANYTHING = st.characters(codec=None)  # lone surrogates too


@pytest.mark.property
@given(st.text(ANYTHING), st.dictionaries(st.sampled_from(["engine", "task", "client", "error", "kind"]), VALUES))
def test_any_record_is_one_line(message: str, fields: dict[str, Any]) -> None:
    made = record("%s", message, **fields)
    line = TextFormatter().format(made)
    assert len(line.splitlines()) == 1
    assert not any(ord(letter) < 32 for letter in line)
    line.encode()
    line = JsonFormatter().format(made)
    assert len(line.splitlines()) == 1
    event = json.loads(line, parse_constant=pytest.fail)
    assert event.keys() == {"ts", "level", "logger", "message", *fields}


@pytest.mark.property
@given(st.text(ANYTHING))
def test_any_error_is_one_line_of_json_and_cannot_forge_one_of_text(text: str) -> None:
    made = failed(ValueError(text))
    first, *rest = TextFormatter().format(made).split("\n")
    assert first.endswith(": hello")
    assert all(line.startswith("    ") or not line.strip() for line in rest)
    assert "ValueError" in json.loads(JsonFormatter().format(made))["exception"]


# Where it goes


def test_the_journal_is_told_the_level_of_each_line() -> None:
    formatter = JournalFormatter(TextFormatter())
    first, *rest = formatter.format(failed(ValueError("deep\n\ndown"))).splitlines()
    assert first.startswith("<4>2023")
    assert rest
    assert all(line.startswith("<4>") for line in rest)
    for level, priority in ((logging.DEBUG, 7), (logging.INFO, 6), (logging.ERROR, 3), (logging.CRITICAL, 2)):
        assert formatter.format(record(level=level)).startswith(f"<{priority}>")


def test_whether_it_is_the_journal(tmp_path: Path) -> None:
    with (tmp_path / "journal").open("w") as stream:
        there = os.fstat(stream.fileno())
        environ = {"JOURNAL_STREAM": f"{there.st_dev}:{there.st_ino}"}
        assert is_journal(stream, environ)
        assert not is_journal(stream, {})
        assert not is_journal(stream, {"JOURNAL_STREAM": "1:1"})
    assert not is_journal(stream, environ), "it is closed"
    assert not is_journal(None, environ)


def test_fields_are_attributes_of_the_record(caplog: pytest.LogCaptureFixture) -> None:
    get_logger("trio_hub.test").warning("hello", engine=3, task=None, uuid=b"ab\xff")
    made: Any
    (made,) = caplog.records
    assert (made.engine, made.uuid, made.funcName) == (3, "ab\\xff", "test_fields_are_attributes_of_the_record")
    assert not hasattr(made, "task")
    assert made.getMessage() == "hello"
