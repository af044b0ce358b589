from __future__ import annotations

import os

import pytest

from .figures import FIGURES


@pytest.fixture(scope="session")
def rounds() -> int:
    """Return the number of rounds of a test: few, unless CRASH_ROUNDS is set."""
    return int(os.environ.get("CRASH_ROUNDS", "2"))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if FIGURES:
        terminalreporter.section("crash tests")
        for line in FIGURES:
            terminalreporter.line(line)
