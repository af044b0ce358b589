"""``trio-hub top`` as a process, in a terminal and without one."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import trio

from ..asking.support import world
from ..terminal import terminal


async def test_pictures_without_a_terminal(tmp_path: Path) -> None:
    async with world(tmp_path) as it:
        msg_id = await it.run(pow, 1, 1, label="tides")
        result = await it.ask("top", "--count", "2", "--interval", "0.01")
        assert result.exit_code == 0
        lines = result.stdout.splitlines()
        assert sum(line.startswith("trio-hub top  tcp://127.0.0.1:") for line in lines) == 2
        assert any(line.endswith(f"…{msg_id[-15:]} tides") for line in lines)
        assert "\x1b" not in result.stdout
        assert "q quit" not in result.stdout


async def test_json(tmp_path: Path) -> None:
    async with world(tmp_path) as it:
        msg_id = await it.run(divmod, 1, 0)
        result = await it.ask("top", "--count", "2", "--interval", "0.01", "--json")
        assert result.exit_code == 0
        first, second = map(json.loads, result.stdout.splitlines())
        assert first["finished"] is None
        assert second["finished"] == 0
        assert second["completed"] == 1
        assert second["engines"][0]["uuid"] == it.engines[0].uuid
        assert second["failures"][0]["msg_id"] == msg_id
        assert second["failures"][0]["error"]["ename"] == "ZeroDivisionError"
        assert second["failures"][0]["name"] == "divmod"


async def test_the_function_that_an_engine_runs(tmp_path: Path) -> None:
    async with world(tmp_path) as it:
        it.engines[0].hold()
        it.submit(divmod, 1, 1)
        await it.engines[0].wait_requests(1)
        (engine,) = (await it.ask_json("top", "--count", "1"))["engines"]
        assert (engine["label"], engine["name"]) == (None, "divmod")
        assert any(line.endswith(" divmod") for line in (await it.ask("top", "--count", "1")).stdout.splitlines())
        it.engines[0].release()


@pytest.mark.parametrize(("columns", "lines"), [(80, 24), (200, 50)])
async def test_in_a_terminal(tmp_path: Path, columns: int, lines: int) -> None:
    async with world(tmp_path, engines=2) as it:
        msg_id = await it.run(divmod, 1, 0, label="tides")

        def watch() -> None:
            options = ("--interval=0.1", f"--connection-file={it.file}")
            with terminal("top", *options, columns=columns, lines=lines) as screen:
                screen.wait_for(r"2 engines, 0 busy")
                screen.wait_for(r"completed 1 ")
                screen.wait_for(rf"{msg_id[-15:]} +tides  ZeroDivisionError: inte")
                screen.wait_for(r"by id")
                screen.press("s")
                screen.wait_for(r"by load")
                screen.press("p")
                screen.wait_for(r"paused")
                screen.press("p\x1b[B\x1b[5~?")
                screen.wait_for(r"p pause")
                screen.press("q")
                assert screen.end() == 0
                assert "\x1b[?1049l" in screen.seen, "the screen is given back"

        await trio.to_thread.run_sync(watch)
