"""``trio-hub report``: one file with what a support request needs, and without secrets."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from ..process import command, run
from .support import invoke, world

KEY = "the-key-that-nobody-may-see"
TOKEN = "the-token-that-nobody-may-see"


def test_of_a_hub_that_runs(tmp_path: Path) -> None:
    profile = tmp_path / "profile"
    env = {
        "TRIO_HUB_KEY": KEY,
        "TRIO_HUB_DASHBOARD_TOKEN": TOKEN,
        "TRIO_HUB_PROFILE_DIR": str(profile),
        "TRIO_HUB_LOG_LEVEL": "debug",
    }
    with command("serve", "--hwm=7", env=env) as hub:
        hub.wait_line("stdout", "^connection files ")
        file = tmp_path / "report.txt"
        code, out, err = run("report", f"--profile-dir={profile}", f"--output={file}", env=env)
        assert (code, out, err) == (0, f"wrote {file}: read it before you send it", "")
        hub.process.terminate()
        assert hub.wait() == 0
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    text = file.read_text("utf-8")
    for part in (
        "== versions\npython: ",
        "== checks\nok ",
        "== settings here\n",
        "\n== hub: settings\n",
        "\nhwm: 7\n",
        "\nkey: hidden\n",
        "\n== hub: statistics\nengines: 0\n",
        "\n== hub: log\n",
        "trio_hub.runtime: hub is listening address=",
    ):
        assert part in text
    assert KEY not in text
    assert TOKEN not in text


async def test_of_a_hub_that_does_not_run(tmp_path: Path) -> None:
    logs = tmp_path / "log"
    logs.mkdir()
    (logs / "engine-0.log").write_text("".join(f"line {number}\n" for number in range(1000)))
    (logs / "engines.json").write_text("{}")
    result = await invoke("report", f"--profile-dir={tmp_path}", "--output=-")
    assert result.exit_code == 0
    assert "== hub\ncannot read the connection file " in result.stdout
    assert f"{logs / 'engine-0.log'}:\n    line 950\n" in result.stdout
    assert "line 999" in result.stdout
    assert "engines.json" not in result.stdout


async def test_json(tmp_path: Path) -> None:
    async with world(tmp_path, db="none") as it:
        told = await it.ask_json("report")
        assert list(told) == [
            *("versions", "checks", "settings here", "sources of settings here"),
            *("hub", "log files"),
        ]
        assert told["sources of settings here"].keys() == told["settings here"].keys()
        assert told["hub"]["statistics"]["engines"] == 1
        assert told["hub"]["status"]["hub"]["kind"] == "trio-hub"


async def test_the_source_of_each_setting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "hub.toml"
    file.write_text("hwm = 3\nping = 2")
    monkeypatch.setenv("TRIO_HUB_CONFIG", str(file))
    monkeypatch.setenv("TRIO_HUB_PING", "1")
    monkeypatch.setenv("TRIO_HUB_RESTORE", "1")
    result = await invoke("report", f"--profile-dir={tmp_path}", "--output=-")
    _, _, text = result.stdout.partition("\n== sources of settings here\n")
    for line in (
        "profile_dir: --profile-dir",
        f"hwm: hwm in {file}",
        "ping: TRIO_HUB_PING",
        "reuse: restore",
        "key: default",
    ):
        assert line in text.partition("\n== ")[0].splitlines()


async def test_a_password_is_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRIO_HUB_DB", "postgresql://ada:sesame@db/tasks")
    result = await invoke("report", f"--profile-dir={tmp_path}", "--output=-")
    assert "db: postgresql://ada:***@db/tasks" in result.stdout
    assert "sesame" not in result.stdout


async def test_a_file_that_cannot_be_written(tmp_path: Path) -> None:
    for output, why in (("/dev/full", "No space left"), (f"{tmp_path}/no/where", "No such file")):
        result = await invoke("report", f"--profile-dir={tmp_path}", f"--output={output}")
        assert result.exit_code == 1
        assert result.stderr.startswith(f"trio-hub: {output} cannot be written: {why}")
        assert not result.stdout
