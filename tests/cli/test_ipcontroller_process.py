"""``trio-hub ipcontroller`` and ``trio-hub config show`` as processes."""

from __future__ import annotations

import json
import re
import signal
import tomllib
from pathlib import Path

import pytest

from trio_hub.cli.encryption import in_words
from trio_hub.cli.ipcontroller import VERSION

from .process import command, run

NOTHING_DONE = "these settings have no effect here: "


@pytest.fixture
def home(tmp_path: Path) -> dict[str, str]:
    return {"IPYTHONDIR": str(tmp_path)}


@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGTERM])
def test_it_serves_and_stops_as_serve_does(tmp_path: Path, home: dict[str, str], stop: signal.Signals) -> None:
    security = tmp_path / "profile_lab" / "security"
    with command("ipcontroller", "--profile=lab", "--cluster-id", "two", "--ping", "1000", env=home) as hub:
        hub.wait_line("stdout", "^trio-hub ready: ")
        files = {path.name for path in security.iterdir()}
        assert files == {"ipcontroller-two-client.json", "ipcontroller-two-engine.json", "seen-two"}
        hub.signal(stop)
        assert hub.wait() == 0
    assert list(security.iterdir()) == []
    assert NOTHING_DONE not in "\n".join(hub.stderr)


@pytest.mark.parametrize(
    ("options", "connections"), [([], "open"), (["--IPController.enable_curve=True"], "encrypted")]
)
def test_beyond_this_machine_it_encrypts_if_asked_and_warns_if_not(
    options: list[str], connections: str, home: dict[str, str]
) -> None:
    with command("ipcontroller", "--ip=*", *options, env=home) as hub:
        hub.wait_line("stdout", f"^trio-hub ready: .*; connections are {re.escape(in_words(connections))}$")
        hub.signal(signal.SIGTERM)
        assert hub.wait() == 0
    assert ("listening without encryption" in "\n".join(hub.stderr)) is (connections == "open")


def test_launchers_choose_by_the_environment(tmp_path: Path) -> None:
    variables = {"IPP_PROFILE_DIR": str(tmp_path / "p"), "IPP_CLUSTER_ID": "x", "IPP_SESSION_KEY": "sesame"}
    with command("ipcontroller", env=variables) as hub:
        hub.wait_line("stdout", "^trio-hub ready: ")
        info = json.loads((tmp_path / "p" / "security" / "ipcontroller-x-client.json").read_text())
        assert info["key"] == "sesame"
        hub.signal(signal.SIGTERM)
        assert hub.wait() == 0


def test_it_warns_once_of_all_that_it_does_not_do(home: dict[str, str]) -> None:
    with command("ipcontroller", "--usethreads", "--pnig=3", "--hwm=2", env=home) as hub:
        hub.wait_line("stdout", "^trio-hub ready: ")
        hub.signal(signal.SIGTERM)
        assert hub.wait() == 0
    (line,) = (line for line in hub.stderr if NOTHING_DONE in line)
    assert " WARNING " in line
    assert "--usethreads: " in line
    assert "did you mean --ping?" in line
    assert "--hwm" not in line


def test_it_logs_to_a_file_and_works_where_it_is_told(tmp_path: Path, home: dict[str, str]) -> None:
    logs = tmp_path / "profile_default" / "log"
    logs.mkdir(parents=True)
    for name in ("ipcontroller--1.log", "ipcontroller-1.err", "ipcontroller-other-1.log", "mine.log"):
        (logs / name).touch()
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    arguments = ("--log-to-file", "--clean-logs=True", f"--work-dir={elsewhere}", "--debug", "--usethreads")
    with command("ipcontroller", *arguments, env=home) as hub:
        hub.wait_line("stdout", "^trio-hub ready: ")
        assert Path(f"/proc/{hub.process.pid}/cwd").resolve() == elsewhere
        hub.signal(signal.SIGTERM)
        assert hub.wait() == 0
    file = logs / f"ipcontroller--{hub.process.pid}.log"
    assert hub.stderr == [f"Sending logs to {file}"]
    assert {path.name for path in logs.iterdir()} == {"ipcontroller-other-1.log", "mine.log", file.name}
    text = file.read_text()
    assert NOTHING_DONE in text
    assert "received a signal, stopping signal=SIGTERM" in text


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--mongodb"], "Error: --mongodb is 'MongoDB', .* an SQLite file .*, PostgreSQL"),
        (["--ping=soon"], "Error: --ping is 'soon': expected a whole number"),
        (["--work-dir=/nowhere/at/all"], "Error: .*No such file or directory: '/nowhere/at/all'"),
        (
            ["--IPController.auto_create=False", "--profile=lab"],
            "auto_create is False, and .*profile_lab does not exist",
        ),
    ],
)
def test_what_cannot_be_used_ends_it(home: dict[str, str], arguments: list[str], message: str) -> None:
    code, out, err = run("ipcontroller", *arguments, env=home)
    assert code == 2
    assert not out
    assert re.search(message, err), err
    assert "Traceback" not in err


@pytest.mark.parametrize("option", ["-h", "--help", "--help-all", "help"])
def test_its_help_tells_what_becomes_of_every_option_and_trait(option: str) -> None:
    from trio_hub.cli.traits import ALIASES, FLAGS, TRAITS

    code, out, _ = run("ipcontroller", option, env={"COLUMNS": "200"})
    assert code == 0
    for name in (*ALIASES, *FLAGS, *TRAITS):
        assert re.search(rf"^ +--{re.escape(name)}[ =]", out, re.MULTILINE), name
    assert "did you mean" not in out


@pytest.mark.parametrize("option", ["-V", "--version"])
def test_its_version_is_that_of_what_it_stands_in_for(option: str) -> None:
    assert run("ipcontroller", option) == (0, VERSION, "")
    assert run("config", "show", option) == run("--version")


# trio-hub config show


def test_every_setting_is_shown_with_its_source(tmp_path: Path, home: dict[str, str]) -> None:
    file = tmp_path / "hub.toml"
    file.write_text('scheme = "lru"\ncluster_id = "file"\nengine_command = ["a b", "c"]\nping = 7')
    variables = {"TRIO_HUB_HWM": "4", "IPP_CLUSTER_ID": "two", "IPP_SESSION_KEY": "sesame", "TRIO_HUB_PING": "8"}
    code, out, err = run("config", "show", "--ping=9", "--profile=lab", f"--config={file}", env=home | variables)
    assert (code, err) == (0, "")
    for line in (
        f'profile_dir = "{tmp_path}/profile_lab"  # --profile',
        f'scheme = "lru"  # scheme in {file}',
        'cluster_id = "two"  # IPP_CLUSTER_ID',
        "hwm = 4  # TRIO_HUB_HWM",
        "ping = 9.0  # --ping",
        "# key is hidden  # IPP_SESSION_KEY",
        'location = ""  # default',
        f'engine_command = ["a b", "c"]  # engine_command in {file}',
        "# registration_timeout is not set  # default",
    ):
        assert line in out.splitlines()
    assert "sesame" not in out
    shown = tmp_path / "shown.toml"
    shown.write_text(out)
    code, again, _ = run("config", "show", f"--config={shown}", env=home | {"IPP_SESSION_KEY": "sesame"})
    assert code == 0
    assert tomllib.loads(again) == tomllib.loads(out)
    assert {path.name for path in tmp_path.iterdir()} == {"hub.toml", "shown.toml"}


@pytest.mark.parametrize(
    ("arguments", "line", "value"),
    [
        ([], "# curve is not set: encryption is off, since only this machine reaches the hub  # default", False),
        (["--ip=*"], "# curve is not set: encryption is on, since the hub listens on *  # default", True),
        (
            ["--ip=10.0.0.1", "--client-ip=lo", "--reuse=true"],
            "# curve is not set: encryption is on, since the hub listens on 10.0.0.1; "
            "existing connection files take precedence  # default",
            True,
        ),
        (["--ip=*", "--curve=false"], "curve = false  # --no-curve", False),
        (["--ipcontroller", "--ip=*"], "curve = false  # default", False),
    ],
)
def test_whether_connections_will_be_encrypted_is_shown(
    arguments: list[str], line: str, value: bool, home: dict[str, str]
) -> None:
    code, out, _ = run("config", "show", *arguments, env=home)
    assert code == 0
    assert line in out.splitlines()
    if arguments[:1] == ["--ipcontroller"]:
        _, out, _ = run("ipcontroller", *arguments[1:], "--show-config-json", env=home)
        assert json.loads(out)["curve"] == {"value": value, "from": "default"}


def test_ten_traits_of_a_file_are_shown_and_the_misspelt_one_is_named(tmp_path: Path, home: dict[str, str]) -> None:
    profile = tmp_path / "profile_lab"
    profile.mkdir()
    file = profile / "ipcontroller_config.py"
    traits = {
        "IPController.ip": ("'10.0.0.1'", "ip", "10.0.0.1"),
        "IPController.location": ("'head'", "location", "head"),
        "IPController.ports": ("'10101-10103'", "ports", [10101, 10102, 10103]),
        "IPController.ssh_server": ("'me@gate'", "ssh_server", "me@gate"),
        "IPController.db_class": ("'NoDB'", "db", "none"),
        "HeartMonitor.period": ("2500", "ping", 2.5),
        "HeartMonitor.max_heartmonitor_misses": ("5", "max_heartmonitor_misses", 5),
        "TaskScheduler.scheme_name": ("'weighted'", "scheme", "weighted"),
        "TaskScheduler.hwm": ("3", "hwm", 3),
        "DictDB.size_limit": ("2**20", "db_max_bytes", 2**20),
        "Application.log_level": ("'DEBUG'", "log_level", "debug"),
    }
    lines = [f"c.{name} = {text}" for name, (text, _, _) in traits.items()]
    file.write_text("\n".join(["c = get_config()", *lines, "c.TaskScheduler.hmw = 4"]))
    code, out, err = run("config", "show", "--ipcontroller", "--profile=lab", env=home)
    assert code == 0
    shown = tomllib.loads(out)
    for name, (_, setting, value) in traits.items():
        assert shown[setting] == value
        assert re.search(rf"^{setting} = .*  # {re.escape(f'{name} in {file}')}$", out, re.MULTILINE)
    assert err == (
        f"Warning: {NOTHING_DONE}TaskScheduler.hmw in {file}: ipcontroller has no such trait; "
        "did you mean TaskScheduler.hwm?"
    )
    assert [path.name for path in profile.iterdir()] == [file.name]


def test_what_the_process_does_is_shown_too(tmp_path: Path, home: dict[str, str]) -> None:
    code, out, err = run("config", "show", "--ipcontroller", "--log-to-file", "--restore", env=home)
    assert (code, err) == (0, "")
    assert "# log_to_file: True  # --log-to-file" in out.splitlines()
    assert "restore = true  # --restore" in out.splitlines()
    assert "reuse = true  # --restore" in out.splitlines()


def test_ipcontroller_shows_its_settings_itself(home: dict[str, str]) -> None:
    code, out, _ = run("ipcontroller", "--show-config", "--hwm=3", env=home)
    assert code == 0
    assert "hwm = 3  # --hwm" in out.splitlines()
    code, out, _ = run("ipcontroller", "--show-config-json", "--hwm=3", "--Session.key=sesame", env=home)
    assert code == 0
    shown = json.loads(out)
    assert shown["hwm"] == {"value": 3, "from": "--hwm"}
    assert shown["key"] == {"value": "hidden", "from": "--Session.key"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--ping=soon"], "--ping is 'soon'"),
        (["--pnig=3"], "No such option '?--pnig"),
        (["--ipcontroller", "--ping=soon"], "--ping is 'soon': expected a whole number"),
        (["--ping=3", "--ipcontroller"], "--ping=3 stands before --ipcontroller"),
    ],
)
def test_settings_that_cannot_be_used_are_not_shown(home: dict[str, str], arguments: list[str], message: str) -> None:
    code, out, err = run("config", "show", *arguments, env=home)
    assert code == 2
    assert not out
    assert re.search(message, err), err
