"""What commands show in terminals of 80 by 24 and of 200 by 50 characters. Tables have tests of their own."""

from __future__ import annotations

import re
import signal
from pathlib import Path

import pytest
import trio

from trio_hub.cli.serve import GROUPS

from .asking.support import world
from .terminal import terminal

pytestmark = pytest.mark.parametrize(("columns", "lines"), [(80, 24), (200, 50)])


def shown(*arguments: str, columns: int, lines: int, code: int = 0) -> list[str]:
    """Run a command in a terminal until it ends, and return the lines that it shows."""
    with terminal(*arguments, columns=columns, lines=lines) as screen:
        assert screen.end() == code, screen.seen
        return screen.seen.splitlines()


@pytest.mark.parametrize("command", ["", "serve", "tasks", "task", "tail", "top", "doctor"])
def test_help_fits(command: str, columns: int, lines: int) -> None:
    seen = shown(*command.split(), "--help", columns=columns, lines=lines)
    assert max(map(len, seen)) <= columns
    assert seen[0].startswith(f"Usage: trio-hub {command}".rstrip())
    assert any("Example" in line or line == "Commands:" for line in seen)
    if command == "serve":
        assert [line[:-1] for line in seen if re.fullmatch(r"[A-Z].*:", line) and line[:-1] in GROUPS] == list(GROUPS)


def test_a_proposal_for_a_misspelt_command_is_one_line(columns: int, lines: int) -> None:
    assert shown("taks", columns=columns, lines=lines, code=2)[-1] == (
        "Error: there is no command 'taks': did you mean 'tasks' or 'task'?"
    )


def test_a_hub_that_is_ready_shows_three_whole_lines(tmp_path: Path, columns: int, lines: int) -> None:
    profile = tmp_path / ("a-long-name-" * 6)
    with terminal("serve", f"--profile-dir={profile}", "--log-level=error", columns=columns, lines=lines) as screen:
        screen.wait_for(re.escape(f"trio-hub ready: connect with ipp.Client(profile_dir={str(profile)!r})"))
        screen.wait_for(rf"add engines with: .*trio-hub engine --profile-dir={re.escape(str(profile))}\r\n")
        screen.wait_for(rf"connection files are in {re.escape(str(profile / 'security'))}\r\n")
        screen.process.send_signal(signal.SIGTERM)
        assert screen.end() == 0


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        (("status", "--connection-file=/etc/passwd"), 3, "/etc/passwd is damaged"),
        (("serve", "--profile-dir=/etc/passwd"), 2, "choose a directory, or a path that does not exist yet"),
        (("serve", "--profile-dir=none", "--engines=100000"), 2, "Start fewer engines here"),
    ],
)
def test_an_error_is_shown_whole_and_proposes_nothing_dangerous(
    arguments: tuple[str, ...], code: int, told: str, columns: int, lines: int
) -> None:
    seen = shown(*arguments, columns=columns, lines=lines, code=code)
    assert told in seen[-1], "the terminal wraps the line, not the command"
    text = "\n".join(seen)
    assert "remove" not in text
    assert "Traceback" not in text


async def test_the_state_of_a_hub_and_of_a_request(tmp_path: Path, columns: int, lines: int) -> None:
    async with world(tmp_path) as it:
        it.engines[0].hold()
        runs = it.submit(pow, 1, 1)
        await it.engines[0].wait_requests(1)
        queued = it.submit(pow, 1, 1, label="tides " * 50)
        waiting = it.submit(pow, 1, 1, after=[runs])
        await it.client.query("connection_request")
        told: dict[str, str] = {}

        def look(*arguments: str) -> None:
            seen = shown(*arguments, f"--connection-file={it.file}", columns=columns, lines=lines)
            told[arguments[-1]] = "\n".join(seen)

        async with trio.open_nursery() as nursery:
            for arguments in (("status",), ("engines",), ("task", queued), ("task", waiting), ("tasks",)):
                nursery.start_soon(trio.to_thread.run_sync, look, *arguments)
        assert "engines     1: 1 busy, 0 idle\nunassigned  2 queued, waiting or paused\n" in told["status"]
        assert re.search(r"^ *0 +busy ", told["engines"], re.MULTILINE)
        assert "state       queued\nwaits       no free engine: all engines are busy" in told[queued]
        assert f"label       {('tides ' * 50).strip()}" in told[queued]
        assert f"state       waiting\nwaits       it depends on {runs}\n" in told[waiting]
        assert max(map(len, told["tasks"].splitlines())) <= columns
        assert re.findall(r" (running|queued|waiting) ", told["tasks"]) == ["running", "queued", "waiting"]
        it.engines[0].release()
