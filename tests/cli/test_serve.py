from __future__ import annotations

import json
import os
import re
import signal
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path
from urllib.request import Request, urlopen

import pytest

from trio_hub.cli import COMMANDS, SYNONYMS
from trio_hub.cli.encryption import in_words
from trio_hub.cli.serve import GROUPS, NOT_OPTIONS
from trio_hub.config import RULES, HubConfig

from .process import LIMIT, command, processes_with, run

CLIENT_KEYS = {
    "registration",
    "control",
    "mux",
    "task",
    "iopub",
    "notification",
    "broadcast",
    "key",
    "interface",
}


def test_it_tells_when_it_is_ready_and_stops_in_order(tmp_path: Path) -> None:
    profile = tmp_path / "profile"
    client_file = profile / "security" / "ipcontroller-client.json"
    engine_file = profile / "security" / "ipcontroller-engine.json"
    with command("serve", f"--profile-dir={profile}") as hub:
        hub.wait_line("stdout", "^connection files ")
        assert hub.stdout == [
            f"trio-hub ready: connect with ipp.Client(profile_dir={str(profile)!r}); "
            "connections are open (not encrypted)",
            f"add engines with: trio-hub engine --profile-dir={profile}",
            f"connection files are in {profile / 'security'}",
        ]
        for file in (client_file, engine_file):
            assert stat.S_IMODE(file.stat().st_mode) == 0o600
        assert json.loads(client_file.read_text()).keys() >= CLIENT_KEYS
        hub.signal(signal.SIGTERM)
        assert hub.wait() == 0
    assert len(hub.stdout) == 3
    assert "Traceback" not in "\n".join(hub.stderr)
    assert list((profile / "security").iterdir()) == []


@pytest.mark.parametrize(("options", "connections"), [(["--ip=*"], "encrypted"), (["--ip=*", "--curve=false"], "open")])
def test_beyond_this_machine_it_encrypts_unless_told_otherwise(
    options: list[str], connections: str, tmp_path: Path
) -> None:
    with command("serve", f"--profile-dir={tmp_path}", *options) as hub:
        hub.wait_line("stdout", f"^trio-hub ready: .*; connections are {re.escape(in_words(connections))}$")
        info = json.loads((tmp_path / "security" / "ipcontroller-client.json").read_text())
        assert (info["curve_serverkey"] is not None) is (connections == "encrypted")
        hub.signal(signal.SIGTERM)
        assert hub.wait() == 0
    assert ("listening without encryption" in "\n".join(hub.stderr)) is (connections == "open")
    assert list((tmp_path / "security").iterdir()) == []


def test_a_dashboard_is_told_on_the_last_line_and_nowhere_else(tmp_path: Path) -> None:
    token = "a-token-of-my-own"
    with command("serve", f"--profile-dir={tmp_path}", "--dashboard=0", env={"TRIO_HUB_DASHBOARD_TOKEN": token}) as hub:
        url = hub.wait_line("stdout", rf"^dashboard: (http://127\.0\.0\.1:\d+/)\?token={token}$")[1]
        with urlopen(Request(f"{url}metrics", headers={"Authorization": f"Bearer {token}"}), timeout=LIMIT) as answer:
            assert b"trio_hub_build_info{" in answer.read()
        hub.signal(signal.SIGTERM)
        assert hub.wait() == 0
    assert [line.split(":")[0].split(" are")[0] for line in hub.stdout] == [
        "trio-hub ready",
        "add engines with",
        "connection files",
        "dashboard",
    ]
    assert token not in "\n".join(hub.stderr)
    assert "Traceback" not in "\n".join(hub.stderr)


def test_a_dashboard_whose_port_is_taken_is_bad_usage(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        code, out, err = run("serve", f"--profile-dir={tmp_path}", f"--dashboard={port}")
    assert code == 2
    assert not out
    assert f"dashboard: cannot listen on 127.0.0.1:{port}: Address already in use" in err
    assert "Traceback" not in err
    assert list((tmp_path / "security").iterdir()) == []


def test_ctrl_c_stops_it_in_order_too(tmp_path: Path) -> None:
    with command("serve", f"--profile-dir={tmp_path}", "--cluster-id=two") as hub:
        hub.wait_line("stdout", r"ipp.Client\(profile_dir='.*', cluster_id='two'\); ")
        hub.wait_line("stdout", r"trio-hub engine --profile-dir=.* --cluster-id=two$")
        assert (tmp_path / "security" / "ipcontroller-two-client.json").exists()
        hub.signal(signal.SIGINT)
        assert hub.wait() == 0
    assert "Traceback" not in "\n".join(hub.stderr)


def test_a_profile_is_found_by_name(tmp_path: Path) -> None:
    with command("serve", "--profile=lab", env={"IPYTHONDIR": str(tmp_path)}) as hub:
        hub.wait_line("stdout", re.escape(f"profile_dir={str(tmp_path / 'profile_lab')!r}"))
        hub.signal(signal.SIGTERM)
        assert hub.wait() == 0


def test_what_engines_print_is_not_on_its_stdout(tmp_path: Path) -> None:
    options = ("--engines=1", "--engine-command=echo from the engine", "--engine-log=inherit")
    with command("serve", f"--profile-dir={tmp_path}", *options) as hub:
        hub.wait_line("stderr", "^from the engine$")
        hub.wait_line("stdout", "^trio-hub ready: ")
        hub.signal(signal.SIGTERM)
        assert hub.wait() == 0
    assert len(hub.stdout) == 3


@pytest.mark.parametrize(("last", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_second_signal_stops_it_at_once(tmp_path: Path, last: signal.Signals, code: int) -> None:
    stubborn = tmp_path / "stubborn.py"
    stubborn.write_text(
        "import signal, sys\n"
        "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "print('ignoring SIGTERM', file=sys.stderr, flush=True)\n"
        "while True: signal.pause()\n"
    )
    with command(
        "serve",
        f"--profile-dir={tmp_path}",
        "--engines=1",
        f"--engine-command={sys.executable} {stubborn}",
        "--engine-log=inherit",
    ) as hub:
        hub.wait_line("stdout", "^trio-hub ready: ")
        hub.wait_line("stderr", "^ignoring SIGTERM")
        hub.signal(signal.SIGTERM)
        hub.wait_line("stderr", "received a signal, stopping signal=SIGTERM$")
        hub.signal(last)
        hub.wait_line("stderr", f"received another signal, stopping at once signal={last.name}$")
        assert hub.wait() == code
    assert processes_with(str(stubborn)) == []
    assert list((tmp_path / "security").iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "env", "message"),
    [
        (["--pnig=3"], {}, "No such option '?--pnig"),
        (["--ping=soon"], {}, "--ping is 'soon': expected a number of seconds, above 0"),
        (["--scheme=best"], {}, "'--scheme': 'best' is not one of 'leastload'"),
        (["--profile=a", "--profile-dir=b"], {}, "--profile and --profile-dir exclude each other"),
        (["--ports=1-x"], {}, "--ports is '1-x': expected ports"),
        (["--config=none.toml"], {}, "--config: cannot read none.toml: No such file"),
        ([], {"TRIO_HUB_PNIG": "3"}, "TRIO_HUB_PNIG is not a setting: did you mean TRIO_HUB_PING"),
        ([], {"TRIO_HUB_HWM": "-1"}, "TRIO_HUB_HWM is -1: expected a whole number, 0 or more"),
        (["--reuse=maybe"], {}, "--reuse is 'maybe': write --reuse or --no-reuse, or give it a value: true or false"),
        (["something"], {}, "unexpected extra argument .something"),
    ],
)
def test_what_cannot_be_used_is_named(tmp_path: Path, arguments: list[str], env: dict[str, str], message: str) -> None:
    code, out, err = run("serve", *arguments, env=env | {"IPYTHONDIR": str(tmp_path)})
    assert code == 2
    assert not out
    assert re.search(message, err), err
    assert list(tmp_path.iterdir()) == []


def test_an_unknown_key_in_the_file_is_named(tmp_path: Path) -> None:
    file = tmp_path / "hub.toml"
    file.write_text("pnig = 3")
    code, _, err = run("serve", "--config", str(file))
    assert code == 2
    assert f"'pnig' in {file} is not a setting: did you mean ping?" in err


def test_an_address_that_is_not_ours_is_bad_usage(tmp_path: Path) -> None:
    code, out, err = run("serve", f"--profile-dir={tmp_path}", "--ip=192.0.2.1")  # TEST-NET-1, RFC 5737
    assert code == 2
    assert not out
    assert "192.0.2.1" in err
    assert "Traceback" not in err


def test_ports_that_are_taken_are_told(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        code, _, err = run("serve", f"--profile-dir={tmp_path}", f"--ports={port}")
    assert code == 2
    assert "ports" in err
    assert "Traceback" not in err


@pytest.mark.parametrize("inside", ["", "profile/deep"])
@pytest.mark.parametrize("options", [["--db=memory"], []])
def test_a_profile_that_is_a_file_is_bad_usage(tmp_path: Path, options: list[str], inside: str) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("not a directory")
    code, out, err = run("serve", f"--profile-dir={blocked / inside}", *options)
    assert code == 2
    assert not out
    last = err.splitlines()[-1]
    assert f"profile_dir is {blocked / inside}, but " in last
    assert "is not a directory: choose a directory, or a path that does not exist yet, with --profile-dir" in last
    assert "Traceback" not in err
    assert blocked.read_text() == "not a directory"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--engines=100000"], r"engines is 100000, but this machine has room for about [\d,]+: "),
        (["--engines=1", "--engine-command=nowhere/at-all --x"], "there is no program nowhere/at-all: give the path"),
        (["--engines=1", "--db=sqlite:////etc/passwd"], "/etc/passwd: not an SQLite database; name another file"),
    ],
    ids=["engines", "command", "database"],
)
def test_what_this_machine_cannot_do_is_told_before_it_is_tried(
    tmp_path: Path, options: list[str], message: str
) -> None:
    code, out, err = run("serve", f"--profile-dir={tmp_path / 'profile'}", *options)
    assert code == 2
    assert not out
    assert re.search(message, err.splitlines()[-1])
    assert "remove" not in err
    assert "Traceback" not in err


@pytest.mark.parametrize(
    "arguments", [["--help"], ["serve", "--help"], ["--version"], ["config", "show"], ["completion", "bash"]]
)
def test_a_full_disk_is_told_in_one_line(arguments: list[str], tmp_path: Path) -> None:
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "trio_hub", *arguments],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            env=os.environ | {"IPYTHONDIR": str(tmp_path)},
            timeout=LIMIT,
        )
    assert done.returncode == 1
    assert done.stderr == "trio-hub: cannot write to stdout: No space left on device\n"


def test_logs_can_be_json(tmp_path: Path) -> None:
    with command("serve", f"--profile-dir={tmp_path}", "--log-format=json", "--log-level=debug") as hub:
        hub.wait_line("stdout", "^trio-hub ready: ")
        hub.signal(signal.SIGTERM)
        assert hub.wait() == 0
    events = [json.loads(line) for line in hub.stderr]
    assert any("limit on open files" in event["message"] for event in events)
    assert {event["level"] for event in events} <= {"debug", "info"}


def test_nobody_needs_to_read_its_output(tmp_path: Path) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    try:
        hub = subprocess.Popen(
            [sys.executable, "-m", "trio_hub", "serve", f"--profile-dir={tmp_path}"],
            stdout=writer,
            stderr=subprocess.PIPE,
            text=True,
        )
    finally:
        os.close(writer)
    with hub:
        assert hub.stderr is not None
        for line in hub.stderr:  # ends, at the latest, when the process does
            if 'cannot write to stdout error="Broken pipe" line="trio-hub ready' in line:
                hub.terminate()
        assert hub.wait(LIMIT) == 0


def test_every_setting_is_an_option_with_its_description() -> None:
    code, out, _ = run("serve", "--help", env={"COLUMNS": "200"})
    assert code == 0
    for entry in fields(HubConfig):
        assert (f"--{entry.name.replace('_', '-')} " in out) == (entry.name not in NOT_OPTIONS)
        is_flag = re.search(rf"/ --no-{entry.name.replace('_', '-')}\s", out) is not None
        assert is_flag == (RULES[entry.name].accepts == "true or false")
    for text in (
        "--keep, --db-keep TIME",
        "--profile NAME",
        "--config FILE.toml",
        "[default: 3.0]",
        "Exit codes:",
        "Examples:",
        "  trio-hub serve --engines 4",
        "130  stopped at once",
    ):
        assert text in out


def test_each_option_is_in_one_group() -> None:
    grouped = [name for names in GROUPS.values() for name in names]
    assert len(set(grouped)) == len(grouped)
    options = {entry.name for entry in fields(HubConfig)} - NOT_OPTIONS
    assert set(grouped) == options | {"config", "profile"}
    for width in ("80", "200"):
        _, out, _ = run("serve", "--help", env={"COLUMNS": width})
        titles = re.findall(r"^(\S.*):$", out, re.MULTILINE)
        assert titles == [*GROUPS, "Other"]
        assert max(map(len, out.splitlines())) <= int(width)


@pytest.mark.parametrize(
    ("arguments", "shown"),
    [
        ("--reuse", "reuse = true  # --reuse"),
        ("--no-reuse", "reuse = false  # --no-reuse"),
        ("--reuse true", "reuse = true  # --reuse"),
        ("--reuse=false", "reuse = false  # --no-reuse"),
        ("--reuse=ON --log-level debug", "reuse = true  # --reuse"),
        ("--force --reuse no", "force = true  # --force"),
        ("--curve 0", "curve = false  # --no-curve"),
        ("--curve", "curve = true  # --curve"),
        ("--dashboard-admin --dashboard 8788", "dashboard_admin = true  # --dashboard-admin"),
    ],
)
def test_flags_with_and_without_values(arguments: str, shown: str, tmp_path: Path) -> None:
    """Scripts and unit files may give these options a value."""
    code, out, err = run("config", "show", *arguments.split(), env={"IPYTHONDIR": str(tmp_path)})
    assert (code, err) == (0, "")
    assert shown in out.splitlines()


def test_a_flag_overrides_the_environment(tmp_path: Path) -> None:
    env = {"IPYTHONDIR": str(tmp_path), "TRIO_HUB_REUSE": "true"}
    assert "reuse = true  # TRIO_HUB_REUSE" in run("config", "show", env=env)[1]
    assert "reuse = false  # --no-reuse" in run("config", "show", "--no-reuse", env=env)[1]


@pytest.mark.parametrize(
    ("word", "proposal"),
    [
        ("statsu", "did you mean 'status'?"),
        ("taks", "did you mean 'tasks' or 'task'?"),
        ("stop", "did you mean 'shutdown'?"),
        ("logs", "did you mean 'tail'?"),
        ("xyzzy", "`trio-hub --help` lists the commands"),
    ],
)
def test_a_command_that_does_not_exist(word: str, proposal: str) -> None:
    code, out, err = run(word, "--help")
    assert (code, out) == (2, "")
    assert err.splitlines()[-1] == f"Error: there is no command {word!r}: {proposal}"


def test_other_words_for_commands_are_true() -> None:
    assert set(SYNONYMS.values()) <= set(COMMANDS)
    assert not set(SYNONYMS) & set(COMMANDS)


@pytest.mark.parametrize("arguments", [["--version"], ["serve", "--version"]])
def test_the_version_is_told(arguments: list[str]) -> None:
    from trio_hub import __version__

    assert run(*arguments) == (0, f"trio-hub, version {__version__}", "")


def test_ipcontroller_tells_the_version_that_scripts_expect_of_it() -> None:
    """Only the version is printed, as ipcontroller does. Scripts compare it with ipyparallel's version."""
    assert run("ipcontroller", "--version") == (0, "9.2.0", "")


def test_the_list_of_commands_is_true() -> None:
    code, out, _ = run("--help")
    assert code == 0
    for name in re.findall(r"^  ([a-z]\S*)  ", out.partition("Commands:")[2], re.MULTILINE):
        assert run(name, "--help")[0] == 0


# Terminals, and where its output goes


@contextmanager
def children_start_with(action: signal.Handlers) -> Iterator[None]:
    """Set the action of SIGHUP that processes inherit. The tests themselves may run under nohup."""
    before = signal.signal(signal.SIGHUP, action)
    try:
        yield
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_closed_terminal_stops_it_in_order(tmp_path: Path) -> None:
    with children_start_with(signal.SIG_DFL), command("serve", f"--profile-dir={tmp_path}") as hub:
        hub.wait_line("stdout", "^trio-hub ready: ")
        hub.signal(signal.SIGHUP)
        hub.signal(signal.SIGHUP)
        assert hub.wait() == 0
    assert "received a signal, stopping signal=SIGHUP" in "\n".join(hub.stderr)
    assert "at once" not in "\n".join(hub.stderr)
    assert list((tmp_path / "security").iterdir()) == []


def test_with_nohup_a_closed_terminal_is_no_reason_to_stop(tmp_path: Path) -> None:
    with children_start_with(signal.SIG_IGN), command("serve", f"--profile-dir={tmp_path}") as hub:
        hub.wait_line("stdout", "^trio-hub ready: ")
        hub.signal(signal.SIGHUP)
        hub.signal(signal.SIGTERM)
        assert hub.wait() == 0
    assert "SIGHUP" not in "\n".join(hub.stderr)


@pytest.mark.parametrize("encoding", ["ascii", "ascii:strict", "latin-1", "utf-8"])
@pytest.mark.parametrize("name", ["Köln", "東京", "\udcff"], ids=["umlaut", "kanji", "no text"])
def test_it_can_print_any_path_in_any_encoding(encoding: str, name: str, tmp_path: Path) -> None:
    profile = tmp_path / name
    program = [sys.executable, "-m", "trio_hub", "serve", f"--profile-dir={profile}", "--log-level=error"]
    with subprocess.Popen(
        program, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=os.environ | {"PYTHONIOENCODING": encoding}
    ) as hub:
        assert hub.stdout is not None
        assert hub.stderr is not None
        assert hub.stdout.readline().startswith(b"trio-hub ready: connect with ")
        hub.terminate()
        assert hub.stderr.read() == b""
        assert hub.wait(LIMIT) == 0


@pytest.mark.parametrize(
    "redirections", ["", ">&-", "2>&-", ">&- 2>&- <&-", ">/dev/full", "2>/dev/full", ">/dev/full 2>/dev/full"]
)
def test_it_serves_wherever_its_output_goes(redirections: str, tmp_path: Path) -> None:
    """The text that engines write to stderr goes into none of the hub's files, either."""
    run_it = f"exec {sys.executable} -m trio_hub serve --profile-dir={tmp_path} --engines=1 {redirections}"
    engine = f"{sys.executable} -c 'import os, time; os.write(2, b\"from the engine\"); time.sleep(1000)'"
    client_file = tmp_path / "security" / "ipcontroller-client.json"
    with subprocess.Popen(
        ["sh", "-c", run_it],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=os.environ | {"TRIO_HUB_ENGINE_COMMAND": engine, "TRIO_HUB_ENGINE_LOG": "inherit"},
    ) as hub:
        try:
            deadline = time.monotonic() + LIMIT
            while not client_file.exists():
                assert hub.poll() is None
                assert time.monotonic() < deadline
            for descriptor in range(3):
                assert os.readlink(f"/proc/{hub.pid}/fd/{descriptor}").startswith(("/dev/", "pipe:"))
        finally:
            hub.terminate()
            assert hub.wait(LIMIT) == 0
