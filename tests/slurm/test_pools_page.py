"""The how-to page about pools on Slurm: its settings, what it says would be submitted, and its client."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from trio_hub.config.pools import parse_pool

from ..cli.process import command, processes_with, run
from ..test_docs import DOCS, check_output, code_blocks, quiet_environment
from .support import Slurm, wait_until

PAGE = DOCS / "how-to" / "pools-slurm.md"
BLOCKS = code_blocks(PAGE, "toml", "bash", "text", "python")


def settings(directory: Path) -> str:
    """Return the settings of the page, with the profile in this directory."""
    ((_, text), *_) = (block for block in BLOCKS if block[0] == "toml")
    assert "\nrestore = true\n" in text
    return text.replace("/home/you", str(directory))


@pytest.mark.parametrize("number", range(sum(language == "toml" for language, _ in BLOCKS)))
def test_each_example_is_a_pool(number: int) -> None:
    text = [text for language, text in BLOCKS if language == "toml"][number]
    for table in tomllib.loads(text).get("pool") or [
        {"name": "a", "launcher": "slurm", "max": 1, **tomllib.loads(text)}
    ]:
        assert parse_pool(table).launcher == "slurm"


def test_what_the_page_says_would_be_submitted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "cluster.toml").write_text(settings(tmp_path))
    (number,) = (number for number, (_, text) in enumerate(BLOCKS) if "dry-run" in text)
    program, *words = BLOCKS[number][1].split()
    assert program == "trio-hub"
    code, printed, errors = run(*words, env=quiet_environment(tmp_path))
    assert code == 0, errors
    shown = BLOCKS[number + 1][1].replace("/home/you/venv/bin/python", sys.executable)
    check_output(shown.replace("/home/you", str(tmp_path)), f"{printed}\n")


@pytest.mark.slurm
def test_the_settings_and_the_client_of_the_page(slurm: Slurm, tmp_path: Path) -> None:
    text = settings(tmp_path)
    for large, small in (
        ("max = 64", "max = 4"),
        ("engines_per_block = 16", "engines_per_block = 2"),
        ("2G", "100M"),
    ):
        assert large in text
        text = text.replace(large, small)
    (tmp_path / "cluster.toml").write_text(text)
    (client,) = (text for language, text in BLOCKS if language == "python")
    with command("serve", "--config", str(tmp_path / "cluster.toml")) as hub:
        hub.wait_line("stdout", "trio-hub ready.*connections are encrypted")
        program = subprocess.run(
            [sys.executable, "-c", client.replace("/home/you", str(tmp_path))],
            env=quiet_environment(tmp_path),
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert program.returncode == 0, program.stderr
        assert program.stdout in [text for language, text in BLOCKS if language == "text"]
        assert slurm.jobs()
        hub.process.terminate()
        assert hub.wait() == 0
    slurm.wait_until_empty()
    wait_until(lambda: not processes_with(str(tmp_path)), "the end of all processes")
