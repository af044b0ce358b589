"""``trio-hub doctor``: what it finds, and what it says to do about it."""

from __future__ import annotations

import json
import socket
import stat
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import trio

from trio_hub.cli.asking import checks
from trio_hub.cli.asking.checks import check_about, check_machine, check_profile, knock_at_ports
from trio_hub.config.connectionfiles import write_connection_file
from trio_hub.runtime.about import about, versions
from trio_hub.testing import open_hub

from ...runtime.support import within_limit
from ..terminal import terminal
from .support import invoke, world


def said(findings: list[dict[str, str]], topic: str) -> list[tuple[str, str]]:
    return [(finding["state"], finding["text"]) for finding in findings if finding["topic"] == topic]


async def test_a_hub_that_is_well(tmp_path: Path) -> None:
    async with world(tmp_path) as it:
        findings = (await it.ask_json("doctor"))["findings"]
        assert {finding["state"] for finding in findings} <= {"ok", "warning"}
        assert said(findings, "ports for clients") == [("ok", "all 7 answer at 127.0.0.1")]
        assert said(findings, "clock") == [("ok", "as the hub's clock")]
        assert said(findings, "engines") == [("ok", "1 registered")]
        ((_, hub),) = said(findings, "hub")
        assert hub.startswith("trio-hub answers at tcp://127.0.0.1:")
        assert {"versions", "open files", "memory", "ipyparallel"} <= {finding["topic"] for finding in findings}
        result = await it.ask("doctor")
        assert result.exit_code == 0
        assert len(result.stdout.splitlines()) == len(findings)
        assert it.hub.statistics().wire_errors == {}, "the hub takes no notice of a knock"


async def test_where_engines_run(tmp_path: Path) -> None:
    async with world(tmp_path) as it:
        file = tmp_path / "ipcontroller-engine.json"
        write_connection_file(file, it.hub.engine_info)
        result = await invoke("doctor", f"--connection-file={file}", "--json")
        assert result.exit_code == 0
        assert said(json.loads(result.stdout)["findings"], "ports for engines") == [("ok", "all 8 answer at 127.0.0.1")]


async def test_a_hub_that_has_ended(tmp_path: Path) -> None:
    file = tmp_path / "client.json"
    async with within_limit(), open_hub() as hub:
        write_connection_file(file, hub.client_info)
    result = await invoke("doctor", f"--connection-file={file}")
    assert result.exit_code == 1
    (line,) = (line for line in result.stdout.splitlines() if line.startswith("problem"))
    assert line.endswith(": nothing listens: the hub has ended, or the file is of another hub")
    assert f"{hub.client_info['registration']} (registration)" in line


async def test_another_program_at_the_port_and_a_firewall(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checks, "KNOCK_LIMIT", 2.0)
    async with within_limit(), open_hub() as hub, trio.open_nursery() as nursery:
        (other,) = await trio.open_tcp_listeners(0, host="127.0.0.1")

        async def speak(stream: trio.SocketStream) -> None:
            await stream.send_all(b"220 mail ready\r\n")

        nursery.start_soon(trio.serve_listeners, speak, [other])
        with socket.create_server(("127.0.0.1", 0)) as silent:  # as behind a firewall: nobody says anything
            info = dict(hub.client_info)
            info |= {"task": other.socket.getsockname()[1], "mux": silent.getsockname()[1]}
            file = tmp_path / "client.json"
            write_connection_file(file, info)
            told = {finding.text for finding in await knock_at_ports(file, info)}
        nursery.cancel_scope.cancel()
    assert any("(task): another program listens there" in text for text in told)
    assert any("(mux): no answer within 2 s: a firewall drops the packets" in text for text in told)


async def test_a_hub_that_listens_only_to_its_own_machine(tmp_path: Path) -> None:
    async with within_limit(), open_hub() as hub:
        file = tmp_path / "client.json"
        info = hub.client_info | {"location": "192.0.2.1"}  # TEST-NET-1, RFC 5737
        write_connection_file(file, info)
        (finding,) = await knock_at_ports(file, info)
        assert finding.state == "problem"
        assert "start it with --ip '*', or use an SSH tunnel" in finding.text


async def test_a_hub_that_is_reached_by_ssh(tmp_path: Path) -> None:
    async with within_limit(), open_hub() as hub:
        file = tmp_path / "client.json"
        info = hub.client_info | {"location": "192.0.2.1", "ssh": "ada@login.example.org"}
        write_connection_file(file, info)
        (finding,) = await knock_at_ports(file, info)
        assert (finding.state, "ada@login.example.org" in finding.text) == ("ok", True)


async def test_a_hub_that_encrypts(tmp_path: Path) -> None:
    async with world(tmp_path, engines=0, curve=True) as it:
        findings = (await it.ask_json("doctor"))["findings"]
        assert said(findings, "ports for clients") == [("ok", "all 7 answer at 127.0.0.1")]
        assert it.hub.statistics().ignored.keys() <= {"handshake_failed"}, "from the check of the ports"


async def test_a_key_that_others_can_read(tmp_path: Path) -> None:
    async with world(tmp_path) as it:
        it.file.chmod(it.file.stat().st_mode | stat.S_IRGRP)
        findings = (await it.ask_json("doctor"))["findings"]
        ((state, text),) = said(findings, "connection file")
        assert state == "warning"
        assert text.endswith(f"(mode 640): chmod 600 {it.file}")


async def test_no_hub_is_no_problem(tmp_path: Path) -> None:
    result = await invoke("doctor", f"--profile-dir={tmp_path / 'new'}", "--json")
    assert result.exit_code == 0
    findings = json.loads(result.stdout)["findings"]
    ((state, text),) = said(findings, "hub")
    assert state == "ok"
    assert str(tmp_path / "new" / "security" / "ipcontroller-client.json") in text
    assert said(findings, "profile")[0][1].endswith("which does not exist yet; `trio-hub serve` creates it")


async def test_ports_of_the_settings_that_are_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("", 0)) as taken:
        port = taken.getsockname()[1]
        monkeypatch.setenv("TRIO_HUB_PORTS", str(port))
        result = await invoke("doctor", f"--profile-dir={tmp_path}")
    assert result.exit_code == 1
    assert f"in use by other programs: {port}. Choose others with --ports" in result.stdout


def test_a_profile_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (finding,) = check_profile(tmp_path / "file" / "profile")
    assert finding.state == "problem"
    assert f"{tmp_path / 'file'} is not a directory" in finding.text


def test_a_profile_on_the_network_and_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checks, "file_system_of", lambda path: "nfs4")
    monkeypatch.setattr(checks, "NO_SPACE", 1 << 62)
    found = {finding.topic: finding for finding in check_profile(tmp_path)}
    assert found["file system"].state == "warning"
    assert "a network file system (nfs4)" in found["file system"].text
    assert found["disk space"].state == "problem"


def test_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checks, "open_files_limit", lambda: 256)
    old = versions() | {"ipyparallel": "8.8.0", "zeromq": "4.3.5, without CURVE"}
    monkeypatch.setattr(checks, "versions", lambda: old)
    found = {finding.topic: finding for finding in check_machine()}
    assert found["open files"].state == "warning"
    assert "enough for a hub with about 19 engines; raise the hard limit" in found["open files"].text
    assert found["ipyparallel"].state == "warning"
    assert found["encryption"].state == "warning"
    old["ipyparallel"] = None
    assert {finding.topic: finding for finding in check_machine()}["ipyparallel"].state == "ok"


@pytest.mark.parametrize(("seconds", "state"), [(0, "ok"), (5, "warning"), (-5, "warning"), (300, "problem")])
async def test_clocks(seconds: float, state: str) -> None:
    async with within_limit(), open_hub() as hub:
        told = about(hub)
    at = datetime.fromisoformat(told["time"]) + timedelta(seconds=seconds)
    clock = next(finding for finding in check_about(told, at, at) if finding.topic == "clock")
    assert clock.state == state
    assert ("NTP" in clock.text) == bool(seconds)


async def test_a_hub_in_trouble() -> None:
    async with within_limit(), open_hub() as hub:
        told: dict[str, Any] = about(hub)
    numbers = told["statistics"]
    numbers["local_engines_missing"] = ["local engine 0 was killed by signal 9"]
    numbers["database"]["last_error"] = "disk full"
    numbers["internal_errors"] = {"query": 2}
    told["versions"]["trio-hub"] = "0.0.1"
    now = datetime.now(UTC)
    found = [(finding.topic, finding.state) for finding in check_about(told, now, now) if finding.state != "ok"]
    assert found == [
        ("hub's version", "warning"),
        ("engines", "warning"),
        ("database", "problem"),
        ("hub's errors", "warning"),
    ]


@pytest.mark.parametrize(("columns", "lines"), [(80, 24), (200, 50)])
async def test_in_a_terminal(tmp_path: Path, columns: int, lines: int) -> None:
    async with world(tmp_path) as it:

        def watch() -> None:
            with terminal("doctor", f"--connection-file={it.file}", columns=columns, lines=lines) as screen:
                screen.wait_for("ports for clients")
                screen.wait_for("engines .*registered")
                assert screen.end() == 0

        await trio.to_thread.run_sync(watch)
