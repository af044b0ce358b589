from __future__ import annotations

import pytest

from .figures import FIGURES


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if FIGURES:
        terminalreporter.section("soak")
        for line in FIGURES:
            terminalreporter.line(line)
