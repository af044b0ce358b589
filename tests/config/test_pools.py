"""The setting ``pools``: what a pool may be, from each source, and how what is wrong is told."""

from __future__ import annotations

import json
import math
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from trio_hub.config import HubConfig, Pool, load_config, pools, poolvalues
from trio_hub.config.pools import POOL_KEYS, parse_pool, read_pools
from trio_hub.config.poolvalues import READERS, parse_pool_text
from trio_hub.errors import ConfigError
from trio_hub.pools.settings import PoolSettings

COMMANDS = {"submit_command": "kubectl apply -f block.yaml", "cancel_command": "kubectl delete job $TRIO_HUB_JOB"}


@pytest.fixture
def toml(tmp_path: Path) -> Callable[[str], Path]:
    def write(text: str) -> Path:
        path = tmp_path / "hub.toml"
        path.write_text(text)
        return path

    return write


@pytest.fixture(autouse=True)
def four_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pools, "cores", lambda: 4)


def load(cli: Mapping[str, object], environ: Mapping[str, str] | None = None, file: Path | None = None) -> HubConfig:
    return load_config(cli, {"HOME": "/h", **(environ or {})}, file)


def config_of(*said: Any, **settings: Any) -> HubConfig:
    given: Any = said
    return HubConfig(pools=given, **settings)


def pool_of(**table: Any) -> Pool:
    (pool,) = config_of({"name": "p", **table}).pools
    return pool


def error_of(call: Callable[..., object], *arguments: Any, **named: Any) -> str:
    """Return the text of the `ConfigError` of a call; an empty text if there was none."""
    try:
        call(*arguments, **named)
    except ConfigError as error:
        return str(error)
    return ""


# What a table says


def test_a_pool_with_all_keys(toml: Any) -> None:
    text = """
        [[pool]]
        name = "gpu_nodes-1"
        launcher = "slurm"
        min = 4
        max = 16
        engines_per_block = 4
        backlog = 2
        idle_timeout = "2m"
        startup_timeout = 600
        time_limit = "1:30:00"
        tags = { gpu = 1, site = "a", memory = "32G" }
        parallelism = 0.5
        stateless = true
        cost = 2.5
        retry_pause = "5s"
        max_failures = 3
        engine = "trio-hub"
        engine_args = ["--log-level=DEBUG", "--id=a b"]
        python = "/opt/python/bin/python"
        start_command = '''
    module load cuda
    ulimit -c 0
        '''
        stop_command = "rm -rf /tmp/x"
        wrap_command = "apptainer exec 'my image.sif'"
        keep = true

        [pool.traits]
        queue = "short"
        timeout = 30
        context = { account = ["a", "b"], big = true }
    """
    (pool,) = load({}, {}, toml(text)).pools
    assert pool == Pool(
        PoolSettings(
            "gpu_nodes-1",
            min=4,
            max=16,
            engines_per_block=4,
            backlog=2,
            idle_timeout=120.0,
            startup_timeout=600.0,
            time_limit=5400.0,
            tags={"gpu": 1, "site": "a", "memory": "32G"},
            parallelism=0.5,
            stateless=True,
            cost=2.5,
            retry_pause=5.0,
            max_failures=3,
        ),
        launcher="slurm",
        traits={"queue": "short", "timeout": 30, "context": {"account": ["a", "b"], "big": True}},
        engine_args=("--log-level=DEBUG", "--id=a b"),
        python="/opt/python/bin/python",
        start_command="module load cuda\n    ulimit -c 0",
        stop_command="rm -rf /tmp/x",
        wrap_command="apptainer exec 'my image.sif'",
        keep=True,
    )
    assert set(tomllib.loads(text)["pool"][0]) | {"submit_command", "cancel_command", "status_command"} == set(
        POOL_KEYS
    ), "a new key belongs into this test"


def test_the_defaults() -> None:
    assert pool_of() == Pool(PoolSettings("p", max=4, backlog=None))
    assert pool_of(launcher="slurm", max=8) == Pool(PoolSettings("p", max=8, backlog=1), launcher="slurm")
    assert pool_of(max=8, min=None, tags=None, traits=None) == pool_of(max=8)


@pytest.mark.parametrize(
    ("table", "most"),
    [({}, 4), ({"min": 6}, 6), ({"engines_per_block": 5}, 5), ({"min": 7, "engines_per_block": 3}, 9), ({"max": 1}, 1)],
)
def test_a_local_pool_has_an_engine_for_each_core(table: dict[str, Any], most: int) -> None:
    assert pool_of(**table).settings.max == most


def test_the_number_of_cores_is_that_of_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda pid: {1, 5, 6}, raising=False)
    assert poolvalues.cores() == 3
    monkeypatch.delattr("os.sched_getaffinity")
    monkeypatch.setattr("os.cpu_count", lambda: 7)
    assert poolvalues.cores() == 7


@pytest.mark.parametrize("launcher", ["mpi", "ssh", "trio-hub", "trio-hub-mpi", "trio-hub-ssh"])
def test_launchers_without_a_queue_have_no_backlog(launcher: str) -> None:
    assert pool_of(launcher=launcher, max=8).settings.backlog is None
    for key, value in (("backlog", 2), ("time_limit", 60)):
        with pytest.raises(ConfigError, match=f"launcher {launcher} .*: leave out {key}$"):
            pool_of(launcher=launcher, max=8, **{key: value})


@pytest.mark.parametrize("launcher", ["slurm", "pbs", "sge", "lsf", "htcondor", "batch", "trio-hub-slurm"])
def test_launchers_of_batch_systems_have_a_queue(launcher: str) -> None:
    assert pool_of(launcher=launcher, max=8).settings.backlog == 1
    assert pool_of(launcher=launcher, max=8, time_limit="2-12:00:00").settings.time_limit == 60 * 3600


def test_a_pool_of_commands() -> None:
    pool = pool_of(launcher="command", max=2, time_limit=60, status_command="squeue", **COMMANDS)
    assert (pool.settings.backlog, pool.status_command, pool.has_queue) == (1, "squeue", True)
    assert pool_of(launcher="command", max=2, **COMMANDS).status_command == ""


@pytest.mark.parametrize(
    ("said", "seconds"),
    [
        (30, 30.0),
        (0.5, 0.5),
        ("31", 31.0),
        ("30s", 30.0),
        ("1.5h", 5400.0),
        ("2 H", 7200.0),
        ("1d", 86400.0),
        ("0:00:30", 30.0),
        ("100:00:00", 360000.0),
        (" 1-00:00:01 ", 86401.0),
    ],
)
def test_durations(said: Any, seconds: float) -> None:
    for key in ("idle_timeout", "startup_timeout", "retry_pause", "time_limit"):
        assert getattr(pool_of(launcher="slurm", max=1, **{key: said}).settings, key) == seconds


def test_tags_are_a_table_or_words() -> None:
    offers = (("gpu", 1.0), ("memory", 2.0**35), ("site", "a"))
    assert pool_of(tags={"site": "a", "gpu": True, "memory": "32G"}).settings.tags == offers
    assert pool_of(tags=["gpu", "site=a", "memory=32G"]).settings.tags == offers


# What is refused


@pytest.mark.parametrize(
    ("table", "told"),
    [
        ({"nmae": "x"}, "'nmae' is no key of a pool: did you mean name?"),
        ({"idle-timeout": 3}, "'idle-timeout' is no key of a pool: did you mean idle_timeout?"),
        ({"xyzzy": 3}, "'xyzzy' is no key of a pool: the keys are name, launcher, min, max, engines_per_block"),
        ({7: 3}, "'7' is no key of a pool: the keys are name"),
        ({"launcher": "slurm"}, "max is missing: say how many engines the pool may have at most, such as max"),
        ({"max": "8"}, "max is '8': it must be a whole number from 0 to 1000000"),
        ({"max": True}, "max is 'true': it must be a whole number"),
        ({"min": 5, "max": 4}, "min is 5, which is more than max, 4: lower min or raise max"),
        ({"engines_per_block": 0}, "engines_per_block is '0': it must be a whole number from 1"),
        ({"idle_timeout": "soon"}, "idle_timeout is 'soon': it must be a time such as 30, '30s', '2h' or"),
        ({"idle_timeout": 0}, "idle_timeout is '0.0': it must be a positive number of seconds"),
        ({"idle_timeout": True}, "idle_timeout is 'true': it must be a time"),
        ({"startup_timeout": []}, "startup_timeout is '[]': it must be a time"),
        ({"retry_pause": 10**400}, "retry_pause is '1000"),
        ({"retry_pause": "9" * 400}, "retry_pause is '"),
        ({"time_limit": "90:00"}, "time_limit is '90:00': it must be a time such as 30, '30s', '2h' or '1:30:"),
        (
            {"time_limit": 60},
            "time_limit is set, but nobody would end a block of the launcher local then: leave",
        ),
        ({"backlog": 1}, "the launcher local has no queue: leave out backlog"),
        ({"tags": {"gpu": -1}}, "tags[gpu] is '-1': it must be a positive amount, such as 2 or 32G, or a text"),
        (
            {"tags": ["gpu="]},
            "tags is '[\"gpu=\"]': it must be a table such as {gpu = 1, site = 'a'}, or a list",
        ),
        ({"tags": "gpu"}, "tags is 'gpu': it must be a table such as"),
        ({"tags": {"a=b": 1}}, "tags is '{\"a=b\": 1}': it must be a table such as"),
        ({"tags": {"a": "b c"}}, 'tags is \'{"a": "b c"}\': it must be a table such as'),
        ({"tags": {"a ": 1}}, "tags is '{\"a \": 1}': it must be a table such as"),
        ({"tags": {"": 1}}, "tags is '{\"\": 1}': it must be a table such as"),
        (
            {"tags": ["a"], "engine": "ipengine"},
            "tags is set, but ipengine offers no tags, so no task with needs",
        ),
        ({"parallelism": 1.5}, "parallelism is '1.5': it must be a number above 0 and at most 1"),
        ({"stateless": "yes"}, "stateless is 'yes': it must be true or false"),
        ({"keep": 1}, "keep is '1': it must be true or false"),
        ({"cost": 0}, "cost is '0': it must be a positive number"),
        ({"launcher": 3}, "launcher is '3': it must be the name of a launcher, such as local or slurm"),
        ({"launcher": "slrm"}, "launcher is 'slrm', which is not known: did you mean slurm?"),
        ({"launcher": "Slurm"}, "launcher is 'Slurm', which is not known: did you mean slurm?"),
        (
            {"launcher": ""},
            "launcher is '', which is not known: the launchers are batch, command, htcondor, loc",
        ),
        ({"launcher": "sshproxy"}, "the launcher sshproxy does not run the command of the pool for e"),
        ({"engine": "dask"}, "engine is 'dask': it must be trio-hub or ipengine"),
        ({"engine_args": "--debug"}, "engine_args is '--debug': it must be a list of words"),
        ({"engine_args": ["a\0"]}, "engine_args is '[\"a"),
        ({"python": "a\nb"}, "python is 'a\\nb': it must be the path of a Python"),
        ({"start_command": ["module"]}, "start_command is '[\"module\"]': it must be a shell command"),
        ({"stop_command": "x\0"}, "stop_command is 'x"),
        (
            {"wrap_command": "exec 'x"},
            'wrap_command is "exec \'x": it must be words as in a shell, with each qu',
        ),
        ({"traits": {"queue": "x"}}, "the launcher local has no traits: leave out [pool.traits]"),
        (
            {"submit_command": "x"},
            "submit_command is a key of the launcher command only: leave out submit_command, or set launcher to "
            "command",
        ),
        (
            {"launcher": "batch", "status_command": "x"},
            "status_command is a key of the launcher command only: leave out status_command, or set launcher to "
            "command; a trait of the launcher batch is written in the table [pool.traits]",
        ),
        (
            {"launcher": "command", "submit_command": "x"},
            "cancel_command is missing: the launcher command needs a shell command to submit a block, and one to",
        ),
        ({"launcher": "command"}, "submit_command is missing: the launcher command needs"),
        (
            {"launcher": "slurm", "traits": {"a b": 1}},
            "traits is '{\"a b\": 1}': it must be a table of names of",
        ),
        ({"launcher": "slurm", "traits": {"a": math.nan}}, "traits is "),
        ({"launcher": "slurm", "traits": {"a": None}}, "traits is "),
        ({"launcher": "slurm", "traits": {"a": {1: 2}}}, "traits is "),
        ({"launcher": "slurm", "traits": []}, "traits is '[]': it must be a table"),
        (
            {"launcher": "slurm", "traits": {"n": 4}},
            "the hub sets the trait n itself: use engines_per_block instead",
        ),
        (
            {"launcher": "slurm", "traits": {"engine_cmd": ["x"]}},
            "the hub sets the trait engine_cmd itself: use engine, python or wrap_command instead",
        ),
    ],
    ids=lambda value: f"{value}"[:60] if isinstance(value, dict) else "",
)
def test_what_cannot_be_a_pool(table: dict[Any, Any], told: str) -> None:
    usual = {"max": 8} if "launcher" in table and "max" not in table and "max is missing" not in told else {}
    assert error_of(config_of, {"name": "p", **usual, **table}).startswith(f"pools, number 1: pool p: {told}")


@pytest.mark.parametrize("name", ["", "a b", "a/b", "-a", "_a", "é", "a" * 41, 3, ["a"], "a\n"])
def test_names_that_files_and_jobs_cannot_have(name: Any) -> None:
    told = error_of(config_of, {"name": name})
    assert told.startswith("pools, number 1: the name of a pool is ")
    assert ": it must be 1 to 40 letters, digits, - and _, and begin with a letter or digit" in told


def test_names() -> None:
    for name in ("a", "a" * 40, "0", "A-_9"):
        assert config_of({"name": name}).pools[0].name == name
    told = error_of(config_of, {})
    assert told == "pools, number 1: a pool has no name: give each pool a name, such as name = 'local'"
    told = error_of(config_of, pool_of(), {"name": "p", "max": 3})
    assert told == "pools, number 2: there is a pool 'p' already: use another name"


@pytest.mark.parametrize("value", ["x", b"y", 3, {"name": "p"}, None])
def test_pools_are_a_list(value: Any) -> None:
    told = error_of(HubConfig, pools=value)
    assert told.startswith("pools is ")
    assert told.endswith(": expected a list of tables, each with a name and the keys of a pool")
    told = error_of(config_of, 7)
    assert told == "pools, number 1: a pool must be a table with a name and max, not '7'"


def test_without_ipyparallel(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pools, "known_launchers", set)
    monkeypatch.setattr(pools, "stock_is_here", lambda: False)
    pool_of()
    pool_of(launcher="command", max=1, **COMMANDS)
    told = error_of(pool_of, launcher="slurm", max=8)
    assert "launchers other than local and command are in the package ipyparallel, which is not installed" in told
    told = error_of(pool_of, engine="ipengine")
    assert "engine is ipengine, but ipyparallel is not installed: install it with pip install ipyparallel" in told
    assert pool_of(engine="ipengine", python="/opt/bin/python").engine == "ipengine"


def test_launchers_are_looked_up_among_entry_points() -> None:
    assert {"slurm", "ssh", "trio-hub", "trio-hub-slurm"} <= poolvalues.known_launchers()
    assert poolvalues.stock_is_here()


def test_pools_of_a_program_are_checked_when_a_config_gets_them() -> None:
    settings = PoolSettings("p", max=8)
    (pool,) = config_of(Pool(settings)).pools
    assert pool.settings == replace(settings, backlog=None), "the launcher local has no queue"
    (pool,) = config_of(Pool(settings, launcher="slurm")).pools
    assert pool.settings == settings
    anything: Any = Pool
    for wrong, told in (
        (Pool(settings, launcher="nowhere"), "launcher is 'nowhere', which is not known"),
        (anything(settings, keep=1), "keep is '1': it must be true or false"),
        (Pool(replace(settings, name="a b")), "the name of a pool is 'a b'"),
        (Pool(replace(settings, tags={"a b": 1})), "tags is '{\"a b\": 1.0}': it must be a table such as"),
        (anything({"name": "p"}), "the settings of a pool must be PoolSettings, not"),
        (anything(settings, engine_args="--a"), "engine_args is '--a': it must be a list of words"),
    ):
        assert told in error_of(config_of, wrong)


# Sources


def test_sources_and_their_order(toml: Any) -> None:
    file = toml('[[pool]]\nname = "file"\nmax = 1\n[[pool]]\nname = "other"\nmax = 2')
    variable = {"TRIO_HUB_POOLS": json.dumps([{"name": "variable", "max": 3, "tags": {"gpu": 1}}])}
    options = {"pools": ("name=one,min=0,max=8", "name=two,launcher=slurm,max=4,tags=gpu+site=a")}

    def names(config: HubConfig) -> list[str]:
        return [pool.name for pool in config.pools]

    assert names(load({}, {}, file)) == ["file", "other"]
    assert names(load({}, variable, file)) == ["variable"]
    assert names(load(options, variable, file)) == ["one", "two"]
    assert load(options).pools[1].settings.tags == (("gpu", 1.0), ("site", "a"))
    assert names(load({}, {"TRIO_HUB_POOLS": "name=local,max=2"})) == ["local"]
    assert load({"pools": None}, {}).pools == ()


@pytest.mark.parametrize(
    ("cli", "environ", "table", "told"),
    [
        ({"pools": ("name=a", "name=b,kep=1")}, {}, "", "--pool, number 2: pool b: 'kep' is no key of a pool: did you"),
        ({}, {"TRIO_HUB_POOLS": '[{"name": "a", "max": -1}]'}, "", "TRIO_HUB_POOLS, number 1: pool a: max is '-1'"),
        ({}, {"TRIO_HUB_POOLS": "[{"}, "", "TRIO_HUB_POOLS is '[{': expected a list of tables"),
        ({}, {"TRIO_HUB_POOLS": '{"name": "a"}'}, "", 'TRIO_HUB_POOLS is \'{"name": "a"}\': expected a list of tables'),
        ({}, {}, '[[pool]]\nname = "a"\nmax = -1', "[[pool]] in FILE, number 1: pool a: max is '-1'"),
        ({}, {}, '[pool]\nname = "a"', '[[pool]] in FILE is \'{"name": "a"}\': expected a list of tables'),
        (
            {},
            {},
            'pools = []\n[[pool]]\nname = "a"',
            "[[pool]] and pools in FILE exclude each other: write all pools",
        ),
        ({}, {}, '[[pol]]\nname = "a"', "'pol' in FILE is not a setting: did you mean pool?"),
        (
            {},
            {"TRIO_HUB_POOL": "name=a"},
            "",
            "the environment variable TRIO_HUB_POOL is not a setting: did you mean TR",
        ),
    ],
)
def test_an_error_names_the_source(
    toml: Any, cli: dict[str, Any], environ: dict[str, str], table: str, told: str
) -> None:
    file = toml(table)
    assert error_of(load, cli, environ, file).startswith(told.replace("FILE", str(file)))


def test_what_a_block_is_told_is_no_setting() -> None:
    """A hub may run within an engine, or be started by a command of a pool."""
    told = {f"TRIO_HUB_{name}": "4" for name in ("POOL", "ENGINES", "ENGINE_COMMAND", "CONNECTION_FILE", "TIME_LIMIT")}
    config = load({}, told | {"TRIO_HUB_BLOCK": "p-1", "TRIO_HUB_JOB": "7", "TRIO_HUB_ENGINE_BLOCK": "p-1"})
    assert (config.engines, config.engine_command) == (0, ())
    assert load({}, {"TRIO_HUB_ENGINES": "4"}).engines == 4
    assert error_of(load, {}, {"TRIO_HUB_JOB": "7"}).startswith(
        "the environment variable TRIO_HUB_JOB is not a setting"
    )


# The option --pool


@pytest.mark.parametrize(
    ("text", "table"),
    [
        ("name=local,min=0,max=8", {"name": "local", "min": 0, "max": 8}),
        (" name=a , max=1", {"name": "a ", "max": 1}),
        ("name=a,stateless=yes,keep=0,cost=2,parallelism=.5", None),
        ("name=a,tags=gpu", {"name": "a", "tags": ["gpu"]}),
        ("name=a,tags=gpu=2+site=a", {"name": "a", "tags": ["gpu=2", "site=a"]}),
        ('name=a,tags="rate=1e+3 site=a"', {"name": "a", "tags": ["rate=1e+3", "site=a"]}),
        ("name=a,engine_args='--debug --id=1'", {"name": "a", "engine_args": ["--debug", "--id=1"]}),
        ('name=a,start_command="module load a, b"', {"name": "a", "start_command": "module load a, b"}),
        ("name=a,start_command=x\\,y #z", {"name": "a", "start_command": "x,y #z"}),
        (
            """traits.queue=short,traits.timeout=30,traits.x=true,traits.options='["-a","b"]',name=a""",
            {"traits": {"queue": "short", "timeout": 30, "x": True, "options": ["-a", "b"]}, "name": "a"},
        ),
        ("", {}),
        (",,name=a,", {"name": "a"}),
    ],
)
def test_the_text_of_a_pool(text: str, table: dict[str, Any] | None) -> None:
    expected = table or {"name": "a", "stateless": True, "keep": False, "cost": 2.0, "parallelism": 0.5}
    assert parse_pool_text(text) == (expected if text else {})


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("local", "'local' is not written as key=value: write a pool as name=local,min=0,max=8"),
        ("name=a,=3", "'=3' is not written as key=value"),
        ("name=a,name=b", "'name' is given twice: give it once"),
        ("name=a,traits.x=1,traits.x=2", "'traits.x' is given twice: give it once"),
        ("name=a,traits.x=1,traits=2", "traits is given: write each trait as traits.NAME=VALUE"),
        ("name=a,traits=2", "pool a: traits is '2': it must be a table"),
        ("name=a,traits.=2,launcher=slurm,max=1", "pool a: traits is '{\"\": 2}': it must be a table"),
        ("name=a,max=many", "max is 'many': it must be a whole number"),
        ("name=a,cost=much", "cost is 'much': it must be a number"),
        ("name=a,keep=maybe", "keep is 'maybe': it must be true or false"),
        ("name=a,start_command='x", '"name=a,start_command=\'x" has a quotation mark that is not closed'),
        ('name=a,engine_args="\'x"', 'engine_args is "\'x": it must be words as in a shell'),
    ],
)
def test_a_text_that_is_no_pool(text: str, told: str) -> None:
    assert error_of(config_of, text).startswith(f"pools, number 1: {told}")


# The pool of --engines


def test_engines_are_a_pool() -> None:
    assert HubConfig().all_pools == ()
    fixed = Pool(PoolSettings("local", min=3, max=3, backlog=None, tags={"gpu": True, "site": "a"}))
    config = config_of({"name": "p"}, engines=3, engine_tags=("gpu", "site=a"))
    assert config.all_pools == (fixed, *config.pools)
    assert config_of(*config.pools).all_pools == config.pools
    told = error_of(config_of, {"name": "local"}, engines=3)
    assert told.startswith("engines is 3, which is the pool 'local', but pools has a pool of this name, too: leave out")
    told = error_of(HubConfig, engines=2_000_000)
    assert told == "pool local: min is '2000000': it must be a whole number from 0 to 1000000"


@pytest.mark.parametrize(
    ("settings", "names"),
    [
        ({}, ("far", "ours", "ssh")),
        ({"ip": "*"}, ()),
        ({"engine_ip": "10.0.0.1"}, ()),
        ({"ip": "*", "engine_ip": "127.0.0.1"}, ("far", "ours", "ssh")),
        ({"engine_ssh_server": "gate"}, ()),
    ],
)
def test_pools_that_cannot_reach_the_hub(settings: dict[str, Any], names: tuple[str, ...]) -> None:
    far = {"name": "far", "launcher": "slurm", "max": 1}
    ours = {"name": "ours", "launcher": "trio-hub-slurm", "max": 1}
    ssh = {"name": "ssh", "launcher": "ssh", "max": 1}
    mpi = {"name": "mpi", "launcher": "mpi", "max": 1}
    here = {"name": "here", "launcher": "trio-hub", "max": 1}
    command = {"name": "command", "launcher": "command", "max": 1, **COMMANDS}
    tables: Any = [far, ours, {"name": "local"}, ssh, mpi, here, command]
    assert config_of(*tables, **settings).pools_out_of_reach == names


# Whatever is said


plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20) | st.datetimes(),
    lambda parts: st.lists(parts, max_size=3) | st.dictionaries(st.text(max_size=8), parts, max_size=3),
    max_leaves=4,
)
keys = st.sampled_from(POOL_KEYS)
names = st.text("abcXYZ019-_", min_size=1, max_size=40).filter(lambda name: name[0] not in "-_")
texts = st.text("ab1-/. ='$é\n", max_size=8)
lines = texts.map(lambda text: text.replace("\n", ""))
said_tags = st.dictionaries(
    st.text("ab7Gé.", min_size=1, max_size=5), st.floats(0.001, 1e9) | st.just(True) | st.just("a7"), max_size=3
)
jsonable = st.recursive(
    st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=8),
    lambda parts: st.lists(parts, max_size=2) | st.dictionaries(st.text(max_size=3), parts, max_size=2),
    max_leaves=3,
)
usable: dict[str, st.SearchStrategy[Any]] = {
    "min": st.integers(0, 9),
    "engines_per_block": st.integers(1, 5),
    "idle_timeout": st.floats(0.1, 1e6) | st.just("30s"),
    "startup_timeout": st.floats(0.1, 1e6),
    "tags": said_tags,
    "parallelism": st.floats(0.01, 1),
    "stateless": st.booleans(),
    "cost": st.floats(0.01, 100),
    "retry_pause": st.floats(0.1, 100),
    "max_failures": st.integers(1, 20),
    "engine": st.just("trio-hub"),
    "engine_args": st.lists(texts, max_size=2),
    "keep": st.booleans(),
    "python": lines,
    "start_command": texts,
    "stop_command": texts,
    "wrap_command": lines.map(lambda line: line.replace("'", "")),
}
with_queue = {"backlog": st.integers(1, 5), "time_limit": st.integers(1, 10**6) | st.just("1:00:00")}
with_traits = {"traits": st.dictionaries(st.sampled_from(["queue", "timeout", "context"]), jsonable, max_size=2)}
with_commands = {"submit_command": texts.filter(str.strip), "cancel_command": texts.filter(str.strip)}


def tables(launcher: str, required: dict[str, Any], optional: dict[str, Any]) -> st.SearchStrategy[dict[str, Any]]:
    first = {"name": names, "launcher": st.just(launcher), "max": st.integers(15, 99)}
    return st.fixed_dictionaries(first | required, optional=usable | optional)


usable_tables = st.one_of(
    tables("local", {}, {}),
    tables("mpi", {}, with_traits),
    tables("slurm", {}, with_queue | with_traits),
    tables("trio-hub-pbs", {}, with_queue | with_traits),
    tables("command", with_commands, with_queue | {"status_command": texts}),
)


@pytest.mark.property
@given(plain | st.lists(st.dictionaries(keys | st.text(max_size=8), plain, max_size=6), max_size=3))
@example([{"name": "a", "traits": {"x": [1]}, "launcher": "slurm", "max": 1}])
def test_of_any_value_only_config_errors_come(value: Any) -> None:
    told = error_of(read_pools, value, "the source")
    assert told == "" or told.startswith("the source")


@pytest.mark.property
@given(usable_tables)
def test_what_a_pool_shows_is_the_pool(table: dict[str, Any]) -> None:
    """`Pool.as_dict`, which ``config show`` and reports print, is a table of the same pool."""
    pool = parse_pool(table)
    shown = pool.as_dict()
    assert parse_pool(json.loads(json.dumps(shown))) == pool
    assert set(shown) <= set(POOL_KEYS)
    assert list(shown)[:2] == ["name", "launcher"]
    assert hash(pool) == hash(parse_pool(shown))


words = st.one_of(
    st.builds("{}={}".format, keys | st.just("traits.x"), st.text(max_size=6) | st.integers().map(str)),
    st.sampled_from(["name=a", "max=4", "launcher=slurm", "tags=a+b=c", "'", '"', "\\", "#"]),
    st.text(max_size=6),
)


@pytest.mark.property
@given(st.lists(words, max_size=5).map(",".join))
def test_of_any_text_only_config_errors_come(text: str) -> None:
    told = error_of(load, {"pools": (text,)})
    assert told == "" or told.startswith("--pool")


@pytest.mark.property
@given(st.text('[]{}",:1ae.-=', max_size=12))
@example("[" * 100_000)
def test_of_any_variable_only_config_errors_come(text: str) -> None:
    told = error_of(load, {}, {"TRIO_HUB_POOLS": text})
    assert told == "" or told.startswith("TRIO_HUB_POOLS")


def test_the_keys_are_those_of_the_two_classes() -> None:
    both = {entry.name for entry in (*fields(PoolSettings), *fields(Pool))} - {"settings"}
    assert set(POOL_KEYS) == both
    assert len(POOL_KEYS) == len(both)
    assert set(READERS) <= both
