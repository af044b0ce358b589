"""The output of local engines: in files of their own, bounded, and named when an engine has died."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest
import trio

from trio_hub import ConfigError, HubConfig
from trio_hub.runtime import children, enginelogs
from trio_hub.runtime.children import LocalEngines
from trio_hub.runtime.enginelogs import EngineLogs, engine_logs
from trio_hub.runtime.places import SavedProcess
from trio_hub.runtime.processes import start_time
from trio_hub.testing import open_hub

from .support import eventually, within_limit

SAYS = (sys.executable, "-c", "import os; os.write(1, b'to stdout\\n'); os.write(2, b'to stderr\\n'); os._exit(3)")


def write(logs: EngineLogs, number: int, text: bytes) -> None:
    with logs.output(number) as output:
        os.write(output, text)


def test_each_engine_has_a_file_that_only_its_owner_reads(tmp_path: Path) -> None:
    logs = EngineLogs("file", tmp_path / "log")
    for text in (b"one ", b"two"):
        write(logs, 3, text)
    path = tmp_path / "log" / "engine-3.log"
    assert logs.path(3) == path
    assert path.read_bytes() == b"one two", "the output is appended"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_large_file_is_put_aside_at_a_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(enginelogs, "ROTATED_ABOVE", 3)
    logs = EngineLogs("file", tmp_path)
    for text in (b"1", b"2345", b"6789", b"x"):
        write(logs, 0, text)
    assert (tmp_path / "engine-0.log").read_bytes() == b"x"
    assert (tmp_path / "engine-0.log.1").read_bytes() == b"6789"


def test_where_the_output_goes(tmp_path: Path) -> None:
    assert engine_logs(HubConfig()).path(0) is None
    assert engine_logs(HubConfig(profile_dir=tmp_path)).path(0) == tmp_path / "log" / "engine-0.log"
    assert engine_logs(HubConfig(profile_dir=tmp_path, cluster_id="a")).path(1) == tmp_path / "log" / "engine-a-1.log"
    for where, output in (("none", subprocess.DEVNULL), ("inherit", 2)):
        logs = engine_logs(HubConfig(profile_dir=tmp_path, engine_log=where))
        assert logs.path(0) is None
        with logs.output(0) as given:
            assert given == output
    with pytest.raises(ConfigError, match="engine_log is file, but no profile_dir is set"):
        HubConfig(engine_log="file")


def test_an_engine_starts_although_its_file_cannot_be_opened(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "log").write_text("in the way of the directory")
    with engine_logs(HubConfig(profile_dir=tmp_path)).output(0) as output:
        assert output == 2
    assert "cannot open the log file of a local engine" in caplog.text


async def test_the_message_of_a_death_names_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(children, "FIRST_PAUSE", 0.02)
    path = tmp_path / "log" / "engine-0.log"
    async with within_limit(), open_hub(HubConfig(profile_dir=tmp_path, engines=1, engine_command=SAYS)):
        await eventually(lambda: caplog.text.count(f"engine_log={path}") >= 2)
    assert path.read_text().startswith("to stdout\nto stderr\n" * 2)


async def test_an_engine_of_the_hub_before_keeps_its_number(tmp_path: Path) -> None:
    """The engine goes on writing its output to the file with this number."""
    process = await trio.lowlevel.open_process(["sleep", "1000"])
    started = start_time(process.pid)
    assert started is not None
    try:
        for number, wanted, path in ((1, 1, tmp_path / "engine-1.log"), (7, 0, None), (None, 0, None)):
            engines = LocalEngines(2, {}, command=SAYS, logs=EngineLogs("file", tmp_path))
            engines.adopt({process.pid: SavedProcess(started, None, number)})
            (place,) = (place for place in engines._places if place.pid is not None)
            assert (place.number, place.log) == (wanted, path)
            assert place.adopted is not None
            os.close(place.adopted)
    finally:
        process.kill()
        await process.wait()
