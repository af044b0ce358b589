"""The CI runs the commands that users are told to run."""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).parent.parent


def test_ci_runs_the_readmes_test_command() -> None:
    section = (ROOT / "README.md").read_text().split("\n## Tests\n")[1]
    block = re.search(r"```bash\n(.*?)\n```", section, re.DOTALL)
    assert block is not None
    command = block[1]
    assert "\n" not in command, "one command line"
    assert f"\n{command} || exit\n" in (ROOT / ".ci" / "run").read_text()


def test_each_python_that_is_claimed_is_tested() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    claimed = re.findall(r"Python :: (3\.\d+)", "\n".join(project["classifiers"]))
    sessions = re.search(r"^PYTHONS = (\[.*\])$", (ROOT / "noxfile.py").read_text(), re.MULTILINE)
    assert sessions is not None
    tested = json.loads(sessions[1])
    assert claimed
    assert set(claimed) <= set(tested)
    first, *others = tested
    script = (ROOT / ".ci" / "run").read_text()
    assert f"python{first} -m venv" in script
    run = re.findall(r"nox .*-s (.*) -- -m \"\$quick\"", script)
    assert sorted(" ".join(run).split()) == [f"tests-{version}" for version in others]
