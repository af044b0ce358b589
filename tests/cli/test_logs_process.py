"""The log of a hub process: it has the hub's events, no lines about single tasks, and no secrets."""

from __future__ import annotations

import json
import re
import signal
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import trio
import zmq

from trio_hub.testing import open_client, open_engines

from .process import LIMIT, Command, command, run

TASKS = 50
NASTY = 'a\nb\x1b[2J\x85\u2028 c="d" \\ \N{SNOWMAN}'


async def work(profile: Path, tasks: int) -> list[str]:
    """Real clients and engines at a hub, tasks, and messages that nobody expects; the msg_ids of the tasks."""
    client_info, engine_info = (
        json.loads((profile / "security" / f"ipcontroller-{side}.json").read_text()) for side in ("client", "engine")
    )
    with trio.fail_after(LIMIT):
        async with open_client(client_info, session=NASTY) as client, open_engines(engine_info, 2) as engines:
            for engine in engines:
                await client.notification("registration_notification", id=engine.id)
            msg_ids = [client.submit(b"x") for _ in range(tasks)]
            msg_ids += [client.call(engine, b"y") for engine in engines]
            for msg_id in msg_ids:
                await client.reply(msg_id)
            for _ in range(tasks):
                await client.query(NASTY)
    return msg_ids


def stop(hub: Command) -> list[str]:
    hub.signal(signal.SIGTERM)
    assert hub.wait() == 0
    return hub.stderr


async def test_at_info_no_line_is_about_a_task(tmp_path: Path) -> None:
    with command("serve", f"--profile-dir={tmp_path}", "--log-format=json") as hub:
        hub.wait_line("stdout", "^trio-hub ready: ")
        await work(tmp_path, TASKS)
        lines = stop(hub)
    events = [json.loads(line) for line in lines]
    assert not [event for event in events if "task" in event]
    counts = Counter(event["message"] for event in events)
    for message in ("hub is listening", "hub stops", "task database opened", "task database closed"):
        assert counts[message] == 1, counts
    assert counts["client connected"] >= 1
    assert {event["client"] for event in events if event["message"] == "client connected"} == {NASTY}
    assert counts["engine registered"] == 2
    assert counts["refused a query"] < TASKS / 2, "of a kind, one is told now and then"
    assert len(events) < TASKS / 2


async def test_at_debug_each_task_is_told(tmp_path: Path) -> None:
    with command("serve", f"--profile-dir={tmp_path}", "--log-level=debug", "--log-format=json") as hub:
        hub.wait_line("stdout", "^trio-hub ready: ")
        msg_ids = await work(tmp_path, 3)
        events = [json.loads(line) for line in stop(hub)]
    for msg_id in msg_ids[:3]:
        found = [event["message"] for event in events if event.get("task") == msg_id]
        assert found == ["task submitted", "task assigned", "task finished"]
    for msg_id in msg_ids[3:]:
        found = [event["message"] for event in events if event.get("task") == msg_id]
        assert found == ["task submitted", "task finished"]


async def test_each_line_of_text_is_one(tmp_path: Path) -> None:
    with command("serve", f"--profile-dir={tmp_path}", "--log-level=debug") as hub:
        hub.wait_line("stdout", "^trio-hub ready: ")
        await work(tmp_path, 3)
        lines = stop(hub)
    start = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{3} (DEBUG|INFO|WARNING|ERROR) +trio_hub\.\w+: ")
    assert lines
    assert all(start.match(line) for line in lines)
    assert any(r'client="a\nb\x1b[2J\x85\u2028 c=\"d\" \\ ' in line for line in lines)


@pytest.mark.parametrize("form", ["text", "json"])
async def test_keys_are_never_told(form: str, tmp_path: Path) -> None:
    _, secret = zmq.curve_keypair()
    env = {"TRIO_HUB_KEY": "sesame-open", "TRIO_HUB_CURVE_SECRETKEY": secret.decode(), "TRIO_HUB_CURVE": "true"}
    with command(
        "serve", f"--profile-dir={tmp_path}", "--log-level=debug", f"--log-format={form}", "--ip=*", env=env
    ) as hub:
        hub.wait_line("stdout", "^trio-hub ready: ")
        await work(tmp_path, 1)
        told = "\n".join(stop(hub) + hub.stdout)
    assert "engine registered" in told
    assert "sesame" not in told
    assert secret.decode() not in told


@pytest.mark.parametrize("form", ["text", "json"])
def test_the_password_of_a_database_is_never_told(form: str, tmp_path: Path) -> None:
    pytest.importorskip("psycopg")
    for address in ("postgresql://lab:s3cret@127.0.0.1:1/x", "postgresql://127.0.0.1:1/x?user=lab&password=s3cret"):
        env: dict[str, Any] = {"TRIO_HUB_DB": address}
        code, out, err = run("serve", f"--profile-dir={tmp_path}", "--log-level=debug", f"--log-format={form}", env=env)
        assert code == 2
        assert "the hub ends" in err
        assert "s3cret" not in out + err
