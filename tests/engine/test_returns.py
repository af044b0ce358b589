"""Engines whose hub comes back, and does not register them at once."""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Callable
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any, cast

import pytest
import trio
from trio.testing import MockClock

from trio_hub import HubConfig, RunningHub, connect
from trio_hub.config.connectionfiles import connection_paths
from trio_hub.engine.dispatch import Dispatcher
from trio_hub.engine.registrar import Registrar
from trio_hub.engine.returns import LONGEST_PAUSE, Returns
from trio_hub.hub import engines
from trio_hub.testing import open_client, open_hub
from trio_hub.wire.frames import Frames
from trio_hub.wire.messages import Session

from ..crash.processes import hub_process
from ..runtime.support import free_ports
from .support import LIMIT, open_engine_process, until
from .test_process import works

FAILED = "cannot register at the new hub"


def name_another_hub(profile: Path) -> bytes:
    """Write a connection file of a hub that is not there. Return the previous content."""
    path = connection_paths(profile, "")[1]
    before = path.read_bytes()
    info = json.loads(before)
    path.write_text(json.dumps(info | {"key": secrets.token_hex(16), "registration": free_ports(1)[0]}))
    return before


def waits(started: str, gate: str, ended: str) -> str:
    """Run until a file exists."""
    import os
    import time

    open(started, "w").close()
    while not os.path.exists(gate):
        time.sleep(0.01)
    open(ended, "w").close()
    return gate


@pytest.mark.interop
async def test_a_result_is_held_while_the_engine_cannot_register(tmp_path: Path) -> None:
    """The engine follows a file whose hub is not there, and then a file whose hub comes later."""
    started, gate, ended = (tmp_path / name for name in ("started", "gate", "ended"))
    profile = tmp_path / "profile"
    options = [f"--profile-dir={profile}", "--timeout=2", "--IPEngine.max_heartbeat_misses=1000"]
    with trio.fail_after(LIMIT):
        async with (
            hub_process(profile, "--durability=strict") as hub,
            open_engine_process(tmp_path, *options) as engine,
            connect(connection_info=hub.client_info) as client,
            trio.open_nursery() as nursery,
        ):
            results: list[str] = []

            async def call() -> None:
                results.append(await client.apply(waits, str(started), str(gate), str(ended)))
                nursery.cancel_scope.cancel()

            async def failures(number: int) -> None:
                await until(lambda: engine.log.count(FAILED) >= number, f"{number} failed registrations")

            nursery.start_soon(call)
            await until(started.exists, "the call")
            hub.kill()
            await hub.gone()
            before = name_another_hub(profile)
            await failures(1)
            gate.touch()
            await until(ended.exists, "the end of the call")
            await failures(engine.log.count(FAILED) + 2)
            connection_paths(profile, "")[1].write_bytes(before)
            await until(lambda: engine.log.count("the hub has a new connection file") == 2, "the second move")
            await failures(engine.log.count(FAILED) + 2)
            await hub.start()
            await trio.sleep_forever()
    assert results == [str(gate)]


@pytest.mark.interop
async def test_an_engine_that_cannot_register_ends_when_the_hub_was_away_for_too_long(tmp_path: Path) -> None:
    profile = tmp_path / "profile"
    options = [f"--profile-dir={profile}", "--timeout=2", "--IPEngine.max_heartbeat_misses=5"]
    with trio.fail_after(LIMIT):
        async with AsyncExitStack() as stack:
            async with open_hub(HubConfig(profile_dir=profile, ping=0.1, reuse=True)) as hub:
                engine = await stack.enter_async_context(open_engine_process(tmp_path, *options))
                await works(hub)
            name_another_hub(profile)
            assert await engine.wait() == 255
    assert FAILED in engine.log
    assert "no heartbeat of the hub for" in engine.log


async def comes_back(
    directory: Path, monkeypatch: pytest.MonkeyPatch, requested_id: Callable[[Any], int | None]
) -> tuple[RunningHub, str]:
    """Let an engine work at a hub, and then at a hub that does not know it, and that checks ids with this function.

    Return the second hub, and the engine's log.
    """
    profile = directory / "profile"
    config = HubConfig(profile_dir=profile, reuse=True, ping=0.1)
    with trio.fail_after(LIMIT):
        async with AsyncExitStack() as stack:
            async with open_hub(config) as hub:
                options = (f"--profile-dir={profile}", "--timeout=3")
                engine = await stack.enter_async_context(open_engine_process(directory, *options))
                await works(hub)
            monkeypatch.setattr(engines, "requested_id", requested_id)
            async with open_hub(config) as hub:
                await hub.wait_engines(1)
                [engine_id] = hub.engines
                await until(lambda: f"that did not know this engine engine={engine_id}" in engine.log, "the id")
                async with open_client(hub.client_info) as raw, connect(connection_info=hub.client_info) as client:
                    assert await client.apply(abs, -1, targets=engine_id) == 1
                    uuid = (await raw.query("connection_request")).content["engines"][str(engine_id)]
                    msg_id = raw.send("mux", "execute_request", {"code": "print(5)"}, to=uuid)
                    await raw.reply(msg_id)
                    topic = f"engine.{engine_id}.stdout".encode()
                    await raw.wait_until(lambda: any(m.message.idents[-1] == topic for m in raw.iopub))
            return hub, engine.log


@pytest.mark.interop
async def test_a_refusal_by_a_hub_that_is_back_is_not_the_last_word(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def refuses_first(requested: Any) -> int | None:
        asked.append(requested)
        if len(asked) <= 5:
            raise ValueError("not yet")
        return None

    _, log = await comes_back(tmp_path, monkeypatch, refuses_first)
    assert len(asked) == 6
    assert log.count("has refused the registration: not yet") >= 4


@pytest.mark.interop
async def test_an_acceptance_that_comes_late_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The hub answers after the engine's time is over. The engine has the id that the hub has given it."""
    asked = []

    def late(requested: Any) -> int | None:
        asked.append(requested)
        if len(asked) == 1:
            time.sleep(4)  # the whole hub does nothing meanwhile
        return 7

    hub, log = await comes_back(tmp_path, monkeypatch, late)
    assert list(hub.engines) == [7] or not hub.engines
    assert "no answer from the hub" in log


class Hub:
    """Answers a registrar, in place of the engine's dispatcher."""

    def __init__(self) -> None:
        now = partial(datetime.now, UTC)
        self.session = Session(b"key", session_id="engine", now=now)
        self._session = Session(b"key", session_id="hub", now=now)
        self.engines: dict[str, str] = {}
        self.answers: list[str] = []
        """For each registration, in order: ``accept``, ``refuse``, ``lose`` the answer, or ``ignore`` the request."""
        self.registrar = Registrar("engine", cast("Dispatcher", self), 1.0, None, {})
        self.times: list[float] = []

    def send(self, channel: str, frames: Frames) -> bool:
        message = self._session.read_untrusted(frames)
        if message.header.msg_type == "connection_request":
            self._reply("connection_reply", {"status": "ok", "engines": dict(self.engines)}, message.raw_header)
            return True
        self.times.append(trio.current_time())
        answer = self.answers.pop(0)
        if answer in ("accept", "lose"):
            self.engines = {"7": "engine"}
        if answer == "accept":
            self._reply("registration_reply", {"status": "ok", "id": 7}, message.raw_header)
        elif answer == "refuse":
            self._reply("registration_reply", {"status": "error", "evalue": "full"}, message.raw_header)
        return True

    def _reply(self, msg_type: str, content: dict[str, Any], parent: bytes) -> None:
        self.registrar.on_reply(self._session.write(msg_type, content, parent=parent))


async def registrations(hub: Hub, answers: list[str], heart: Callable[[], bool] = lambda: True) -> list[float]:
    """Let the hub come back and answer like this. Return the times of the registrations until the engine has its id."""
    hub.answers = answers
    with trio.fail_after(1000):
        async with trio.open_nursery() as nursery:

            def take(answer: dict[str, Any]) -> None:
                assert answer["id"] == 7
                nursery.cancel_scope.cancel()

            returns = Returns(hub.registrar, lambda: 0, heart, take)
            returns.note()
            await returns.run()
    return hub.times


async def test_pauses_grow_and_are_bounded(autojump_clock: MockClock) -> None:
    times = await registrations(Hub(), ["refuse"] * 9 + ["accept"])
    pauses = [round(later - earlier, 3) for earlier, later in pairwise(times)]
    assert pauses == [0.5, 1, 2, 4, 8] + [LONGEST_PAUSE] * 4


async def test_a_lost_acceptance_is_found_in_the_table_of_engines(autojump_clock: MockClock) -> None:
    assert len(await registrations(Hub(), ["ignore", "lose"])) == 2


async def test_a_hub_whose_heart_is_away_is_not_asked(autojump_clock: MockClock) -> None:
    times = await registrations(Hub(), ["refuse", "accept"], heart=lambda: trio.current_time() > 100)
    assert times[1] > 100
