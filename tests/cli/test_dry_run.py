"""``trio-hub pools dry-run``: what would be submitted, and one block that is submitted."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

import click.testing
import pytest

from trio_hub.cli import main

SETTINGS = """
[[pool]]
name = "site"
launcher = "command"
max = 8
engines_per_block = 2
submit_command = "echo $TRIO_HUB_BLOCK $TRIO_HUB_ENGINES > {directory}/submitted; echo job 1"
cancel_command = "echo $TRIO_HUB_BLOCK $TRIO_HUB_JOB > {directory}/cancelled"

[[pool]]
name = "full"
launcher = "command"
max = 8
submit_command = "echo no nodes are left >&2; exit 3"
cancel_command = "true"

[[pool]]
name = "here"
max = 2
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "hub.toml"
    path.write_text(f'profile_dir = "profile"\n{SETTINGS.format(directory=tmp_path)}')
    return path


def dry_run(*arguments: str | Path) -> click.testing.Result:
    return click.testing.CliRunner().invoke(main, ["pools", "dry-run", *map(str, arguments)])


def test_what_would_be_submitted_is_printed(file: Path, tmp_path: Path) -> None:
    result = dry_run("site", "--config", file)
    assert (result.exit_code, result.stderr) == (0, "")
    assert f"{tmp_path}/submitted; echo job 1\n" in result.stdout
    assert "TRIO_HUB_ENGINES=2\n" in result.stdout
    assert "submitted block" not in result.stdout
    assert list(tmp_path.iterdir()) == [file], "nothing is submitted, and nothing is written"


def test_a_block_is_submitted_and_the_printed_command_cancels_it(file: Path, tmp_path: Path) -> None:
    result = dry_run("site", "--config", file, "--submit", "--json")
    assert result.exit_code == 0
    engine_file = tmp_path / "profile" / "security" / "ipcontroller-engine.json"
    assert result.stderr == (
        f"trio-hub: warning: there is no {engine_file}: the engines of this block find no hub unless one is started\n"
    )
    found = json.loads(result.stdout)
    assert (found["pool"], found["launcher"], found["engines"]) == ("site", "command", 2)
    assert "TRIO_HUB_POOL=site" in found["preview"]
    block = found["submitted"]["block"]
    assert re.fullmatch("site-[0-9a-f]{8}", block)
    assert found["submitted"]["job"] == "job 1"
    assert (tmp_path / "submitted").read_text() == f"{block} 2\n"
    subprocess.run(found["submitted"]["cancel"], shell=True, check=True)
    assert (tmp_path / "cancelled").read_text() == f"{block} job 1\n"
    engine_file.parent.mkdir(exist_ok=True)
    engine_file.touch()
    result = dry_run("site", "--submit", "--config", file, "--cluster-id", "")
    assert (result.exit_code, result.stderr) == (0, "")
    *_, submitted, cancel = result.stdout.splitlines()
    assert re.fullmatch("submitted block site-[0-9a-f]{8} as job job 1", submitted)
    assert cancel.startswith("to cancel it: env TRIO_HUB_POOL=site ")


def test_a_refused_block_is_told_in_the_words_of_the_batch_system(file: Path) -> None:
    result = dry_run("full", "--config", file, "--submit")
    assert (result.exit_code, result.stdout) == (1, "")
    assert "exit status 3: no nodes are left" in result.stderr.splitlines()[-1]


def test_engines_that_the_hub_itself_starts(file: Path, tmp_path: Path) -> None:
    result = dry_run("here", "--config", file)
    assert result.exit_code == 0
    first, command = result.stdout.splitlines()
    assert first == "# the hub itself starts this engine:"
    assert command.endswith(f"-m trio_hub engine --profile-dir={tmp_path}/profile")
    result = dry_run("here", "--config", file, "--submit")
    assert (result.exit_code, result.stdout) == (2, "")
    assert "there is nothing to submit" in " ".join(result.stderr.split())


def test_a_pool_may_be_an_option(tmp_path: Path) -> None:
    result = dry_run("cloud", "--profile-dir", tmp_path, "--pool", "name=cloud,max=4,engines_per_block=4")
    assert result.exit_code == 0
    assert result.stdout.startswith("# the hub itself starts each of the 4 engines of a block:\n")


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (
            ["nowhere"],
            "the settings have no pool 'nowhere' (pools: none): name their file with --config, or give --pool",
        ),
        (["x", "--pool", "name=x,launcher=command,max=1"], "pool x: submit_command is missing"),
        (["x", "--config", "/nonexistent.toml"], "/nonexistent.toml"),
        ([], "Missing argument 'NAME'"),
    ],
)
def test_settings_that_cannot_be_used(arguments: list[str], told: str, tmp_path: Path) -> None:
    result = dry_run(*arguments, "--profile-dir", tmp_path)
    assert (result.exit_code, result.stdout) == (2, "")
    assert told in " ".join(result.stderr.split())
