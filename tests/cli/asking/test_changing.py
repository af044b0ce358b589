"""``trio-hub abort``, ``resubmit``, ``purge`` and ``shutdown``."""

from __future__ import annotations

from pathlib import Path

import pytest

from trio_hub.testing import ScriptedEngine

from ...runtime.support import eventually
from .support import World, world


async def test_abort(tmp_path: Path) -> None:
    async with world(tmp_path) as it:
        engine = it.engines[0]
        finished = await it.run(pow, 1, 1)
        engine.hold()
        queued = it.submit(pow, 1, 1)
        await engine.wait_requests(2)
        assert await it.ask_json("abort", queued) == {"told": [queued], "finished": [], "unknown": []}
        assert {"msg_ids": [queued]} in withdrawn(engine)
        result = await it.ask("abort", finished, "nobody", queued, queued)
        assert result.exit_code == 1
        assert result.stdout.splitlines() == [
            f"{queued} was aborted, if it had not started",
            f"{finished} has finished already",
            "nobody is unknown to the hub",
        ]


def withdrawn(engine: ScriptedEngine) -> list[object]:
    return [request.content for request in engine.requests if request.msg_type == "abort_request"]


async def test_resubmit(tmp_path: Path) -> None:
    async with world(tmp_path) as it:
        old = await it.run(pow, 2, 10)
        new = (await it.ask_json("resubmit", old))["resubmitted"][old]
        assert (await it.ask("result", new)).stdout == "1024\n"
        text = (await it.ask("resubmit", old)).stdout
        assert text.startswith(f"{old} was resubmitted as ")
        result = await it.ask("resubmit", old, "nobody")
        assert result.exit_code == 1
        assert "No such msg(s): ['nobody']" in result.stderr


async def known(it: World) -> list[str]:
    return [row["msg_id"] for row in (await it.ask_json("tasks"))["tasks"]]


async def test_purge(tmp_path: Path) -> None:
    async with world(tmp_path) as it:
        first, second, third = [await it.run(pow, 2, 10, label=label) for label in ("a", "b", "c")]
        it.engines[0].hold()
        running = it.submit(pow, 1, 1, label="a")
        await it.engines[0].wait_requests(4)
        assert await it.ask_json("purge", first, "--yes") == {"purged": 1}
        assert await known(it) == [second, third, running]
        assert await it.ask_json("purge", "--query", '{"label": {"$in": ["a", "b"]}}', "-y") == {"purged": 1}
        assert await known(it) == [third, running]
        assert await it.ask_json("purge", "--older-than", "1h", "--yes") == {"purged": 0}
        assert await it.ask_json("purge", "--older-than", "0.000001", "--yes") == {"purged": 1}
        assert (await it.ask("purge", "--all", "--yes")).stdout == "purged all finished requests\n"
        assert await known(it) == [running]
        result = await it.ask("purge", running, "--yes")
        assert result.exit_code == 1
        assert "msg pending" in result.stderr


@pytest.mark.parametrize("answer", ["n\n", "\n", ""])
async def test_purge_asks_first(answer: str, tmp_path: Path) -> None:
    async with world(tmp_path) as it:
        msg_id = await it.run(pow, 1, 1)
        for which, question in ((msg_id, "Purge 1 request?"), ("--all", "Purge all finished requests?")):
            result = await it.ask("purge", which, input=answer)
            assert result.exit_code == 1
            assert question in result.stderr
            assert result.stdout == ""
        assert await known(it) == [msg_id]
        result = await it.ask("purge", "--query={}", input="y\n")
        assert (result.exit_code, result.stdout) == (0, "purged 1 request\n")
        assert await known(it) == []


async def test_shutdown_of_an_engine(tmp_path: Path) -> None:
    async with world(tmp_path, engines=3) as it:
        result = await it.ask("shutdown", "--engine", "1", input="n\n")
        assert result.exit_code == 1
        assert "Stop engine 1?" in result.stderr
        result = await it.ask("shutdown", "--engine", "1", "--yes")
        assert (result.exit_code, result.stdout) == (0, "told 1 engine to stop\n")
        await eventually(lambda: len(it.hub.engines) == 2)
        assert await it.ask_json("shutdown", "--engine", it.engines[0].uuid, "-y") == {"engines": 1, "hub": False}
        await eventually(lambda: len(it.hub.engines) == 1)
        result = await it.ask("shutdown", "--engine", "1", "--yes")
        assert result.exit_code == 1
        assert "there is no engine 1" in result.stderr


async def test_shutdown_of_everything(tmp_path: Path) -> None:
    async with world(tmp_path, engines=2) as it:
        result = await it.ask("shutdown", "--engines", input="y\n")
        assert "Stop all 2 engines?" in result.stderr
        assert (result.exit_code, result.stdout) == (0, "told 2 engines to stop\n")
        await eventually(lambda: not it.hub.engines)
        result = await it.ask("shutdown", "--hub", input="y\n")
        assert "Stop all 0 engines and the hub?" in result.stderr
        assert result.exit_code == 0, result.output
        await it.hub.wait_stopped()
