"""How a failing hub ends the process. test_serve tests signals, with processes."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
import trio
import trio.testing

from trio_hub.cli import running
from trio_hub.config import HubConfig
from trio_hub.errors import ConfigError, ConnectionFileError, HubError


class FakeHub:
    config = HubConfig()
    client_file = engine_file = None
    connections = "open"

    def __init__(self) -> None:
        self.stopped = trio.Event()
        self.service_failures: Counter[str] = Counter()

    async def wait_stopping(self) -> None:
        await self.stopped.wait()

    async def wait_stopped(self) -> None:
        await self.stopped.wait()


def fault() -> HubError:
    error = HubError("the hub failed: ZeroDivisionError")
    error.__cause__ = ZeroDivisionError("deep down")
    return error


def full_disk() -> ConnectionFileError:
    error = ConnectionFileError("cannot write")
    error.__cause__ = OSError(28, "No space left on device")
    return error


def group() -> BaseException:
    return BaseExceptionGroup("", [ConfigError("bad port"), ExceptionGroup("", [HubError("and more")])])


@pytest.fixture
def serve(monkeypatch: pytest.MonkeyPatch) -> Callable[[Any], None]:
    monkeypatch.setattr(running, "set_up_logs", lambda *arguments: None)
    monkeypatch.setattr(running, "raise_open_files_limit", lambda: None)
    return lambda function: monkeypatch.setattr(running, "serve_hub", function)


@pytest.mark.parametrize("when", ["before it is ready", "at work", "as it stops"])
@pytest.mark.parametrize(
    ("make", "code", "messages"),
    [
        (lambda: ConfigError("bad port"), 2, ["bad port"]),
        (lambda: ConnectionFileError("bad file"), 2, ["bad file"]),
        (lambda: full_disk(), 1, ["cannot write"]),
        (fault, 1, ["the hub failed: ZeroDivisionError"]),
        (group, 1, ["bad port", "and more"]),
    ],
)
def test_a_failure_becomes_a_message_and_an_exit_code(
    serve: Callable[[Any], None],
    caplog: pytest.LogCaptureFixture,
    make: Callable[[], BaseException],
    code: int,
    messages: list[str],
    when: str,
) -> None:
    async def serve_hub(config: HubConfig, *, task_status: trio.TaskStatus[FakeHub]) -> None:
        hub = FakeHub()
        if when != "before it is ready":
            task_status.started(hub)
            await trio.testing.wait_all_tasks_blocked()
            if when == "as it stops":
                hub.stopped.set()
        raise make()

    serve(serve_hub)
    assert running.run_hub(HubConfig()) == code
    assert [str(vars(record)["error"]) for record in caplog.records if record.levelno == logging.CRITICAL] == messages
    assert ("deep down" in caplog.text) == (make is fault), "the traceback of a fault, and of nothing else"


def test_a_hub_that_a_client_stops_is_no_failure(serve: Callable[[Any], None]) -> None:
    async def serve_hub(config: HubConfig, *, task_status: trio.TaskStatus[FakeHub]) -> None:
        hub = FakeHub()
        task_status.started(hub)
        hub.stopped.set()

    serve(serve_hub)
    assert running.run_hub(HubConfig()) == 0
