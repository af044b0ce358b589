"""``trio-hub result`` and ``trio-hub wait``."""

from __future__ import annotations

import json
import pickle  # noqa: TID251 - to read what was written
from pathlib import Path
from typing import Any

import pytest
import trio

from trio_hub.client.hubconnection import HubConnection, Pending
from trio_hub.testing import open_engine

from ...runtime.support import eventually
from .support import World, world


async def test_result(tmp_path: Path) -> None:
    async with world(tmp_path) as it:
        msg_id = await it.run(divmod, 7, 2)
        assert await it.ask_json("result", msg_id) == {"msg_id": msg_id, "status": "ok", "value": "(3, 1)"}
        assert (await it.ask("result", msg_id)).stdout == "(3, 1)\n"


async def test_result_is_fetched_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    ask = HubConnection.ask

    def noting(self: HubConnection, channel: str, msg_type: str, *args: Any, **kwargs: Any) -> Pending:
        asked.append(msg_type)
        return ask(self, channel, msg_type, *args, **kwargs)

    async with world(tmp_path) as it:
        msg_id = await it.run(bytes, 5000)
        monkeypatch.setattr(HubConnection, "ask", noting)
        assert (await it.ask("result", msg_id)).stdout == f"{bytes(5000)!r}\n"
    assert asked.count("result_request") == 1


async def test_result_waits(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async with world(tmp_path) as it:
        it.engines[0].hold()
        msg_id = it.submit(pow, 2, 10)
        await it.engines[0].wait_requests(1)
        assert await outcome_when_released(it, caplog, "result", msg_id) == (0, "1024\n", "")


async def outcome_when_released(it: World, caplog: pytest.LogCaptureFixture, *arguments: str) -> tuple[int, str, str]:
    """Return the output of a command that connects while the engine holds its requests, which it then answers."""
    outcome: list[tuple[int, str, str]] = []
    caplog.set_level("INFO", "trio_hub.hub")
    caplog.clear()

    async def ask() -> None:
        result = await it.ask(*arguments)
        outcome.append((result.exit_code, result.stdout, result.stderr))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(ask)
        await eventually(lambda: "client connected" in caplog.messages)
        it.engines[0].release()
    return outcome[0]


async def test_result_is_stored_as_it_came(tmp_path: Path) -> None:
    async with world(tmp_path) as it:
        small = await it.run(pow, 2, 10)
        file = tmp_path / "small.pkl"
        assert await it.ask_json("result", small, f"--output={file}") == {
            "msg_id": small,
            "status": "ok",
            "files": [str(file)],
        }
        assert pickle.loads(file.read_bytes()) == 1024
        large = await it.run(bytes, 5000)
        assert (await it.ask("result", large, f"--output={tmp_path / 'large'}")).stdout == ""
        assert (tmp_path / "large.1").read_bytes() == bytes(5000)
        nowhere = await it.ask("result", small, f"--output={tmp_path / 'none' / 'file'}")
        assert nowhere.exit_code == 1
        assert "cannot be written: No such file" in nowhere.stderr


async def test_result_of_a_failure(tmp_path: Path) -> None:
    async with world(tmp_path) as it:
        msg_id = await it.run(divmod, 1, 0)
        result = await it.ask("result", msg_id)
        assert result.exit_code == 1
        assert result.stdout == ""
        message = "ZeroDivisionError: integer division or modulo by zero (engine 0)"
        assert result.stderr == f"here\nthere\ntrio-hub: {message}\n"
        result = await it.ask("result", msg_id, "--json")
        assert result.exit_code == 1
        assert json.loads(result.stdout) == {
            "msg_id": msg_id,
            "status": "error",
            "error": {
                "ename": "ZeroDivisionError",
                "evalue": "integer division or modulo by zero",
                "traceback": "here\nthere",
                "engine": 0,
            },
        }


async def test_result_of_code_that_was_executed(tmp_path: Path) -> None:
    async with world(tmp_path, behaviour=lambda request: request.answer()) as it:
        it.engines[0].hold()
        msg_id = it.client.call(it.engines[0], msg_type="execute_request", content={"code": "6 * 7", "silent": False})
        (request,) = await it.engines[0].wait_requests(1)
        content = {"data": {"text/plain": "42"}, "metadata": {}, "execution_count": 1}
        it.engines[0].publish("execute_result", content, parent=request.frames[2], topic="engine.0.execute_result")
        it.engines[0].release()
        await it.client.reply(msg_id)
        assert (await it.ask("result", msg_id)).stdout == "42\n"


async def test_result_that_nobody_knows(tmp_path: Path) -> None:
    async with world(tmp_path) as it:
        result = await it.ask("result", "nobody", "--json")
        assert (result.exit_code, result.stdout) == (1, "")
        assert result.stderr == "trio-hub: KeyError: No such message: nobody\n"


async def test_result_that_takes_too_long(tmp_path: Path) -> None:
    async with world(tmp_path) as it:
        it.engines[0].hold()
        msg_id = it.submit(pow, 1, 1)
        result = await it.ask("result", msg_id, "--timeout", "0.2")
        assert result.exit_code == 4
        assert result.stderr == f"trio-hub: timed out after 0.2 s: {msg_id} has not finished\n"


async def test_wait_for_requests(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async with world(tmp_path) as it:
        good, bad = await it.run(pow, 1, 1), await it.run(divmod, 1, 0)
        assert await it.ask_json("wait", good) == {"finished": 1, "failed": []}
        result = await it.ask("wait", good, bad)
        assert (result.exit_code, result.stdout, result.stderr) == (1, f"{bad} has failed\n", "")
        it.engines[0].hold()
        late = it.submit(pow, 1, 1)
        await it.engines[0].wait_requests(3)
        assert (await it.ask("wait", good, late, "--timeout=0.2")).exit_code == 4
        assert await outcome_when_released(it, caplog, "wait", good, late) == (0, "", "")


async def test_wait_for_requests_of_which_one_is_unknown(tmp_path: Path) -> None:
    async with world(tmp_path) as it:
        result = await it.ask("wait", "nobody")
        assert result.exit_code == 1
        assert "No such message: nobody" in result.stderr


async def test_wait_for_engines(tmp_path: Path) -> None:
    async with world(tmp_path, engines=1) as it:
        assert await it.ask_json("wait", "--engines", "1") == {"engines": 1}
        result = await it.ask("wait", "--engines", "2", "--timeout=0.2")
        assert (result.exit_code, result.stderr) == (
            4,
            "trio-hub: timed out after 0.2 s: fewer than 2 engines are registered\n",
        )
        outcome: list[int] = []

        async def ask() -> None:
            outcome.append((await it.ask("wait", "--engines", "2")).exit_code)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask)
            async with open_engine(it.hub.engine_info):
                await eventually(lambda: bool(outcome))
        assert outcome == [0]


async def test_wait_until_idle(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async with world(tmp_path) as it:
        await it.run(pow, 1, 1)
        assert await it.ask_json("wait") == {"idle": True, "completed": 1}
        it.engines[0].hold()
        it.submit(pow, 1, 1)
        it.submit(pow, 1, 1)
        await it.engines[0].wait_requests(2)
        assert (await it.ask("wait", "--timeout=0.2")).exit_code == 4
        assert await outcome_when_released(it, caplog, "wait") == (0, "", "")
