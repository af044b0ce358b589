from __future__ import annotations

import logging
import resource

import pytest

from trio_hub.cli.limits import engines_within, raise_open_files_limit


def test_the_soft_limit_becomes_the_hard_one(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    wanted = []
    monkeypatch.setattr(resource, "getrlimit", lambda which: (1024, 20_100))
    monkeypatch.setattr(resource, "setrlimit", lambda which, limits: wanted.append((which, limits)))
    with caplog.at_level(logging.INFO, "trio_hub.cli"):
        raise_open_files_limit()
    assert wanted == [(resource.RLIMIT_NOFILE, (20_100, 20_100))]
    (record,) = map(vars, caplog.records)
    assert (record["limit"], record["engines"]) == (20_100, 2500)


def test_a_limit_that_cannot_be_raised_is_told(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(which: int, limits: tuple[int, int]) -> None:
        raise ValueError("not allowed to raise maximum limit")

    monkeypatch.setattr(resource, "getrlimit", lambda which: (256, resource.RLIM_INFINITY))
    monkeypatch.setattr(resource, "setrlimit", refuse)
    with caplog.at_level(logging.INFO, "trio_hub.cli"):
        raise_open_files_limit()
    refused, told = map(vars, caplog.records)
    assert (refused["levelno"], refused["limit"]) == (logging.WARNING, 256)
    assert str(refused["error"]) == "not allowed to raise maximum limit"
    assert (told["limit"], told["engines"]) == (256, 19)


def test_no_limit_is_told(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda which: (resource.RLIM_INFINITY,) * 2)
    with caplog.at_level(logging.INFO, "trio_hub.cli"):
        raise_open_files_limit()
    assert caplog.messages == ["the number of open files has no limit"]


def test_a_tiny_limit_is_not_a_negative_number_of_engines() -> None:
    assert engines_within(10) == 0
