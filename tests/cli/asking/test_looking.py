"""``trio-hub status``, ``engines``, ``tasks`` and ``task``."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

import pytest
import trio

from trio_hub.cli.asking.output import clock
from trio_hub.cli.asking.records import what
from trio_hub.testing import failing

from ...runtime.support import eventually
from ..terminal import terminal
from .support import invoke, world


async def test_status(tmp_path: Path) -> None:
    async with world(tmp_path, engines=2) as it:
        await it.run(pow, 2, 3)
        await it.run(divmod, 1, 0)
        it.engines[0].hold()
        it.client.call(it.engines[0])
        await it.engines[0].wait_requests(1)
        seen = await it.ask_json("status")
        assert seen["hub"]["kind"] == "trio-hub"
        assert seen["hub"]["connections"] == "open"
        assert seen["hub"]["connection_file"] == str(it.file)
        assert seen["hub"]["address"].startswith("tcp://127.0.0.1:")
        assert seen["engines"] == {"count": 2, "busy": 1, "idle": 1}
        assert seen["queues"] == {"unassigned": 0, "tasks": 0, "direct": 1}
        assert seen["completed"] == 2
        assert seen["latest"].pop("since")
        assert seen["latest"] == {"count": 2, "ok": 1, "failed": 1, "aborted": 0}
        assert seen["database"] == {"answers": True, "error": None}
        result = await it.ask("status")
        assert result.exit_code == 0
        for line in ("engines     2: 1 busy, 1 idle", "at engines  0 load-balanced, 1 direct", "1 ok, 1 failed"):
            assert line in result.stdout
        assert f"hub         trio-hub at {seen['hub']['address']}, open (not encrypted)\n" in result.stdout
        assert "\x1b" not in result.stdout


async def test_status_of_a_hub_that_encrypts(tmp_path: Path) -> None:
    async with world(tmp_path, engines=0, curve=True) as it:
        assert (await it.ask_json("status"))["hub"]["connections"] == "encrypted"


async def test_status_of_a_hub_without_engines_and_records(tmp_path: Path) -> None:
    async with world(tmp_path, engines=0, db="none") as it:
        seen = await it.ask_json("status")
        assert seen["latest"] is None
        assert not seen["database"]["answers"]
        result = await it.ask("status")
        assert "finished    -\n" in result.stdout


async def test_engines(tmp_path: Path) -> None:
    async with world(tmp_path, engines=2) as it:
        await it.client.reply(it.client.call(it.engines[1]))
        rows = (await it.ask_json("engines"))["engines"]
        assert [row["uuid"] for row in rows] == [engine.uuid for engine in it.engines]
        assert rows[1] == {
            "id": 1,
            "uuid": it.engines[1].uuid,
            "state": "idle",
            "tasks": 0,
            "queue": 0,
            "completed": 1,
            "block": None,
            "offers": {},
            "drain": None,
            "leaves": None,
        }
        title, first, second = (await it.ask("engines")).stdout.splitlines()
        assert title.split() == ["ID", "STATE", "TASKS", "DIRECT", "COMPLETED", "UUID"]
        assert first.split() == ["0", "idle", "0", "0", "0", it.engines[0].uuid]
        assert second.split() == ["1", "idle", "0", "0", "1", it.engines[1].uuid]


async def test_engines_with_tags_that_are_drained_or_leave(tmp_path: Path) -> None:
    async with world(tmp_path, engines=2) as it:
        first, second = it.engines
        second.hold()
        it.client.call(second)
        await second.wait_requests(1)
        it.hub.tag(first.uuid, {"site": "a", "gpu": 2, "memory": "32G"})
        await it.client.query("drain_request", {"engines": [1], "by": "ann", "deadline": 600, "then": "shutdown"})
        first.send_raw("registration", first._write("drain_request", {"uuid": first.uuid, "drain": False} | LEAVES))
        await eventually(lambda: it.hub.core.engines.alive[0].leaves_at is not None)
        one, other = (await it.ask_json("engines"))["engines"]
        assert one["offers"] == {"gpu": 2.0, "memory": 32.0 * 2**30, "site": "a"}
        assert (one["drain"], one["leaves"], other["leaves"]) == (None, "9999-01-02T00:00:00+00:00", None)
        assert (other["drain"]["by"], other["drain"]["then"]) == ("ann", "shutdown")
        deadline = datetime.fromisoformat(other["drain"]["deadline"])
        assert 500 < (deadline - datetime.now(UTC)).total_seconds() <= 600
        title, row, drained = (await it.ask("engines")).stdout.splitlines()
        assert title.split()[6:] == ["DRAINED", "LEAVES", "OFFERS"]
        assert row.split()[6:] == ["-", *shown(one["leaves"]), "gpu=2,", "memory=32G,", "site=a"]
        assert f"by ann until {' '.join(shown(other['drain']['deadline']))}, then shutdown" in drained


def shown(date: str) -> list[str]:
    return clock(datetime.fromisoformat(date)).split()


LEAVES = {"seconds_left": 1e13}


async def test_no_engines(tmp_path: Path) -> None:
    async with world(tmp_path, engines=0) as it:
        assert await it.ask_json("engines") == {"engines": []}
        result = await it.ask("engines")
        assert (result.exit_code, result.stdout, result.stderr) == (0, "", "no engines\n")


async def test_tasks(tmp_path: Path) -> None:
    async with world(tmp_path) as it:
        good = await it.run(pow, 2, 3, label="tides")
        bad = await it.run(divmod, 1, 0, label="night\x1b[2J-1")
        it.engines[0].hold()
        running = it.submit(pow, 1, 1)
        await it.engines[0].wait_requests(1)
        queued = it.submit(pow, 1, 1)
        waiting = it.submit(pow, 1, 1, after=[queued])
        await it.client.query("connection_request")

        async def found(*arguments: str) -> list[str]:
            return [row["msg_id"] for row in (await it.ask_json("tasks", *arguments))["tasks"]]

        assert await found() == [good, bad, running, queued, waiting]
        assert await found("--limit", "2") == [queued, waiting]
        assert await found("--state", "ok") == [good]
        assert await found("--state", "failed") == [bad]
        assert await found("--state", "ok", "--state", "failed") == [good, bad]
        assert await found("--state", "aborted") == []
        assert await found("--state", "running") == [running]
        assert await found("--state", "waiting") == [waiting]
        assert await found("--state", "queued") == await found("--state", "queued", "--limit", "1") == [queued]
        assert await found("--state", "waiting", "--limit", "1") == [waiting]
        assert await found("--state", "waiting", "--state", "queued") == [queued, waiting]
        assert await found("--state", "waiting", "--state", "running") == [running, waiting]
        assert await found("--state", "waiting", "--state", "ok") == [good, waiting]
        assert await found("--state", "waiting", '{"submitted": {"$gte": "2020-01-01"}}') == [waiting]
        assert await found("--label", "tides") == [good]
        assert await found("--label", "t*") == [good]
        assert await found("--engine", "0") == [good, bad, running]
        assert await found("--engine", it.engines[0].uuid, "--state", "ok") == [good]
        assert await found("--since", "1h") == [good, bad, running, queued, waiting]
        assert await found("--since", "2999-01-01") == []
        assert await found('{"result_content.ename": "ZeroDivisionError"}') == [bad]
        assert await found('{"submitted": {"$gte": "2020-01-01"}}', "--limit", "1") == [waiting]
        (row,) = (await it.ask_json("tasks", "--state", "failed"))["tasks"]
        assert row["error"] == {"ename": "ZeroDivisionError", "evalue": "integer division or modulo by zero"}
        assert row["engine_id"] == 0
        assert row["queue"] == "task"
        assert row["seconds"] >= 0
        lines = (await it.ask("tasks")).stdout.splitlines()
        assert [line.split()[:2] for line in lines[1:]] == [
            [good, "ok"],
            [bad, "failed"],
            [running, "running"],
            [queued, "queued"],
            [waiting, "waiting"],
        ]
        assert lines[2].endswith("night [2J-1  ZeroDivisionError: integer division or modulo by zero")
        assert (await it.ask("tasks", "--label", "nothing")).stderr == "no matching requests\n"


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["tasks", "nonsense"], "it is not JSON"),
        (["tasks", "[1]"], "it is not a JSON object"),
        (["tasks", "--since", "someday"], "'someday' is neither a date"),
        (["tasks", "--limit", "0"], "--limit"),
        (["tasks", '{"label": "a"}', "--label", "b"], "QUERY already has a condition on label: leave out --label"),
        (["tasks", "--profile=a", "--profile-dir=b"], "profile and profile_dir each say"),
        (["purge", "--older-than", "-3"], "'-3' is not a duration"),
        (["wait", "--engines", "1", "a"], "but not both"),
        (["shutdown"], "give --engine ID, --engines or --hub"),
        (["shutdown", "--engine", "1", "--hub"], "give --engine ID, --engines or --hub"),
        (["purge"], "give exactly one of MSG_IDs"),
        (["purge", "a", "--all"], "give exactly one of MSG_IDs"),
        (["top"], "this is not a terminal"),
        (["completion", "tcsh"], "tcsh"),
    ],
)
async def test_bad_usage(arguments: list[str], complaint: str) -> None:
    result = await invoke(*arguments)
    assert result.exit_code == 2
    assert complaint in result.stderr
    assert not result.stdout


async def test_an_engine_that_is_not_there(tmp_path: Path) -> None:
    async with world(tmp_path) as it:
        result = await it.ask("tasks", "--engine", "7")
        assert result.exit_code == 1
        assert result.stderr.startswith("trio-hub: no engine 7 is registered (registered: 0")


async def test_a_query_that_the_hub_refuses(tmp_path: Path) -> None:
    async with world(tmp_path) as it:
        result = await it.ask("tasks", '{"nonsense": 1}')
        assert result.exit_code == 1
        assert result.stderr.startswith("trio-hub: QueryError: query['nonsense']")
        assert result.stderr.count("\n") == 1


async def test_task(tmp_path: Path) -> None:
    async with world(tmp_path) as it:
        it.engines[0].hold()
        msg_id = it.submit(divmod, 1, 0, label={"run": 7})
        (request,) = await it.engines[0].wait_requests(1)
        request.print("half way\n")
        it.engines[0].release()
        await it.client.reply(msg_id)
        told = await it.ask_json("task", msg_id)
        assert told["state"] == "failed"
        assert told["error"]["traceback"] == ["here", "there"]
        assert told["stdout"] == "half way\n"
        assert told["label"] == {"run": 7}
        assert told["msg_type"] == "apply_request"
        assert told["engine_uuid"] == it.engines[0].uuid
        text = (await it.ask("task", msg_id)).stdout
        assert text.startswith("state       failed\n")
        assert f"engine      0 ({it.engines[0].uuid})\n" in text
        assert "\nstdout:\nhalf way\n" in text
        assert "\nerror:\nhere\nthere\nZeroDivisionError: integer division or modulo by zero\n" in text


async def test_a_task_says_why_it_waits(tmp_path: Path) -> None:
    async with world(tmp_path) as it:
        it.engines[0].hold()
        runs = it.submit(pow, 1, 1)
        await it.engines[0].wait_requests(1)
        waits = it.submit(divmod, 1, 1, label="a label")
        direct = it.client.call(it.engines[0])
        await it.client.query("connection_request")
        assert (await it.ask_json("task", runs))["why_waiting"] == (
            "engine 0 runs one request at a time, and was sent one request of other queues"
        )
        told = await it.ask_json("task", waits)
        assert told["why_waiting"] == (
            "no free engine: all engines are busy, with 1 task each (setting hwm); 1 task is queued"
        )
        assert told["name"] is None, "it has a label"
        assert (await it.ask_json("task", direct))["why_waiting"] == (
            "engine 0 runs one request at a time, and was sent one request of other queues"
        )
        text = (await it.ask("task", waits)).stdout
        assert "state       queued\nwaits       no free engine: all engines are busy" in text
        assert "function    pow\n" in (await it.ask("task", runs)).stdout
        it.engines[0].release()
        await it.client.reply(waits)
        assert (await it.ask_json("task", waits))["why_waiting"] is None
        assert "waits" not in (await it.ask("task", waits)).stdout


async def test_requests_without_a_label_have_the_name_of_their_function(tmp_path: Path) -> None:
    async with world(tmp_path) as it:
        await it.run(pow, 2, 3)
        await it.run(divmod, 1, 0, label="tides")
        named, labelled = (await it.ask_json("tasks"))["tasks"]
        assert (named["label"], named["name"]) == (None, "pow")
        assert (labelled["label"], labelled["name"]) == ("tides", None)
        lines = (await it.ask("tasks")).stdout.splitlines()
        assert lines[1].endswith(" pow")
        assert lines[2].endswith(" tides  ZeroDivisionError: integer division or modulo by zero")


@pytest.mark.parametrize(("columns", "lines"), [(80, 24), (200, 50)])
async def test_tasks_in_a_terminal(tmp_path: Path, columns: int, lines: int) -> None:
    """The error is seen, however long the label is, and no line is wrapped."""
    async with world(tmp_path) as it:
        long, short = "label " * 50, "tides"
        failed = [await it.run(divmod, 1, 0, label=label) for label in (long, short)]

        def watch() -> list[str]:
            with terminal("tasks", f"--connection-file={it.file}", columns=columns, lines=lines) as screen:
                assert screen.end() == 0
                return screen.seen.splitlines()

        seen = await trio.to_thread.run_sync(watch)
        assert max(map(len, seen)) <= columns
        text = "\n".join(seen)
        assert all(msg_id in text for msg_id in failed)
        errors = [line for line in seen if "ZeroDivisionError: integer division" in line]
        assert len(errors) == 2
        assert "label label" in errors[0]
        assert "tides  ZeroDivisionError: integer division or modulo by zero" in errors[1]
        assert len(seen) == (6 if columns == 80 else 3)


@pytest.mark.parametrize(
    ("label", "error", "room", "shown"),
    [
        ("tides", None, None, "tides"),
        ("tides", ("OSError", "no"), None, "tides  OSError: no"),
        ("", ("OSError", "no"), 5, "OSError: no"),
        ("l" * 90, ("OSError", "no"), 40, "l" * 26 + "…  OSError: no"),
        ("l" * 90, ("OSError", "e" * 90), 30, "l" * 9 + "…  OSError: " + "e" * 90),
        ({"run": 7}, ("OSError", "no\nmore"), 80, '{"run": 7}  OSError: no more'),
    ],
)
def test_a_long_label_leaves_room_for_the_error(
    label: object, error: tuple[str, str] | None, room: int | None, shown: str
) -> None:
    told = None if error is None else {"ename": error[0], "evalue": error[1]}
    assert what({"label": label, "name": None, "error": told}, room) == shown


async def test_a_task_that_the_hub_does_not_know(tmp_path: Path) -> None:
    async with world(tmp_path) as it:
        result = await it.ask("task", "nobody")
        assert result.exit_code == 1
        assert "the hub has no record of nobody" in result.stderr


async def test_many_tasks_are_listed_from_the_end(tmp_path: Path) -> None:
    """The latest tasks are found, however old the oldest tasks are."""
    async with world(tmp_path, behaviour=failing("OSError", "so\nit is")) as it:
        msg_ids = [it.client.submit() for _ in range(120)]
        for msg_id in msg_ids:
            await it.client.reply(msg_id)
        result = await it.ask("tasks", "--limit", "100", "--json")
        rows = json.loads(result.stdout)["tasks"]
        assert [row["msg_id"] for row in rows] == msg_ids[-100:]
        lines = (await it.ask("tasks", "--limit", "1")).stdout.splitlines()
        assert lines[1].endswith("OSError: so it is")


async def test_no_command_prints_what_controls_a_terminal(tmp_path: Path) -> None:
    def fails() -> None:
        raise ValueError("w\x1b[2Jo\u061cr\ufeffs\x9be")

    async with world(tmp_path) as it:
        msg_id = await it.run(fails)
        for words in (
            ("task", msg_id),
            ("tasks",),
            ("result", msg_id),
            ("tail", msg_id),
            ("task", "n\x1b[2Jo\u061cne"),
        ):
            result = await it.ask(*words)
            text = result.stdout + result.stderr
            assert "w" in text
            assert [char for char in "\x1b\u061c\ufeff\x9b" if char in text] == [], (words, text)
