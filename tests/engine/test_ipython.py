"""Requests that need IPython, and user code that finds IPython as in a stock engine."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio

from trio_hub import Client, HubConfig, RemoteError
from trio_hub.testing import open_client, open_hub
from trio_hub.testing.client import ScriptedClient

from .support import LIMIT, cluster, open_engine_process

pytestmark = pytest.mark.interop


class Shell:
    """Sends requests to the one engine, as a stock client does."""

    def __init__(self, raw: ScriptedClient, client: Client) -> None:
        self.raw = raw
        self.client = client

    async def ask(self, msg_type: str, **content: Any) -> dict[str, Any]:
        return (await self.raw.reply(await self.send(msg_type, **content))).content

    async def send(self, msg_type: str, **content: Any) -> str:
        uuid = (await self.raw.query("connection_request")).content["engines"]["0"]
        return self.raw.send("mux", msg_type, content, to=uuid)

    async def run(self, code: str, **more: Any) -> tuple[dict[str, Any], list[tuple[str, dict[str, Any]]]]:
        """Run a cell. Return the content of the reply, and what was published before the idle status."""
        msg_id = await self.send("execute_request", code=code, silent=False, **more)
        reply = (await self.raw.reply(msg_id)).content

        def published() -> list[tuple[str, dict[str, Any]]]:
            mine = [one for one in self.raw.iopub if one.message.parent.msg_id == msg_id]
            return [(one.msg_type, one.content) for one in mine]

        await self.raw.wait_until(lambda: "status" in dict(published()))
        return reply, published()[:-1]


@asynccontextmanager
async def shell(directory: Path, *options: str) -> AsyncGenerator[Shell, None]:
    async with cluster(directory, *options) as (hub, client, _), open_client(hub.client_info) as raw:
        yield Shell(raw, client)


async def test_cells(tmp_path: Path) -> None:
    async with shell(tmp_path, "--InteractiveShell.colors=nocolor") as engine:
        reply, published = await engine.run("print('hello'); x = 6; x * 7")
        assert (reply["status"], reply["execution_count"]) == ("ok", 1)
        assert [kind for kind, _ in published] == ["execute_input", "stream", "execute_result"]
        assert published[1][1]["text"] == "hello\n"
        assert published[2][1]["data"] == {"text/plain": "42"}

        reply, published = await engine.run("1 / 0")
        assert (reply["status"], reply["ename"]) == ("error", "ZeroDivisionError")
        assert "----> 1 1 / 0" in "\n".join(reply["traceback"])
        assert reply["engine_info"]["engine_id"] == 0
        assert published[-1][0] == "error"

        reply, published = await engine.run("import asyncio\nawait asyncio.sleep(0)\n%whos\n!echo shell")
        assert reply["status"] == "ok"
        assert "shell" in "".join(content["text"] for kind, content in published if kind == "stream")


async def test_the_kernel_knows_the_id_of_its_engine(tmp_path: Path) -> None:
    async with shell(tmp_path, "--id=3") as engine:
        assert await engine.client.apply(lambda: __import__("IPython").get_ipython().kernel.engine_id, targets=3) == 3


async def test_the_namespace_is_that_of_apply(tmp_path: Path) -> None:
    async with shell(tmp_path) as engine:
        await engine.client.apply(lambda: __import__("__main__").__dict__.update(a=5))
        reply, _ = await engine.run("b = a + 1", user_expressions={"twice": "2 * b"})
        assert reply["user_expressions"]["twice"]["data"]["text/plain"] == "12"
        assert await engine.client.apply(lambda: __import__("__main__").b) == 6


async def test_completion_inspection_and_comms(tmp_path: Path) -> None:
    async with shell(tmp_path) as engine:
        await engine.run("some_long_name = 1")
        assert "some_long_name" in (await engine.ask("complete_request", code="some_lo", cursor_pos=7))["matches"]
        found = await engine.ask("inspect_request", code="some_long_name", cursor_pos=3, detail_level=0)
        assert found["found"]
        assert (await engine.ask("is_complete_request", code="for x in y:"))["status"] == "incomplete"
        assert (await engine.ask("comm_info_request"))["comms"] == {}
        _, published = await engine.run("from comm import create_comm; c = create_comm(target_name='t', data={'x': 1})")
        opened = dict(published)["comm_open"]
        assert (opened["target_name"], opened["data"]) == ("t", {"x": 1})
        assert len((await engine.ask("comm_info_request"))["comms"]) == 1


async def test_cells_behind_one_that_fails_are_aborted(tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    async with shell(tmp_path) as engine:
        code = f"import os, time\nwhile not os.path.exists({str(gate)!r}):\n    time.sleep(0.01)\n1 / 0"
        first = await engine.send("execute_request", code=code, silent=False)
        second = await engine.send("execute_request", code="never = 1", silent=False)
        third = await engine.send("kernel_info_request")
        uuid = (await engine.raw.query("connection_request")).content["engines"]["0"]
        # What the engine answers on its control channel was sent after the cells.
        await engine.raw.reply(engine.raw.send("control", "usage_request", to=uuid))
        gate.touch()
        statuses = [(await engine.raw.reply(msg_id)).content["status"] for msg_id in (first, second, third)]
        assert statuses == ["error", "aborted", "ok"]


async def test_apply_finds_the_shell_and_may_display(tmp_path: Path) -> None:
    def displays() -> str:
        import IPython

        show: Any = IPython.display
        show.display(show.HTML("<b>bold</b>"))
        shell: Any = IPython.get_ipython()
        return str(shell.user_ns["__name__"])

    async with shell(tmp_path) as engine:
        assert await engine.client.apply(displays) == "__main__"
        shown = await engine.raw.output("display_data")
        assert shown.content["data"]["text/html"] == "<b>bold</b>"


async def test_what_startup_code_displays_is_readable_with_every_packer(tmp_path: Path) -> None:
    code = "import IPython; IPython.display.display(IPython.display.HTML('<b>bold</b>'))"
    with trio.fail_after(LIMIT):
        async with (
            open_hub(HubConfig(packer="msgpack")) as hub,
            open_client(hub.client_info) as raw,
            open_engine_process(tmp_path, "-c", code, info=hub.engine_info),
        ):
            shown = await raw.output("display_data")
            assert shown.content["data"]["text/html"] == "<b>bold</b>"
            assert shown.parent == {}


async def test_figures_inline_and_no_gui(tmp_path: Path) -> None:
    async with shell(tmp_path) as engine:
        _, published = await engine.run("%gui qt")
        assert "runs no event loop of qt" in str(published)
        assert (await engine.run("get_ipython().enable_gui('inline')"))[0]["status"] == "ok"


async def test_clear_empties_the_namespace(tmp_path: Path) -> None:
    async with shell(tmp_path) as engine:
        for load_ipython in (False, True):
            if load_ipython:
                await engine.run("x = 1")
            await engine.client.apply(lambda: __import__("__main__").__dict__.update(a=5))
            uuid = (await engine.raw.query("connection_request")).content["engines"]["0"]
            reply = await engine.raw.reply(engine.raw.send("control", "clear_request", to=uuid))
            assert reply.content["status"] == "ok"
            with pytest.raises(RemoteError, match="AttributeError"):
                await engine.client.apply(lambda: __import__("__main__").a)
        assert (await engine.run("get_ipython() is not None"))[0]["status"] == "ok"


async def test_answers_that_cannot_be_sent_are_errors(tmp_path: Path) -> None:
    """User code can put any object into the answer to a cell."""
    odd = "class Odd:\n    def _repr_json_(self):\n        return {'odd': object()}\nodd = Odd()"
    async with shell(tmp_path) as engine:
        reply, _ = await engine.run(odd, user_expressions={"odd": "odd"})
        assert (reply["status"], reply["ename"]) == ("error", "TypeError")
        payload = "get_ipython().payload_manager.write_payload({'source': 'test', 'odd': object()})"
        reply, _ = await engine.run(payload)
        assert (reply["status"], reply["ename"]) == ("error", "TypeError")
        reply, _ = await engine.run("1")
        assert reply["status"] == "ok"
