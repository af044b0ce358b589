"""Pools in commands: the option ``--pool``, ``config show``, and what is told before the start."""

from __future__ import annotations

import json
import os
import tomllib
from pathlib import Path

import click.testing
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from trio_hub.cli import before, main
from trio_hub.cli.before import check_settings
from trio_hub.cli.showing import print_settings, sources
from trio_hub.cli.translate import translate
from trio_hub.config import HubConfig, Pool, load_config
from trio_hub.errors import ConfigError
from trio_hub.pools.settings import PoolSettings
from trio_hub.runtime.about import plain_settings

SLURM = "name=slurm,launcher=slurm,max=64,tags=gpu=1+site=a,traits.queue=short"
SHOWN = {
    "name": "slurm",
    "launcher": "slurm",
    "min": 0,
    "max": 64,
    "engines_per_block": 1,
    "backlog": 1,
    "idle_timeout": 30.0,
    "startup_timeout": 300.0,
    "tags": {"gpu": 1.0, "site": "a"},
    "parallelism": 1.0,
    "stateless": False,
    "cost": 1.0,
    "retry_pause": 2.0,
    "max_failures": 10,
    "traits": {"queue": "short"},
    "engine": "trio-hub",
    "keep": False,
}


def show(tmp_path: Path, *arguments: str, **variables: str) -> tuple[int, str]:
    """Return the exit code and the output of ``trio-hub config show``."""
    env = {name: None for name in os.environ if name.startswith("TRIO_HUB_")}
    runner = click.testing.CliRunner(env={**env, "IPYTHONDIR": str(tmp_path), **variables})
    result = runner.invoke(main, ["config", "show", *arguments], prog_name="trio-hub")
    return result.exit_code, result.output


def pools_in(output: str) -> tuple[object, str]:
    """Return the pools in the output of ``config show``, and their source."""
    (line,) = [line for line in output.splitlines() if line.startswith("pools = ")]
    return tomllib.loads(output)["pools"], line.rpartition("  # ")[2]


def test_pools_are_shown_with_their_source(tmp_path: Path) -> None:
    local = SHOWN | {"name": "local", "launcher": "local", "max": 8}
    local = {key: value for key, value in local.items() if key not in ("backlog", "tags", "traits")}
    code, out = show(tmp_path)
    assert (code, pools_in(out)) == (0, ([], "default"))
    code, out = show(tmp_path, "--pool", SLURM, "--pool=name=local,max=8", TRIO_HUB_POOLS="name=other")
    assert (code, pools_in(out)) == (0, ([SHOWN, local], "--pool"))
    assert show(tmp_path, "--pools", SLURM, "--pools=name=local,max=8") == (code, out)
    code, out = show(tmp_path, TRIO_HUB_POOLS=json.dumps([SHOWN]))
    assert (code, pools_in(out)) == (0, ([SHOWN], "TRIO_HUB_POOLS"))
    file = tmp_path / "hub.toml"
    file.write_text('[[pool]]\nname = "local"\nmax = 8')
    code, out = show(tmp_path, f"--config={file}")
    assert (code, pools_in(out)) == (0, ([local], f"pool in {file}"))
    file.write_text(out)
    code, again = show(tmp_path, f"--config={file}")
    assert (code, pools_in(again)) == (0, ([local], f"pools in {file}"))


def test_ipcontroller_takes_pools_from_the_environment(tmp_path: Path) -> None:
    code, out = show(tmp_path, "--ipcontroller", TRIO_HUB_POOLS=SLURM)
    assert (code, pools_in(out)) == (0, ([SHOWN], "TRIO_HUB_POOLS"))
    file = tmp_path / "hub.toml"
    file.write_text('[[pool]]\nname = "local"\nmax = 8')
    translation = translate([], {"IPYTHONDIR": str(tmp_path), "TRIO_HUB_CONFIG": str(file)})
    assert [pool.name for pool in translation.config().pools] == ["local"]


def test_the_source_of_engines_in_a_block(tmp_path: Path) -> None:
    """A hub that a block starts does not take the number of engines of the block for its own."""
    code, out = show(tmp_path, TRIO_HUB_BLOCK="slurm-1", TRIO_HUB_ENGINES="4", TRIO_HUB_POOL="slurm")
    assert code == 0
    assert "engines = 0  # default" in out.splitlines()
    assert sources({}, {"TRIO_HUB_ENGINES": "4"}, None)["engines"] == "TRIO_HUB_ENGINES"


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (
            ["--pool=local"],
            "--pool, number 1: 'local' is not written as key=value: write a pool as name=local,min=0,max=8",
        ),
        (
            ["--pool=name=a", "--pool=name=b,mxa=3"],
            "--pool, number 2: pool b: 'mxa' is no key of a pool: did you mean max",
        ),
        (
            ["--pool=name=local", "--engines=2"],
            "engines is 2, which is the pool 'local', but pools has a pool of this nam",
        ),
    ],
    ids=["syntax", "key", "engines"],
)
def test_what_is_wrong_is_told(tmp_path: Path, arguments: list[str], told: str) -> None:
    code, out = show(tmp_path, *arguments)
    assert code == 2
    assert f"Error: {told}" in out


def test_the_help_names_the_option() -> None:
    result = click.testing.CliRunner(env={"COLUMNS": "200"}).invoke(main, ["serve", "--help"])
    assert "--pool, --pools KEY=VALUE,..." in result.output
    assert "  trio-hub serve --pool name=local,min=0,max=8\n" in result.output


def test_shells_complete_the_option() -> None:
    env = {"_TRIO_HUB_COMPLETE": "bash_complete", "COMP_WORDS": "trio-hub serve --po", "COMP_CWORD": "2"}
    result = click.testing.CliRunner().invoke(main, env=env, prog_name="trio-hub")
    assert "plain,--pool" in result.output.splitlines()


names_and_texts = st.text(min_size=1, max_size=6).filter(str.isprintable).map(str.strip).filter(bool)


@pytest.mark.property
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.dictionaries(names_and_texts, names_and_texts, max_size=3), names_and_texts)
def test_whatever_is_shown_can_be_read(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, tags: dict[str, str], command: str
) -> None:
    try:
        pool = Pool(PoolSettings("a", max=4, tags=tags), launcher="slurm", traits={"x": tags}, start_command=command)
        config = HubConfig(profile_dir=tmp_path, pools=(pool,))
    except ConfigError:
        return  # a name with an equals sign, or a tag that is a number, but no amount
    print_settings(config)
    file = tmp_path / "shown.toml"
    file.write_text(capsys.readouterr().out)
    assert load_config({}, {}, file).pools == config.pools


def test_a_report_has_the_pools_as_json() -> None:
    config = load_config({"pools": (SLURM,)}, {}, None)
    assert json.loads(json.dumps(plain_settings(config)))["pools"] == [SHOWN]


# Before the start


def test_local_pools_need_room_on_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(before, "open_files_limit", lambda: None)
    monkeypatch.setattr(before, "memory_available", lambda: 150 << 20)
    monkeypatch.setattr(before, "_number_in", lambda path: 400)

    def check(*tables: str, engines: int = 0) -> str:
        config = load_config({"pools": tables, "engines": engines, "profile_dir": "/tmp/none"}, {}, None)
        try:
            check_settings(config)
        except ConfigError as error:
            return str(error)
        return ""

    assert check("name=a,max=200,min=10") == ""
    assert check("name=a,max=100", "name=b,max=100") == ""
    assert check("name=a,max=201,launcher=slurm,min=200") == ""
    told = "this machine has room for about"
    assert check("name=a,max=150", "name=b,max=51").startswith(
        f"max of the pools with the launcher local is 201 in all, but {told} 200: the system allows 400 processes"
    )
    assert check("name=a,max=199,min=10", engines=2).startswith(
        f"engines and max of the pools with the launcher local is 201 in all, but {told} 200: the system allows"
    )
    assert check("name=a,max=12,min=9", engines=2).startswith(
        f"engines and min of the pools with the launcher local is 11 in all, but {told} 10: 150 MiB of memory are free"
    )
