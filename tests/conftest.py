from __future__ import annotations

import os
import signal
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings

from trio_hub.cli.logs import TextFormatter

from .databases.server import postgres_server, postgres_url

__all__ = ["postgres_server", "postgres_url"]  # fixtures

# No deadline, since a busy machine is no fault of ours; and new examples in every run, also in CI, where
# Hypothesis would by itself repeat the same ones.
settings.register_profile(
    "ci", deadline=None, derandomize=False, print_blob=True, suppress_health_check=[HealthCheck.too_slow]
)
settings.register_profile("thorough", settings.get_profile("ci"), max_examples=2000)
settings.load_profile("ci")


for _number in (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2):
    if signal.getsignal(_number) is signal.SIG_IGN:
        # A shell has what it starts in the background ignore SIGINT, and nohup has programs ignore SIGHUP. The programs
        # that tests start would inherit that, and a shell could not undo it. They do not inherit handlers.
        signal.signal(_number, signal.default_int_handler if _number == signal.SIGINT else lambda number, frame: None)


@pytest.fixture
def caplog(caplog: pytest.LogCaptureFixture) -> Iterator[pytest.LogCaptureFixture]:
    """Give pytest's caplog with the log lines as the command writes them, fields included."""
    before = caplog.handler.formatter
    caplog.handler.setFormatter(TextFormatter())
    yield caplog
    caplog.handler.setFormatter(before)


@pytest.fixture(scope="session", autouse=True)
def _isolated_from_the_user(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keep tests from reading or writing the profiles and settings of the user who runs them."""
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith("TRIO_HUB_")]:
            patch.delenv(name)
        for name in ("IPYTHONDIR", "JUPYTER_RUNTIME_DIR"):
            patch.setenv(name, str(tmp_path_factory.mktemp(name.lower())))
        yield
