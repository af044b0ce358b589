"""The CI runs the commands that users are told to run."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parent.parent


def test_ci_runs_the_readmes_test_command() -> None:
    section = (ROOT / "README.md").read_text().split("\n## Tests\n")[1]
    block = re.search(r"```bash\n(.*?)\n```", section, re.DOTALL)
    assert block is not None
    command = block[1]
    assert "\n" not in command, "one command line"
    assert f"\n{command} || exit\n" in (ROOT / ".ci" / "run").read_text()
