"""The answers of ``/api/…`` over real connections: right answers, and refusals with reasons."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from trio_hub.dashboard import story, tasks
from trio_hub.wire.messages import error_content

from ..runtime.support import cluster, eventually
from .chrome import tasks_in
from .support import Site, fetch, open_dashboard, site


async def fail(site: Site, text: str, **metadata: Any) -> str:
    """Have a task fail, and return its msg_id."""
    site.engine.hold()
    msg_id = site.client.submit(metadata=metadata)
    await eventually(lambda: bool(site.engine.held))
    site.engine.held[0].answer(content=error_content("ValueError", text, traceback=["\x1b[31mhere", "there\x1b[0m"]))
    await site.client.reply(msg_id)
    site.engine.release()
    return msg_id


async def test_engines_and_what_they_do() -> None:
    async with site() as at:
        await at.client.reply(at.client.submit(metadata={"label": "work"}))
        failed = await fail(at, "no\nand no again", label="bad")
        at.engine.hold()
        running = at.client.submit(metadata={"label": "work"})
        await eventually(lambda: bool(at.engine.held))
        direct = at.client.call(at.engine)
        await eventually(lambda: len(at.engine.held) == 2)
        table = await at.get("/api/engines")
        assert table["funnel"] == {"requested": 1, "replied": 1, "first_heartbeat": 1, "stalled": 0}
        (row,) = table["engines"]
        assert row["registered"] <= table["now"]
        assert row["running"].pop("since") <= table["now"]
        assert row["last_error"].pop("t") <= table["now"]
        del row["registered"]
        assert row.pop("heartbeat_age") >= 0
        assert row == {
            "id": 0,
            "uuid": at.engine.uuid,
            "host": "127.0.0.1",
            "pid": None,
            "state": "alive",
            "missed": 0,
            "load": 1,
            "direct": 1,
            "running": {"msg_id": running, "label": "work"},
            "done": 2,
            "failed": 1,
            "usage": None,
            "drain": None,
            "block": None,
            "offers": {},
            "leaves": None,
            "last_error": {"msg_id": failed, "ename": "ValueError", "evalue": "no"},
        }
        page = await at.get(f"/api/engines/{at.engine.uuid}")
        assert [event["event"] for event in page["history"]] == ["requested", "replied", "registered"]
        assert [bar[5] for bar in page["recent"]] == ["ok", "failed", "running", "running"]
        assert page["recent"][-1][-1] == direct
        assert set(page["labels"].values()) == {"work", "bad", "apply"}
        at.engine.release()
        at.engine.leave()
        await at.client.notification("unregistration_notification")
        await eventually(lambda: not at.hub.core.engines.lost)
        gone = await at.get(f"/api/engines/{at.engine.uuid}")
        assert (gone["state"], gone["done"], gone["load"]) == ("lost", 4, 0)
        assert [event["event"] for event in gone["history"]][-2:] == ["lost", "settled"]
        assert (await at.get("/api/engines"))["engines"] == []
        assert "nobody" in await at.refused("/api/engines/nobody", 404)


async def test_engines_that_were_there_before() -> None:
    async with cluster(2) as (hub, client, engines), open_dashboard(hub) as dashboard:
        for _ in range(4):
            await client.reply(client.submit())
        at = Site(hub, client, engines[0], dashboard)
        rows = (await at.get("/api/engines"))["engines"]
        assert [(row["id"], row["uuid"], row["registered"]) for row in rows] == [
            (0, engines[0].uuid, None),
            (1, engines[1].uuid, None),
        ]
        assert sum(row["done"] for row in rows) == 4
        assert {engine["id"] for engine in (await at.get("/api/stream"))["engines"].values()} <= {0, 1}


async def test_bars() -> None:
    async with site() as at:
        one = at.client.submit(metadata={"label": "work"})
        await at.client.reply(one)
        first = await at.get("/api/stream")
        ((seq, row, start, end, kind, status, label, msg_id),) = first["bars"]
        assert (kind, status, msg_id) == ("task", "ok", one)
        assert start <= end
        assert first["labels"] == {str(label): "work"}
        assert first["engines"] == {str(row): {"uuid": at.engine.uuid, "id": 0}}
        assert (first["next"], first["lost"], first["waiting"]) == (seq, 0, 0)
        at.engine.hold()
        at.client.submit()
        at.client.submit()
        await eventually(lambda: bool(at.engine.held))
        await eventually(lambda: at.hub.statistics().tasks_queued == 1)
        then = await at.get(f"/api/stream?since={seq}")
        assert [(bar[3], bar[5]) for bar in then["bars"]] == [(None, "running")]
        assert then["waiting"] == 1
        assert (await at.get(f"/api/stream?since={then['next']}"))["bars"] == []
        for wrong in ("x", "-1", "1.5", "²", "9" * 30):
            assert "since" in await at.refused(f"/api/stream?since={quote(wrong)}", 400)


async def test_the_trace_is_one_that_chrome_reads() -> None:
    async with site() as at:
        await at.client.reply(at.client.submit(metadata={"label": "work"}))
        at.engine.hold()
        at.client.submit(metadata={"label": "long"})
        await eventually(lambda: bool(at.engine.held))
        answer = await at.ask("/api/trace")
        assert answer.headers["content-disposition"] == 'attachment; filename="trio-hub-trace.json"'
        tasks = tasks_in(unchunked(answer.body))
        assert [task["name"] for task in tasks] == ["work", "long"]
        events = json.loads(unchunked(answer.body))["traceEvents"]
        names = {event["tid"]: event["args"]["name"] for event in events if event["name"] == "thread_name"}
        assert names == {tasks[0]["tid"]: f"engine 0 {at.engine.uuid}"}


async def test_in_a_trace_an_engine_does_one_thing_after_the_other() -> None:
    async with site() as at:
        at.engine.hold()
        calls = [at.client.call(at.engine) for _ in range(4)]
        await eventually(lambda: len(at.engine.held) == 4)
        for held, call in zip(at.engine.held[:2], calls, strict=False):
            held.answer()
            await at.client.reply(call)
        tasks = tasks_in(unchunked((await at.ask("/api/trace")).body))
        assert [task["args"]["msg_id"] for task in tasks] == calls[:3], "the last one waits at the engine"
        assert [task["args"]["status"] for task in tasks] == ["ok", "ok", "running"]
        first, second, third = tasks
        assert first["args"]["sent"] <= second["args"]["sent"] <= third["args"]["sent"] <= second["ts"]
        assert first["ts"] + first["dur"] == second["ts"]
        assert second["ts"] + second["dur"] == third["ts"]


def unchunked(body: str) -> str:
    text = ""
    while body:
        size, _, body = body.partition("\r\n")
        text += body[: int(size, 16)]
        body = body[int(size, 16) + 2 :]
    return text


async def test_progress_and_failures() -> None:
    async with site() as at:
        for _ in range(2):
            await at.client.reply(at.client.submit(metadata={"label": "work"}))
        await fail(at, "no", label="bad")
        last = await fail(at, "no", label="bad")
        rows = {row["label"]: row for row in (await at.get("/api/labels"))["labels"]}
        assert rows["work"].pop("run_seconds") >= 0
        zero = {"queued": 0, "running": 0, "ok": 0, "failed": 0, "aborted": 0}
        assert rows["work"] == zero | {"label": "work", "submitted": 2, "ok": 2}
        assert (rows["bad"]["submitted"], rows["bad"]["failed"]) == (2, 2)
        (group,) = (await at.get("/api/failures"))["groups"]
        assert group.pop("first") <= group.pop("last")
        assert sum(group.pop("per_minute")) == 2
        assert group == {
            "group": 1,
            "ename": "ValueError",
            "where": "",
            "evalue": "no",
            "count": 2,
            "msg_id": last,
            "engine_id": 0,
            "labels": [{"label": "bad", "count": 2}],
            "labels_more": 0,
            "engines": [{"id": 0, "count": 2}],
            "engines_more": 0,
            "examples": ["no"],
            "traceback": "\x1b[31mhere\nthere\x1b[0m",
        }
        await at.hub.purge({})
        assert (await at.get("/api/failures"))["groups"][0]["traceback"] == ""


@pytest.mark.parametrize("db", ["memory", "sqlite"])
async def test_tasks_are_listed_the_newest_first(db: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tasks, "SLICE", 4)
    async with site(db=db if db == "memory" else f"sqlite:///{tmp_path / 'tasks.sqlite'}") as at:
        ids = []
        for number in range(10):
            ids.append(at.client.submit(metadata={"label": f"label {number % 2}"}))
            await at.client.reply(ids[-1])
        ids.append(await fail(at, "no"))
        ids.reverse()
        everything = await at.get("/api/tasks")
        assert [row["msg_id"] for row in everything["rows"]] == ids
        assert (everything["next"], everything["total"]) == (None, 11)
        row = everything["rows"][1]
        assert row.pop("submitted") <= row.pop("completed")
        assert row.pop("started") is not None
        assert row == {
            "msg_id": ids[1],
            "label": "label 1",
            "kind": "task",
            "state": "ok",
            "engine_id": 0,
            "engine_uuid": at.engine.uuid,
            "client": at.client.session.session_id,
            "error": None,
        }
        assert everything["rows"][0]["state"] == "failed"
        assert everything["rows"][0]["error"] == {"ename": "ValueError", "evalue": "no"}
        for query in (
            "?limit=3",
            "?limit=1",
            "?limit=3&text=LABEL",
            "?limit=2&query=%7B%22label%22:%22label%201%22%7D",
        ):
            assert [row["msg_id"] for row in await all_rows(at, query)] == [
                row["msg_id"]
                for row in everything["rows"]
                if "label" in row["label"] or not ("text" in query or "query" in query)
                if "query" not in query or row["label"] == "label 1"
            ]
        assert (await at.get("/api/tasks?text=nothing"))["rows"] == []
        assert len((await at.get("/api/tasks?limit=0"))["rows"]) == 1
        monkeypatch.setattr(tasks, "MAX_LOOKED_AT", 4)
        far = await at.get("/api/tasks?text=label%200&limit=100")
        assert len(far["rows"]) < 5
        assert far["next"] is not None, "it goes on from there"
        assert len(await all_rows(at, "?text=label%200")) == 5


async def all_rows(at: Site, query: str) -> list[Any]:
    rows: list[Any] = []
    before = ""
    while True:
        page = await at.get(f"/api/tasks{query}{before}")
        rows += page["rows"]
        if page["next"] is None:
            return rows
        before = f"&before={page['next']}"


async def test_what_cannot_be_listed_is_named() -> None:
    async with site() as at:
        for query, part in (
            ("query={", "not JSON"),
            ("query=5", "expected an object"),
            ("query=%7B%22nonsense%22:1%7D", "nonsense"),
            ("query=%7B%22label%22:%7B%22$what%22:1%7D%7D", "$what"),
            ("limit=1001", "1000 at most"),
            ("limit=many", "whole number"),
            ("before=gone", "gone"),
        ):
            assert part in await at.refused(f"/api/tasks?{query}", 400)


async def test_one_task_with_its_story() -> None:
    async with site() as at:
        done = at.client.submit(metadata={"label": "work"})
        await at.client.reply(done)
        details = await at.get(f"/api/tasks/{done}")
        assert details["row"]["state"] == "ok"
        whats = [step["what"] for step in details["story"]]
        assert sorted(whats) == sorted(["submitted", "sent", "started", "completed", "received"])
        assert (details["why_waiting"], details["error"], details["stdout"]) == (None, None, "")
        assert details["header"]["msg_id"] == done
        assert details["metadata"] == {"label": "work"}
        failed = await fail(at, "no")
        error = (await at.get(f"/api/tasks/{failed}"))["error"]
        assert error == {"ename": "ValueError", "evalue": "no", "traceback": "\x1b[31mhere\nthere\x1b[0m"}
        again = (await at.hub.resubmit([done]))[done]
        await eventually(lambda: at.hub.statistics().completed == 2)
        assert (await at.get(f"/api/tasks/{done}"))["resubmitted_as"] == [again]
        assert (await at.get(f"/api/tasks/{again}"))["resubmission_of"] == done
        assert "was dropped or purged" in await at.refused("/api/tasks/nothing", 404)


async def test_the_rules_of_a_task_and_the_engines_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    async with site() as at:
        at.hub.add_policy({"name": "low", "priority": -2})
        at.engine.hold()
        running = at.client.submit(metadata={"label": {"grace": 3}})
        await eventually(lambda: bool(at.engine.held))
        queued = at.client.submit(metadata={"rules": {"needs": {"gpu": 1}}})
        await eventually(lambda: queued in at.hub.core.tasks.scheduler.tasks)
        details = await at.get(f"/api/tasks/{running}")
        assert (details["rules"], details["policies"]) == ({"priority": -2, "grace": 3.0}, ["low"])
        assert (details["attempts"], details["explained_more"]) == (1, 0)
        [engine] = details["explained"]
        assert (engine["id"], engine["uuid"], engine["may"], engine["word"]) == (0, at.engine.uuid, True, "runs_it")
        details = await at.get(f"/api/tasks/{queued}")
        assert details["attempts"] == 0
        assert [(engine["may"], engine["word"]) for engine in details["explained"]] == [(False, "lacks")]
        monkeypatch.setattr(story, "MAX_EXPLAINED", 0)
        details = await at.get(f"/api/tasks/{queued}")
        assert (details["explained"], details["explained_more"]) == ([], 1)
        at.engine.release()
        await at.client.reply(running)
        details = await at.get(f"/api/tasks/{running}")
        assert (details["rules"], details["policies"]) == ({"priority": -2, "grace": 3.0}, ["low"])
        assert (details["attempts"], details["explained"]) == (1, [])


async def test_long_output_is_shown_in_part_and_downloaded_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(story, "MAX_TEXT", 10)
    async with site() as at:
        at.engine.hold()
        task = at.client.submit()
        await eventually(lambda: bool(at.engine.held))
        at.engine.held[0].print("0123456789 and more")
        at.engine.release()
        await at.client.reply(task)
        details: Any = {"stdout": ""}
        while not details["stdout"]:  # output has another way than results
            details = await at.get(f"/api/tasks/{task}")
        assert (details["stdout"], details["stdout_left_out"]) == ("9 and more", 9)
        assert (details["stderr"], details["stderr_left_out"]) == ("", 0)
        whole = await at.ask(f"/api/output/stdout/{task}")
        assert whole.body == "0123456789 and more"
        assert whole.headers["content-type"] == "text/plain; charset=utf-8"
        assert whole.headers["content-disposition"] == f'attachment; filename="{task}-stdout.txt"'
        assert (await at.ask(f"/api/output/stderr/{task}")).body == ""
        assert "there is no record" in await at.refused("/api/output/stdout/nothing", 404)
        assert "'stdin'" in await at.refused(f"/api/output/stdin/{task}", 400)


async def test_why_a_task_waits() -> None:
    async with site() as at:
        at.engine.hold()
        running = at.client.submit()
        await eventually(lambda: bool(at.engine.held))
        queued = at.client.submit()
        after = at.client.submit(metadata={"after": [running, queued]})
        targeted = at.client.submit(metadata={"targets": [at.engine.uuid, "nobody"]})
        await eventually(lambda: at.hub.statistics().submitted == 4)

        async def why(msg_id: str) -> Any:
            return (await at.get(f"/api/tasks/{msg_id}"))["why_waiting"]

        assert await why(running) is None
        busy = "no free engine: all engines are busy, with 1 task each (setting hwm); 2 tasks are queued"
        assert await why(queued) == busy
        assert await why(after) == f"it depends on {', '.join(sorted((running, queued)))}"
        assert (await at.get(f"/api/tasks/{after}"))["waits_for"] == sorted((running, queued))
        assert (await at.get(f"/api/tasks/{after}"))["waits_for_more"] == 0
        assert await why(targeted) == f"it may run only on its targets: 0, nobody; {busy}"
        assert (await at.get(f"/api/tasks/{targeted}"))["waits_for"] == []
        direct = at.client.call(at.engine)
        await eventually(lambda: len(at.engine.held) == 2)
        assert await why(direct) == "engine 0 runs one request at a time, and was sent one request before this one"
        states = {row["msg_id"]: row["state"] for row in (await at.get("/api/tasks"))["rows"]}
        assert states == {
            running: "running",
            queued: "queued",
            after: "waiting",
            targeted: "queued",
            direct: "running",
        }
        for state in ("queued", "waiting", "running"):
            rows = (await at.get(f"/api/tasks?state={state}"))["rows"]
            assert {row["msg_id"] for row in rows} == {one for one, its in states.items() if its == state}
        assert await at.get("/api/count?state=waiting") == {"abort": 1, "cancel": 1, "resubmit": 0}
        assert "state: expected" in await at.refused("/api/tasks?state=ok", 400)
        at.engine.leave()
        await at.client.notification("unregistration_notification")
        assert await why(queued) == "no engine is registered"


async def test_files_are_served_by_their_names_and_no_others() -> None:
    async with site() as at:
        page = await at.ask("/")
        assert page.headers["content-type"] == "text/html; charset=utf-8"
        policy = page.headers["content-security-policy"]
        assert "script-src 'self'" in policy
        assert "unsafe" not in policy
        same = await at.ask("/static/index.html")
        assert (same.body, same.headers["etag"]) == (page.body, page.headers["etag"])
        headers = {"Authorization": f"Bearer {at.dashboard.token}", "If-None-Match": page.headers["etag"]}
        assert (await fetch(at.dashboard.port, "/", headers))[::2] == (304, "")
        for name in ("nothing", "..%2Fapp.py", "%2e%2e/app.py", "", "index.html/x", "__init__.py"):
            assert (await at.ask(f"/static/{name}")).status == 404
        assert "script-src" not in (await at.ask("/api/engines")).headers["content-security-policy"]
