"""The command line of ``trio-hub engine`` is that of ``ipengine``."""

from __future__ import annotations

from pathlib import Path

import pytest
from ipyparallel.engine import app as stock

from trio_hub.cli.engine import EPILOG
from trio_hub.engine.nanny import main
from trio_hub.engine.options import ALIASES, TRAITS, OptionError, parse_options
from trio_hub.engine.stock import block_of, new_uuid
from trio_hub.wire.blocks import block_in


@pytest.mark.parametrize(
    ("line", "name", "value"),
    [
        ("--profile=slurm", "profile", "slurm"),
        ("--profile-dir /tmp/p", "profile_dir", "/tmp/p"),
        ("--profile_dir=/tmp/p", "profile_dir", "/tmp/p"),
        ("--cluster-id=x", "cluster_id", "x"),
        ("--IPEngine.cluster_id=x", "cluster_id", "x"),
        ("--BaseParallelApplication.cluster_id=x", "cluster_id", "x"),
        ("--file=f.json", "file", "f.json"),
        ("--EngineFactory.url_file=f.json", "file", "f.json"),
        ("--timeout=30", "timeout", 30.0),
        ("--IPEngine.timeout=0.5", "timeout", 0.5),
        ("--IPEngine.id=7", "id", 7),
        ("--id=7", "id", 7),
        ("-c 1+1", "startup_command", "1+1"),
        ("-s start.py", "startup_script", "start.py"),
        ("--log-level=10", "log_level", "DEBUG"),
        ("--log-level=warning", "log_level", "WARNING"),
        ("--debug", "log_level", "DEBUG"),
        ("--mpi", "mpi", True),
        ("--ssh=me@gate", "ssh", "me@gate"),
        ("--IPEngine.max_heartbeat_misses=3", "max_heartbeat_misses", 3),
        ("--IPEngine.enable_nanny=False", "nanny", False),
        ("--log-to-file", "log_to_file", True),
        ("--log-to-file=False", "log_to_file", False),
        ("--help", "help", True),
        ("--block=slurm-1f2e3d4c", "block", "slurm-1f2e3d4c"),
        ("--Engine.block=x", "block", "x"),
    ],
)
def test_what_each_option_says(line: str, name: str, value: object) -> None:
    assert getattr(parse_options(line.split(), {}), name) == value


@pytest.mark.parametrize("line", ["--nonsense=1", "stray", "--timeout=soon", "--id=x", "--timeout", "--log-level=loud"])
def test_what_cannot_be_used_is_named(line: str) -> None:
    with pytest.raises(OptionError, match=line.split("=")[0]):
        parse_options([line], {})


def test_what_does_not_apply_is_noted() -> None:
    options = parse_options(["--IPEngine.out_stream_factory=x", "--log-url=tcp://x", "--Session.packer=json"], {})
    assert options.unused == ["--IPEngine.out_stream_factory", "--log-url", "--Session.packer"]


def test_the_environment_counts_less_than_the_command_line() -> None:
    environ = {"IPP_CLUSTER_ID": "env", "IPP_PROFILE_DIR": "/env", "IPP_CONNECTION_INFO": "{}"}
    options = parse_options(["--cluster-id=line"], environ)
    assert (options.cluster_id, options.profile_dir, options.connection_info) == ("line", "/env", "{}")


def test_paths_may_begin_at_home() -> None:
    assert parse_options(["--work-dir=~/x"], {}).work_dir == str(Path.home() / "x")


def test_every_option_of_the_stock_engine_is_known() -> None:
    """Each alias and flag of ipengine is done, or named as one that does not apply; none is an error."""
    for alias in stock.aliases:
        value = "20" if alias == "log-level" else "1"
        parse_options([f"--{alias}={value}"], {})
    for flag in stock.flags:
        parse_options([f"--{flag}"], {})


def test_every_trait_is_one_of_the_stock_engine() -> None:
    stock_traits = {
        f"{cls.__name__}.{name}" for cls in stock.IPEngine.mro() for name in getattr(cls, "class_own_traits", dict)()
    }
    assert {name for name in TRAITS if not name.startswith(("ProfileDir.", "Nanny.", "Engine."))} <= stock_traits
    assert {*ALIASES.values()} <= {*TRAITS}


def test_the_help_names_the_exit_code_for_a_bad_option(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["--nonsense"])
    assert "nonsense" in capsys.readouterr().err
    (line,) = [line for line in EPILOG.splitlines() if "option cannot be used" in line]
    assert line.split()[0] == str(ended.value.code)


def test_the_block_is_in_the_environment_or_on_the_command_line() -> None:
    environ = {"TRIO_HUB_ENGINE_BLOCK": "env"}
    assert parse_options([], environ).block == "env"
    assert parse_options(["--block=line"], environ).block == "line"
    for environ in ({"TRIO_HUB_ENGINE_BLOCK": "two words"}, {"TRIO_HUB_ENGINE_BLOCK": "x" * 101}):
        with pytest.raises(OptionError, match="TRIO_HUB_ENGINE_BLOCK cannot be"):
            parse_options([], environ)


def test_the_module_for_stock_engines_takes_the_block_and_leaves_everything_else() -> None:
    others = ["--profile=p", "-c", "1+1", "--debug"]
    for given in (["--block=a"], ["--block", "a"], ["--Engine.block=a"]):
        assert block_of([*others[:1], *given, *others[1:]], {"TRIO_HUB_ENGINE_BLOCK": "env"}) == ("a", others)
    assert block_of(others, {"TRIO_HUB_ENGINE_BLOCK": "env"}) == ("env", others)
    assert block_of(others, {}) == ("", others)
    for wrong in (["--block"], ["--block="], ["--block=two words"]):
        with pytest.raises(OptionError, match="--block"):
            block_of(wrong, {})
    first, second = new_uuid("a:b"), new_uuid("a:b")
    assert first != second
    assert block_in(first) == "a:b"
