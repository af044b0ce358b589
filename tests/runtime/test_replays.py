"""A hub that is started again with the same key refuses messages that strangers have kept."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import trio

from trio_hub.testing import ScriptedClient, open_client, open_engine
from trio_hub.wire.frames import Frames

from ..crash.processes import hub_process
from .support import LIMIT, eventually

EVIL = b"a function of the stranger's"


class StoredRecord:
    """Messages of a client, as a stranger may have kept them, with their channels."""

    def __init__(self) -> None:
        self.messages: list[tuple[str, Frames]] = []

    async def send(
        self, client: ScriptedClient, channel: str, msg_type: str, *, to: str = "", **metadata: object
    ) -> None:
        frames = client.session.write(msg_type, {"msg_ids": "all"}, metadata=metadata, buffers=[b"harmless"])
        self.messages.append((channel, frames))
        client.send_raw(channel, [to.encode(), *frames] if to else frames)
        answers = len(client.replies)
        await client.wait_until(lambda: len(client.replies) > answers)

    @property
    def msg_ids(self) -> list[str]:
        return [json.loads(bytes(frames[2]))["msg_id"] for _, frames in self.messages]

    def replay(self, stranger: ScriptedClient, engine: str) -> None:
        """Send all kept messages to all channels, with other buffers."""
        for sent_on, frames in self.messages:
            for channel in ("task", "mux", "control", "broadcast", "registration"):
                if sent_on == "registration" and channel != "registration":
                    continue  # refused as no request for that channel, with or without a memory
                to = [engine.encode()] if channel in ("mux", "control") else []
                stranger.send_raw(channel, [*to, *frames[:6], EVIL])


@pytest.mark.parametrize("with_file", [True, False], ids=["with its file", "with its database only"])
async def test_what_was_run_is_not_run_again(tmp_path: Path, with_file: bool) -> None:
    with trio.fail_after(2 * LIMIT):
        async with hub_process(tmp_path / "profile", "--durability", "strict") as hub:
            kept = StoredRecord()
            async with open_client(hub.client_info) as client, open_engine(hub.engine_info) as engine:
                await client.notification("registration_notification")
                targets = [(engine.uuid, engine.id)]
                await kept.send(client, "task", "apply_request")
                await kept.send(client, "mux", "apply_request", to=engine.uuid)
                await kept.send(client, "broadcast", "apply_request", targets=targets, is_coalescing=False)
                await kept.send(client, "broadcast", "apply_request", targets=targets, is_coalescing=True)
                if with_file:
                    await kept.send(client, "registration", "purge_request")
                    await kept.send(client, "control", "abort_request", to=engine.uuid)
                await kept.send(client, "task", "apply_request")  # a message that came after the purge
                await eventually(lambda: hub.noted_engines() == [engine.uuid])
                shares = [
                    (request.queue, request.frames) for request in engine.requests if request.queue == "broadcast"
                ]
                kept.messages += shares
                seen = len(engine.requests)
                hub.kill()
                await hub.gone()
                if not with_file:
                    (tmp_path / "profile" / "security" / "seen").unlink()
                await hub.start()
                await hub.ready()
                async with open_client(hub.client_info) as other, open_client(hub.client_info) as stranger:
                    kept.replay(stranger, engine.uuid)
                    for channel in ("task", "mux", "control"):
                        own = other.send(channel, "apply_request", to=engine if channel != "task" else None)
                        assert (await other.reply(own)).content["status"] == "ok"
                    history = (await other.query("history_request")).content["history"]
                    assert [request.buffers for request in engine.requests[seen:]] == [[], [], []]
                    assert len(history) >= 3, "that which came after the purge, and the two of now"
                    answers = [reply for msg_id in kept.msg_ids for reply in stranger.replies[msg_id]]
                    assert not (with_file and answers), "what is a replay is not even answered"
                    assert {reply.content["ename"] for reply in answers} <= {"RequestRefused", "KeyError"}
