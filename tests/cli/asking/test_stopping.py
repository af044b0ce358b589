"""``trio-hub cancel`` and ``drain``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from trio_hub.testing import ScriptedEngine

from ...runtime.support import eventually
from .support import invoke, world


def hears(engine: ScriptedEngine) -> list[tuple[str, Any]]:
    """Have an engine keep its requests, and answer control requests. Return those that it gets."""
    heard: list[tuple[str, Any]] = []

    def answer(request: Any) -> None:
        heard.append((request.msg_type, request.content))
        request.answer()

    engine.hold()
    engine.control_behaviour = answer
    return heard


async def test_requests_are_cancelled_whether_they_wait_or_run(tmp_path: Path) -> None:
    async with world(tmp_path) as it:
        finished = await it.run(abs, -1)
        heard = hears(it.engines[0])
        runs, waits = it.submit(abs, -2), it.submit(abs, -3)
        await eventually(lambda: it.hub.statistics().tasks_queued == 1)
        assert await it.ask_json("cancel", waits) == {
            "withdrawn": [waits],
            "interrupted": [],
            "finished": [],
            "unknown": [],
        }
        result = await it.ask("cancel", runs, "--grace", "1m")
        assert (result.exit_code, result.stdout) == (0, f"{runs} is interrupted\n")
        await eventually(lambda: bool(heard))
        assert heard[0][0] in ("signal_request", "interrupt_request")
        it.engines[0].release()
        for msg_id in (runs, waits):
            reply = await it.client.reply(msg_id)
            assert reply.content["ename"] == "TaskCancelled"
        result = await it.ask("cancel", finished, "nobody", finished)
        assert (result.exit_code, result.stderr) == (1, "")
        assert result.stdout.splitlines() == [
            f"{finished} has finished already",
            "nobody is unknown to the hub",
        ]


async def test_engines_are_drained_and_undrained(tmp_path: Path) -> None:
    async with world(tmp_path, 2) as it:
        first, uuid = it.engines[0].id, it.engines[0].uuid
        assert await it.ask_json("drain", str(first), "--deadline", "10m") == {"engines": {str(first): "draining"}}
        assert list(it.hub.core.work.draining.drains) == [uuid.encode()]
        result = await it.ask("drain", uuid, "--undrain")
        assert (result.exit_code, result.stdout) == (0, f"engine {uuid} gets tasks again\n")
        result = await it.ask("drain", str(first), "7", "--undrain")
        assert result.exit_code == 1
        assert result.stdout.splitlines() == [
            f"engine {first} was not drained, or was told to end already",
            "engine 7 is not registered",
        ]
        heard = hears(it.engines[0])
        assert (await it.ask("drain", str(first), "--then", "shutdown")).exit_code == 0
        await eventually(lambda: [msg_type for msg_type, _ in heard] == ["shutdown_request"])


async def test_all_engines_of_a_host_are_drained(tmp_path: Path) -> None:
    async with world(tmp_path, 2) as it:
        there, elsewhere = map(str, it.hub.engines)
        await it.ask_json("tag", there, "host=node7.example.org")
        for host in ("node7", "node7.example.org"):
            assert await it.ask_json("drain", "--host", host) == {"engines": {there: "draining"}}
        assert await it.ask_json("drain", "--host", "127.0.0.1") == {
            "engines": {there: "draining", elsewhere: "draining"}
        }
        result = await it.ask("drain", "--host", "node8", "--undrain")
        assert (result.exit_code, result.stdout) == (1, "")
        assert "no engine is registered from host node8" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["drain"], "give either ENGINEs or --host"),
        (["drain", "1", "--host", "a"], "give either ENGINEs or --host"),
        (["drain", "1", "--undrain", "--then", "shutdown"], "--undrain goes with neither --then nor --deadline"),
        (["drain", "1", "--deadline", "soon"], "'soon' is not a duration"),
        (["cancel", "a", "--grace", "-1"], "'-1' is not a duration"),
    ],
)
async def test_wrong_usage(arguments: list[str], told: str) -> None:
    result = await invoke(*arguments)
    assert result.exit_code == 2
    assert told in " ".join(result.stderr.split())
