from __future__ import annotations

import importlib.util
import math
import os
import signal
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from trio_hub.cli import demo as the_module_is_shadowed  # noqa: F401 - loads trio_hub.cli.demo

from .process import Command, command, processes_with

demo = sys.modules["trio_hub.cli.demo"]

# click remembers a command's help option, as it was first asked for
AS_IN_THE_GROUP: dict[str, Any] = {"help_option_names": ["-h", "--help"]}


def hub_of(running: Command) -> int:
    """Return the only child of the demo. Children of the hub look like the hub until they have run exec."""
    pid = running.process.pid
    (hub,) = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return int(hub)


def directory_of(running: Command) -> str:
    return running.wait_line("stdout", r"^Started a hub with .* in (/\S+);")[1]


@pytest.fixture
def home(tmp_path: Path) -> dict[str, str]:
    (tmp_path / "home").mkdir()
    (tmp_path / "temporary").mkdir()
    # settings of the user's own are none of the demo's business
    return {
        "HOME": str(tmp_path / "home"),
        "TMPDIR": str(tmp_path / "temporary"),
        "TRIO_HUB_PING": "nonsense",
        "IPP_CLUSTER_ID": "other",
    }


@pytest.mark.interop
def test_it_runs_everything_and_leaves_nothing(home: dict[str, str]) -> None:
    with command("demo", "--engines=2", "--tasks=21", env=home) as running:
        directory = directory_of(running)
        assert running.wait() == 0, str(running)
    out = "\n".join(running.stdout)
    assert "11/11" in out
    assert "10/10" in out
    assert "slices add up to π = 3.141592654" in out
    assert running.stdout[-1] == "The hub and its engines have stopped."
    assert running.stderr == []
    assert processes_with(directory) == []
    assert list(Path(home["HOME"]).iterdir()) == []
    assert list(Path(home["TMPDIR"]).iterdir()) == []


@pytest.mark.interop
@pytest.mark.parametrize("when", ["early", "while tasks run"])
def test_a_hub_that_dies_is_told_and_leaves_nothing(home: dict[str, str], when: str) -> None:
    with command("demo", "--engines=1", "--tasks=1000000", env=home) as running:
        directory = directory_of(running)
        if when != "early":
            running.wait_line("stdout", "^All engines are there")
        os.kill(hub_of(running), signal.SIGKILL)
        assert running.wait() == 1
    assert "trio-hub demo failed: the hub ended by itself (SIGKILL). The end of its log:" in running.stderr
    assert "Traceback" not in "\n".join(running.stderr)
    assert processes_with(directory) == []
    assert list(Path(home["TMPDIR"]).iterdir()) == []


@pytest.mark.interop
@pytest.mark.parametrize(("signum", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_it_and_leaves_nothing(home: dict[str, str], signum: signal.Signals, code: int) -> None:
    with command("demo", "--engines=1", "--tasks=1000000", env=home) as running:
        directory = directory_of(running)
        running.signal(signum)
        assert running.wait() == code
    assert "Traceback" not in "\n".join(running.stderr)
    assert processes_with(directory) == []
    assert list(Path(home["TMPDIR"]).iterdir()) == []


def test_it_says_what_it_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo, "find_spec", lambda name: None)
    result = CliRunner().invoke(demo.demo, [], **AS_IN_THE_GROUP)
    assert result.exit_code == 2, "as where other packages are missing"
    assert "pip install ipyparallel" in result.output


def test_the_extra_is_the_one_that_exists() -> None:
    pyproject = Path(__file__).parents[2] / "pyproject.toml"
    assert '\ncluster = ["ipyparallel>=' in pyproject.read_text("utf-8")
    assert importlib.util.find_spec("ipyparallel") is not None


@pytest.mark.parametrize("arguments", [["--engines=0"], ["--tasks=0"], ["--tasks=many"]])
def test_bad_numbers_are_bad_usage(arguments: list[str]) -> None:
    result = CliRunner().invoke(demo.demo, arguments, **AS_IN_THE_GROUP)
    assert result.exit_code == 2
    assert arguments[0].partition("=")[0] in result.output


def test_the_slices_are_those_of_pi() -> None:
    slices = [demo.slice_of_pi(number, 7, 100) for number in range(7)]
    assert math.isclose(math.fsum(value for value, _ in slices), math.pi, rel_tol=1e-6)
    assert {pid for _, pid in slices} == {os.getpid()}


def test_a_wrong_or_missing_result_is_found() -> None:
    right = demo.Run("direct", 0.0, total=math.pi, latencies=[0.1] * 3)
    demo.check_sum([right], 3)
    with pytest.raises(demo.DemoError, match="3 of 4 tasks"):
        demo.check_sum([right], 4)
    wrong = demo.Run("direct", 0.0, total=3.0, latencies=[0.1] * 3)
    with pytest.raises(demo.DemoError, match=r"slices with the sum 3\.0"):
        demo.check_sum([wrong], 3)


@pytest.mark.parametrize(("percent", "value"), [(0, 1), (50, 5), (51, 6), (95, 10), (99, 10), (100, 10)])
def test_percentiles_are_values_that_occurred(percent: float, value: int) -> None:
    assert demo.percentile([10, 3, 1, 2, 4, 5, 6, 7, 8, 9], percent) == value
    assert demo.percentile([7.5], percent) == 7.5
