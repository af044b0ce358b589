"""Every log call of the package: a constant message, fields that the reference tells, and nothing formatted."""

from __future__ import annotations

import ast
import logging
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
REFERENCE = ROOT / "docs" / "reference" / "logs.md"
LEVELS = {"debug", "info", "warning", "error", "critical", "exception"}
THROUGH = {"ignore", "unreadable", "_refused"}
"""Methods that log their arguments."""
OPTIONS = {"exc_info", "ordinary"}
OF_FORMATTERS = {"exception", "suppressed"}
"""Fields that come with a record, and not from a call."""


def calls(tree: ast.AST) -> Iterator[tuple[ast.Call, str]]:
    for node in ast.walk(tree):
        match node:
            case ast.Call(func=ast.Attribute(ast.Name("log"), method)) if method != "open":
                yield node, method
            case ast.Call(func=ast.Attribute(_, method)) if method in THROUGH:
                yield node, method


def faults(source: str) -> Iterator[str]:
    for call, method in calls(ast.parse(source)):
        where = f"{call.lineno}: {method}"
        if method in LEVELS:
            match call.args:
                case [ast.Constant(str(message))]:
                    if "%" in message or message.endswith("."):
                        yield f"{where}: a message has neither % nor a full stop"
                    if not message[:1].islower() and not message.startswith(("ZeroMQ", "NOTIFY_", "WATCHDOG_")):
                        yield f"{where}: a message begins small"
                case _:
                    yield f"{where}: a message is one constant text"
        elif method not in THROUGH | {"log", "isEnabledFor"}:
            yield f"{where}: is no level"
        for name in {keyword.arg for keyword in call.keywords} & RESERVED:
            yield f"{where}: {name} is not for a field"


RESERVED = {*vars(logging.makeLogRecord({})), "message", "asctime", "ts", "level", "logger", "extra"} - OPTIONS


def sources() -> list[Path]:
    found = sorted((ROOT / "trio_hub").rglob("*.py"))
    assert found
    return [path for path in found if path.name != "demo.py"]  # in demo.py, "log" is a file


def test_every_message_is_constant() -> None:
    found = [f"{path.relative_to(ROOT)}:{fault}" for path in sources() for fault in faults(path.read_text())]
    assert not found, "\n".join(found)


def test_every_field_is_in_the_reference_and_no_other() -> None:
    used = {
        keyword.arg
        for path in sources()
        for call, _ in calls(ast.parse(path.read_text()))
        for keyword in call.keywords
        if keyword.arg is not None
    }
    told = re.findall(r"^\| `(\w+)` \|", REFERENCE.read_text().partition("## Fields")[2], re.MULTILINE)
    assert told == sorted(told)
    assert set(told) == used - OPTIONS | OF_FORMATTERS


def test_nobody_but_the_helper_the_command_and_the_engine_uses_loggers_of_the_standard_library() -> None:
    users = {path.relative_to(ROOT / "trio_hub").as_posix() for path in sources() if "getLogger(" in path.read_text()}
    assert users == {"logs.py", "cli/logs.py", "engine/logs.py"}


@pytest.mark.parametrize(
    "source",
    [
        "log.info(f'engine {engine}')",
        "log.info('engine %d', 3)",
        "log.info('engine' + name)",
        "log.info('Engine registered.')",
        "log.warn('engine registered')",
        "log.info('engine registered', name=3)",
        "log.info('engine registered', extra={})",
    ],
)
def test_a_call_that_breaks_the_rules_is_found(source: str) -> None:
    assert list(faults(source))


def test_a_call_that_keeps_them_is_not() -> None:
    assert not list(faults("log.info('engine registered', engine=3)\nlog.exception('it failed')"))
