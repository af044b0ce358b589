from __future__ import annotations

import logging

import pytest

from trio_hub.errors import HubError, WireError
from trio_hub.hub.events import EngineRegistered
from trio_hub.hub.notices import Notices

from ..world import FakeHost


def test_what_cannot_be_read_and_what_is_ignored_are_counted() -> None:
    notices = Notices(FakeHost())
    notices.unreadable("task_in", WireError("malformed", "not json"))
    notices.ignore("late_result", "a reply that comes late")
    assert (notices.wire_errors, notices.ignored) == ({"malformed": 1}, {"late_result": 1})


def test_a_failure_is_counted_logged_with_its_traceback_and_made_an_answer(caplog: pytest.LogCaptureFixture) -> None:
    notices = Notices(FakeHost())
    try:
        raise ZeroDivisionError("a bug \udcff")
    except ZeroDivisionError as error:
        answer = notices.failed("result", error, task="t")
    assert notices.internal_errors == {"result": 1}
    assert type(answer) is HubError
    assert str(answer) == "the hub failed at result: ZeroDivisionError: a bug ?"
    [record] = caplog.records
    assert (record.levelno, record.__dict__["kind"], record.__dict__["task"]) == (logging.ERROR, "internal_error", "t")
    assert record.exc_info is not None


def test_an_event_that_cannot_be_told_fails_nothing() -> None:
    class Deaf(FakeHost):
        def emit(self, event: object) -> None:
            raise ZeroDivisionError("a bug")

    notices = Notices(Deaf())
    notices.tell(EngineRegistered(0, "a"))
    assert notices.internal_errors == {"event": 1}
