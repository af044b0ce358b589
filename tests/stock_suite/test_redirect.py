"""Each way to start a stock controller starts ours, or is noted and refused. `nox -s interop` relies on this."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import ipyparallel
import pytest

from .sitecustomize import CURVE, ENGINES, LOG, controller_arguments, engine_arguments

STOCK_TESTS = Path(ipyparallel.__file__).parent / "tests"


@pytest.mark.parametrize(
    ("command", "expected"),
    [
        ("python -m ipyparallel.controller --ip=* --ping 250", ["--ip=*", "--ping", "250"]),
        ("python -u -X dev -m ipyparallel.controller.app", []),
        ("python3.11 -W error /opt/bin/ipcontroller --reuse", ["--reuse"]),
        ("python ipcontroller", []),
        ("python -m ipyparallel.engine --profile=ipcontroller", None),
        ("python -c pass ipcontroller", None),
        ("python -m", None),
        ("python", None),
        ("mpiexec -n 1 python", None),
    ],
)
def test_controllers_are_told_by_their_command_lines(command: str, expected: list[str] | None) -> None:
    assert controller_arguments(command.split()) == expected


@pytest.mark.parametrize(
    ("command", "expected"),
    [
        ("python -m ipyparallel.engine --timeout=5", ["--timeout=5"]),
        ("python /opt/bin/ipengine --mpi", ["--mpi"]),
        ("python -m ipyparallel.engine.nanny", None),
        ("python -m ipyparallel.controller", None),
    ],
)
def test_engines_are_told_by_their_command_lines(command: str, expected: list[str] | None) -> None:
    assert engine_arguments(command.split()) == expected


@pytest.mark.parametrize("ours", [True, False])
def test_an_engine_becomes_ours_if_that_is_wanted(ours: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(ENGINES, "trio-hub" if ours else "")
    done, log = run(tmp_path, "-m", "ipyparallel.engine", "--help")
    assert done.returncode == 0
    assert ("trio-hub" in done.stdout) == ours
    assert log.startswith("engine ") == ours


def run(directory: Path, *arguments: str) -> tuple[subprocess.CompletedProcess[str], str]:
    log = directory / "log"
    env = os.environ | {"PYTHONPATH": str(Path(__file__).parent), LOG: str(log)}
    done = subprocess.run([sys.executable, *arguments], env=env, text=True, capture_output=True, check=False)
    return done, log.read_text() if log.exists() else ""


def test_a_controller_becomes_ours_with_its_arguments(tmp_path: Path) -> None:
    done, log = run(tmp_path, "-m", "ipyparallel.controller", "--help")
    assert done.returncode == 0
    assert "trio-hub" in done.stdout
    assert log.startswith("ours ")
    assert "--help" in log


@pytest.mark.parametrize(("value", "noted"), [("1", "curve"), ("", "plain")])
def test_a_controller_that_is_told_to_encrypt_is_noted(
    value: str, noted: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(CURVE, value)
    _, log = run(tmp_path, "-m", "ipyparallel.controller", "--version")
    assert log.split()[2] == noted


def test_a_controller_by_another_way_is_refused_and_noted(tmp_path: Path) -> None:
    profile = tmp_path / "profile"
    program = f"from ipyparallel.controller.app import main; main(['--profile-dir={profile}'])"
    done, log = run(tmp_path, "-c", program)
    assert done.returncode == 1
    assert "not redirected" in done.stderr
    assert log.startswith("theirs ")
    assert not profile.exists()


@pytest.mark.parametrize("ours", [True, False])
def test_an_engine_by_another_way_is_refused_if_ours_are_wanted(
    ours: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(ENGINES, "trio-hub" if ours else "")
    program = "from ipyparallel.engine.app import IPEngine; IPEngine().initialize(['--version'])"
    done, log = run(tmp_path, "-c", program)
    assert done.returncode == int(ours)
    assert ("not redirected" in done.stderr) is ours
    assert log.startswith("theirs ") is ours


def test_the_docs_list_the_tests_that_need_the_stock_kernel() -> None:
    """The list names tests of ipyparallel, and each place in its tests that uses the stock engine's own classes."""
    page = (Path(__file__).parents[2] / "docs" / "how-to" / "choose-an-engine.md").read_text()
    listed = dict(re.findall(r"^\| `(test_\w+\.py)::(test_\w+)`", page, re.M))
    assert 0 < len(listed) <= 5
    for file, test in listed.items():
        assert f"def {test}(" in (STOCK_TESTS / file).read_text()
    uses = re.compile(r"^\s*(?:import|from) (?:ipyparallel\.engine|ipykernel)\b", re.M)
    using = [path.name for path in STOCK_TESTS.glob("*.py") if uses.search(path.read_text())]
    assert set(using) <= listed.keys()


def test_other_programs_are_left_alone(tmp_path: Path) -> None:
    done, log = run(tmp_path, "-c", "import ipyparallel.controller.app, sys; print(*sys.argv[1:])", "ipcontroller")
    assert done.stdout.strip() == "ipcontroller"
    assert not log
