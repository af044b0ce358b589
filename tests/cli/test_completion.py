"""``trio-hub completion``, and the words that a shell gets."""

from __future__ import annotations

from pathlib import Path

import click.testing
import pytest

from trio_hub.cli import COMMANDS, main

from .process import run


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_script(shell: str) -> None:
    result = click.testing.CliRunner().invoke(main, ["completion", shell])
    assert result.exit_code == 0
    assert f"_TRIO_HUB_COMPLETE={shell}_complete" in result.stdout


def words(typed: str, ipython_dir: Path | None = None) -> list[str]:
    """Return the completions of the last of these words, as bash gets them."""
    line = typed.split(" ")
    env = {"_TRIO_HUB_COMPLETE": "bash_complete", "COMP_WORDS": typed, "COMP_CWORD": str(len(line) - 1)}
    if ipython_dir is not None:
        env["IPYTHONDIR"] = str(ipython_dir)
    result = click.testing.CliRunner().invoke(main, env=env, prog_name="trio-hub")
    return [told.partition(",")[2] for told in result.stdout.splitlines() if told]


def test_commands_and_options() -> None:
    assert words("trio-hub ") == list(COMMANDS)
    assert words("trio-hub ta") == ["tasks", "task", "tail", "tag"]
    assert words("trio-hub tasks --st") == ["--state"]
    assert words("trio-hub tasks --state w") == ["waiting"]
    assert words("trio-hub completion ") == ["bash", "zsh", "fish"]


def test_profiles_and_clusters(tmp_path: Path) -> None:
    for name in ("default", "deep", "night"):
        (tmp_path / f"profile_{name}" / "security").mkdir(parents=True)
    security = tmp_path / "profile_night" / "security"
    for name in ("ipcontroller-client.json", "ipcontroller-one-client.json", "ipcontroller-one-engine.json"):
        (security / name).touch()
    assert words("trio-hub status --profile de", tmp_path) == ["deep", "default"]
    assert words("trio-hub status --profile night --cluster-id ", tmp_path) == ["one"]
    assert words("trio-hub status --cluster-id ", tmp_path) == []
    assert words(f"trio-hub status --profile-dir {security.parent} --cluster-id o") == ["one"]


def test_pools_of_the_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert words("trio-hub pools ") == ["dry-run", "list", "resume", "show"]
    file = tmp_path / "hub.toml"
    file.write_text('[[pool]]\nname = "night"\nmax = 2\n[[pool]]\nname = "nights"\n[[pool]]\nname = "day"\n')
    assert words(f"trio-hub pools dry-run --config {file} n") == ["night", "nights"]
    assert words("trio-hub scale ") == []
    monkeypatch.setenv("TRIO_HUB_CONFIG", str(file))
    for command in ("scale", "pools show", "pools resume", "pools dry-run"):
        assert words(f"trio-hub {command} ") == ["night", "nights", "day"]
    monkeypatch.setenv("TRIO_HUB_CONFIG", str(tmp_path / "nothing.toml"))
    assert words("trio-hub scale ") == []


@pytest.mark.parametrize(
    "arguments",
    [["--help"], ["tasks", "--help"], ["top", "--help"], ["pools", "--help"], ["completion", "zsh"]],
    ids=" ".join,
)
def test_what_is_asked_often_loads_neither_trio_nor_zeromq(arguments: list[str]) -> None:
    code, stdout, stderr = run(*arguments, env={"PYTHONPROFILEIMPORTTIME": "1"})
    assert code == 0
    assert stdout
    loaded = {line.rpartition("|")[2].strip() for line in stderr.splitlines()}
    assert "click" in loaded
    assert not {"trio", "zmq", "rich", "ipyparallel"} & loaded
