"""``trio-hub tail``: the output of one request, while it runs."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import trio

from trio_hub.cli.asking.tail import Cleaner

from ..process import command
from ..terminal import terminal
from .support import World, world


async def run_printing(it: World, text: str) -> str:
    """Run a task that writes this text to stdout to its end, and return its msg_id."""
    it.engines[0].hold()
    msg_id = it.submit(pow, 2, 3)
    (request,) = await it.engines[0].wait_requests(1)
    request.print(text)
    it.engines[0].release()
    await it.client.reply(msg_id)
    return msg_id


async def test_output_comes_while_the_request_runs(tmp_path: Path) -> None:
    async with world(tmp_path) as it:
        it.engines[0].hold()
        msg_id = it.submit(pow, 2, 3)
        (request,) = await it.engines[0].wait_requests(1)
        with command("tail", msg_id, f"--connection-file={it.file}") as tail:
            request.print("half \x1b[31mway\x1b[0m\n")
            await trio.to_thread.run_sync(tail.wait_line, "stdout", "^half \x1b\\[31mway\x1b\\[0m$")
            request.print("nearly\n")
            await trio.to_thread.run_sync(tail.wait_line, "stdout", "^nearly$")
            it.engines[0].release()
            assert await trio.to_thread.run_sync(tail.wait) == 0
        assert tail.stdout == ["half \x1b[31mway\x1b[0m", "nearly"]
        assert tail.stderr == []


async def test_a_request_that_waits_says_why(tmp_path: Path) -> None:
    async with world(tmp_path) as it:
        it.engines[0].hold()
        it.submit(pow, 1, 1)
        await it.engines[0].wait_requests(1)
        waits = it.submit(pow, 2, 3)
        with command("tail", waits, f"--connection-file={it.file}") as tail:
            await trio.to_thread.run_sync(
                tail.wait_line, "stderr", "^trio-hub: not started yet: no free engine: all engines"
            )
            it.engines[0].release()
            assert await trio.to_thread.run_sync(tail.wait) == 0
        assert tail.stderr[0].startswith("trio-hub: not started yet: no free engine")
        assert tail.stdout == []


async def test_a_request_that_fails(tmp_path: Path) -> None:
    async with world(tmp_path) as it:
        msg_id = await it.run(divmod, 1, 0)
        result = await it.ask("tail", msg_id)
        assert result.exit_code == 1
        assert result.stderr == "trio-hub: ZeroDivisionError: integer division or modulo by zero\n"
        failed = await it.ask("tail", msg_id, "--json")
        assert failed.exit_code == 1
        assert json.loads(failed.stdout)["error"]["ename"] == "ZeroDivisionError"


async def test_json(tmp_path: Path) -> None:
    async with world(tmp_path) as it:
        msg_id = await run_printing(it, "half way\n")
        result = await it.ask("tail", msg_id, "--json")
        assert result.exit_code == 0
        assert list(map(json.loads, result.stdout.splitlines())) == [
            {"stream": "stdout", "text": "half way\n"},
            {"state": "ok", "error": None},
        ]


async def test_a_time_limit(tmp_path: Path) -> None:
    async with world(tmp_path) as it:
        it.engines[0].hold()
        msg_id = it.submit(pow, 2, 3)
        result = await it.ask("tail", msg_id, "--timeout", "0.1")
        assert result.exit_code == 4
        assert result.stderr.endswith(f"trio-hub: timed out after 0.1 s: {msg_id} has not finished\n")


async def test_a_request_that_the_hub_does_not_know(tmp_path: Path) -> None:
    async with world(tmp_path) as it:
        result = await it.ask("tail", "nobody")
        assert result.exit_code == 1
        assert "the hub has no record of nobody" in result.stderr


@pytest.mark.parametrize(
    "arguments", [["tail"], ["task"], ["top", "--count=1"], ["status"]], ids=lambda words: words[0]
)
async def test_a_full_disk_is_told_in_one_line(tmp_path: Path, arguments: list[str]) -> None:
    """Some of these commands write their output while they are connected to the hub."""
    async with world(tmp_path) as it:
        msg_id = await run_printing(it, "half way\n")
        words = [*arguments, *([msg_id] if arguments[0].startswith("ta") else [])]
        options = [*words, f"--connection-file={it.file}"]
        done = await trio.run_process(
            ["sh", "-c", 'exec "$@" >/dev/full', "sh", sys.executable, "-m", "trio_hub", *options],
            capture_stderr=True,
            check=False,
        )
        assert done.returncode == 1
        assert done.stderr == b"trio-hub: cannot write to stdout: No space left on device\n"


@pytest.mark.parametrize(("columns", "lines"), [(80, 24), (200, 50)])
async def test_a_terminal_gets_colours_and_no_other_codes(tmp_path: Path, columns: int, lines: int) -> None:
    async with world(tmp_path) as it:
        msg_id = await run_printing(it, "\x1b]0;title\x07\x1b[2J\x1b[32mgreen\x1b[0m \u202eesrever\n")

        def watch() -> None:
            with terminal("tail", msg_id, f"--connection-file={it.file}", columns=columns, lines=lines) as screen:
                screen.wait_for(r"^green esrever")  # the screen's text is without colours
                assert screen.end() == 0

        await trio.to_thread.run_sync(watch)


@pytest.mark.parametrize(
    ("pieces", "shown"),
    [
        (["\x1b[31mred\x1b[0m\n"], "\x1b[31mred\x1b[0m\n"),
        (["\x1b[3", "1mred\x1b", "[0m"], "\x1b[31mred\x1b[0m"),
        (["10 %\r20 %\tdone\n"], "10 %\r20 %\tdone\n"),
        (["a\x1b[2Jb\x1b[10;10Hc"], "abc"),
        (["\x1b]0;evil\x07text\x1b]8;;http://x\x1b\\link"], "textlink"),
        (["a\x1b(Bb\x1b[mc\x1b(", "0d\x1b", "(", "Be\x1b#8f"], "ab\x1b[mcdef"),
        (["\ufeffa\u061cb\ud800c"], "abc"),
        (["a\x08\x07\x9b31m\u202eb\u2066c"], "a31mbc"),
    ],
)
def test_what_controls_a_terminal_is_removed(pieces: list[str], shown: str) -> None:
    cleaner = Cleaner(True)
    assert "".join(map(cleaner.clean, pieces)) == shown
    unchanged = Cleaner(False)
    assert "".join(map(unchanged.clean, pieces)) == "".join(pieces)
