"""Where there is no hub to ask: one line that names the file and the remedy, and an exit code."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from trio_hub.config.connectionfiles import write_connection_file
from trio_hub.testing import open_hub

from ...runtime.support import within_limit
from .support import invoke

COMMANDS = [
    ["status"],
    ["engines"],
    ["tasks"],
    ["task", "a"],
    ["tail", "a"],
    ["result", "a"],
    ["wait"],
    ["abort", "a"],
    ["cancel", "a"],
    ["drain", "0"],
    ["resubmit", "a"],
    ["purge", "--all", "--yes"],
    ["explain", "a"],
    ["policy"],
    ["tag", "0", "gpu=1"],
    ["pools"],
    ["scale", "local", "4"],
    ["shutdown", "--hub", "--yes"],
    ["top", "--count", "1"],
]


@pytest.mark.parametrize("arguments", COMMANDS, ids=lambda arguments: arguments[0])
async def test_no_file(arguments: list[str], tmp_path: Path) -> None:
    result = await invoke(*arguments, f"--profile-dir={tmp_path}", "--cluster-id=night")
    assert result.exit_code == 3
    assert not result.stdout
    (line,) = result.stderr.splitlines()
    assert line.startswith("trio-hub: cannot read the connection file ")
    assert str(tmp_path / "security" / "ipcontroller-night-client.json") in line
    assert "`trio-hub serve`" in line


async def test_a_file_that_is_damaged(tmp_path: Path) -> None:
    file = tmp_path / "client.json"
    file.write_text("{")
    result = await invoke("status", f"--connection-file={file}")
    assert result.exit_code == 3
    assert f"the connection file {file} is damaged" in result.stderr


async def test_a_file_that_is_something_else_is_not_to_be_removed() -> None:
    result = await invoke("status", "--connection-file=/etc/passwd")
    assert result.exit_code == 3
    assert "the connection file /etc/passwd is damaged" in result.stderr
    assert "or it is some other file. Check the path." in result.stderr
    assert "remove" not in result.stderr


async def test_nobody_listens(tmp_path: Path) -> None:
    file = tmp_path / "client.json"
    async with within_limit(), open_hub() as hub:
        write_connection_file(file, hub.client_info)
    result = await invoke("status", f"--connection-file={file}", "--answer-within=0.2")
    assert result.exit_code == 3
    (line,) = result.stderr.splitlines()
    assert "within 0.2 s" in line
    assert str(file) in line


async def test_nobody_answers(tmp_path: Path) -> None:
    file = tmp_path / "client.json"
    async with within_limit(), open_hub() as hub:
        with socket.create_server(("127.0.0.1", 0)) as silent:
            port = silent.getsockname()[1]
            write_connection_file(file, hub.client_info | {"registration": port})
            result = await invoke("engines", f"--connection-file={file}", "--answer-within=0.2", "--json")
    assert result.exit_code == 3
    assert not result.stdout
    assert f"no answer from tcp://127.0.0.1:{port} within 0.2 s" in result.stderr
