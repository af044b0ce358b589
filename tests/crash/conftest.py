from __future__ import annotations

import os

import pytest

from .figures import FIGURES


@pytest.fixture(scope="session")
def rounds() -> int:
    """How many rounds a test shall make: few, unless CRASH_ROUNDS says how many."""
    return int(os.environ.get("CRASH_ROUNDS", "2"))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if FIGURES:
        terminalreporter.section("crash tests")
        for line in FIGURES:
            terminalreporter.line(line)
