"""A hub with engines that compute, a client that submits to it, and the command line to ask it."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click.testing
import trio

from trio_hub import HubConfig, RunningHub
from trio_hub.cli import main
from trio_hub.client.packing import pack_call, pack_function
from trio_hub.config.connectionfiles import write_connection_file
from trio_hub.testing import Behaviour, ScriptedClient, ScriptedEngine, open_client, open_engines, open_hub

from ...client.support import compute
from ...runtime.support import within_limit


@dataclass(frozen=True)
class World:
    hub: RunningHub
    client: ScriptedClient
    engines: list[ScriptedEngine]
    file: Path

    async def ask(self, *arguments: str, input: str | None = None) -> click.testing.Result:
        """Return the command's output and exit code."""
        return await invoke(*arguments, f"--connection-file={self.file}", input=input)

    async def ask_json(self, *arguments: str) -> Any:
        """Return the command's output with --json, after checking that it has succeeded."""
        result = await self.ask(*arguments, "--json")
        assert result.exit_code == 0, result.output
        return json.loads(result.stdout)

    def submit(self, function: Callable[..., Any], *args: Any, label: Any = None, after: Sequence[str] = ()) -> str:
        """Submit a task, and return its msg_id."""
        metadata = {"label": label, "after": list(after)}
        return self.client.submit(*pack_call(pack_function(function), args, {}), metadata=metadata)

    async def run(self, function: Callable[..., Any], *args: Any, label: Any = None) -> str:
        """Run a task to its end, and return its msg_id."""
        msg_id = self.submit(function, *args, label=label)
        await self.client.reply(msg_id)
        return msg_id


async def invoke(*arguments: str, input: str | None = None) -> click.testing.Result:
    """Call the command in a thread of this process."""
    runner = click.testing.CliRunner()
    return await trio.to_thread.run_sync(lambda: runner.invoke(main, list(arguments), input=input))


@asynccontextmanager
async def world(
    directory: Path, engines: int = 1, *, behaviour: Behaviour = compute, **settings: Any
) -> AsyncGenerator[World, None]:
    async with (
        within_limit(),
        open_hub(HubConfig(**settings)) as hub,
        open_client(hub.client_info) as client,
        open_engines(hub.engine_info, engines, behaviour=behaviour) as scripted,
    ):
        await hub.wait_engines(engines)
        file = directory / "client.json"
        write_connection_file(file, hub.client_info)
        yield World(hub, client, scripted, file)
