"""Actions of the dashboard: only if they are allowed, only from our own pages, and always logged."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from time import time
from typing import Any
from urllib.parse import quote

import pytest

from trio_hub.dashboard import actions, bulk
from trio_hub.wire.messages import error_content

from ..runtime.support import eventually
from .support import Answer, Site, fetch, site


async def act(at: Site, name: str, body: Any = None, *, query: str = "", **headers: str) -> Answer:
    fields = {"Authorization": f"Bearer {at.dashboard.token}", "X-Trio-Hub": "1"} | headers
    packed = body if isinstance(body, bytes) else json.dumps({} if body is None else body).encode()
    return await fetch(at.dashboard.port, f"/api/actions/{name}{query}", fields, method="POST", body=packed)


async def done(at: Site, name: str, body: Any = None, **arguments: str) -> Any:
    answer = await act(at, name, body, **arguments)
    assert answer.status == 200, answer
    return json.loads(answer.body)


async def refused(at: Site, name: str, body: Any, status: int, part: str) -> None:
    answer = await act(at, name, body)
    assert answer.status == status
    assert part in json.loads(answer.body)["error"]


async def test_nothing_is_done_unless_it_is_allowed() -> None:
    async with site() as at:
        for name in (*actions.ACTIONS, "nonsense"):
            await refused(at, name, {}, 403, "--dashboard-admin")
        assert not at.hub.is_stopping


async def test_nothing_is_done_for_another_site_or_a_stranger() -> None:
    async with site(dashboard_admin=True) as at:
        for value in ("", "0", "yes"):
            answer = await act(at, "stop_hub", **{"X-Trio-Hub": value})
            assert (answer.status, "X-Trio-Hub" in answer.body) == (403, True)
        assert (await act(at, "stop_hub", Authorization="Bearer wrong")).status == 403
        assert (await at.ask("/api/actions/stop_hub")).status == 405
        assert not at.hub.is_stopping


async def test_tasks_are_aborted_resubmitted_and_purged() -> None:
    async with site(dashboard_admin=True) as at:
        at.engine.hold()
        runs = at.client.submit()
        await eventually(lambda: bool(at.engine.held))
        queued = at.client.submit()
        dependent = at.client.submit(metadata={"after": [queued]})
        await eventually(lambda: at.hub.statistics().submitted == 3)
        answer = await done(at, "abort", {"msg_ids": [runs, queued, "unknown"]})
        assert answer == {"aborted": [queued], "not_queued": [runs, "unknown"]}
        assert (await at.client.reply(queued)).content == {"status": "aborted"}
        assert (await at.client.reply(dependent)).content["ename"] == "ImpossibleDependency"
        row = (await at.get(f"/api/tasks/{queued}"))["row"]
        assert row["state"] == "aborted"
        at.engine.release()
        await at.client.reply(runs)
        again = (await done(at, "resubmit", {"msg_ids": [runs]}))["resubmitted"]
        assert again.keys() == {runs}
        await eventually(lambda: at.hub.statistics().completed == 2)
        assert await done(at, "purge", {"msg_ids": [runs, "unknown"]}) == {"purged": 1}
        assert await done(at, "purge", {"query": {"msg_id": again[runs]}}) == {"purged": 1}
        assert await done(at, "purge", {"all": True}) == {"purged": 2}


async def test_all_tasks_that_are_found_are_aborted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bulk, "SLICE", 2)
    async with site(dashboard_admin=True) as at:
        at.engine.hold()
        at.client.submit(metadata={"label": "night-0"})
        await eventually(lambda: bool(at.engine.held))
        night = [at.client.submit(metadata={"label": f"night-{number}"}) for number in range(5)]
        day = [at.client.submit(metadata={"label": "day"}) for _ in range(3)]
        await eventually(lambda: at.hub.statistics().submitted == 9)
        query = {"label": {"$glob": "night-*"}}
        path = f"/api/count?query={quote(json.dumps(query))}"
        assert await at.get("/api/count") == {"abort": 8, "cancel": 9, "resubmit": 0}
        assert await at.get(path) == {"abort": 5, "cancel": 6, "resubmit": 0}
        assert await at.get(f"{path}&text=NIGHT-3") == {"abort": 1, "cancel": 1, "resubmit": 0}
        assert await done(at, "abort", {"query": query, "text": "NIGHT-3"}) == {"aborted": [night[3]], "not_queued": []}
        assert set((await done(at, "abort", {"query": query}))["aborted"]) == {*night} - {night[3]}
        assert await at.get(path) == {"abort": 0, "cancel": 1, "resubmit": 5}
        assert set((await done(at, "abort", {"query": {}}))["aborted"]) == {*day}
        await refused(at, "abort", {"query": {}, "msg_ids": night}, 400, "either")
        await refused(at, "abort", {"query": {}, "text": 5}, 400, "text")
        await refused(at, "resubmit", {"query": {"nonsense": 1}}, 400, "nonsense")


async def test_tasks_are_cancelled_and_the_page_says_who_asked_when_and_what_it_took() -> None:
    async with site(dashboard_admin=True) as at:
        at.engine.hold()
        runs = at.client.submit()
        await eventually(lambda: bool(at.engine.held))
        waits = at.client.submit()
        await eventually(lambda: at.hub.statistics().submitted == 2)
        body = {"msg_ids": [runs, waits, "nothing"], "grace": 60}
        answer = await done(at, "cancel", body, query="?actor=ada")
        assert answer == {"withdrawn": [waits], "interrupted": [runs], "finished": [], "unknown": ["nothing"]}
        who = "ada (127.0.0.1)"
        found = (await at.get(f"/api/tasks/{waits}"))["cancelled"]
        assert (found["by"], found["took"]) == (who, "no engine had it")
        assert abs(found["asked"] - time()) < 60
        await at.engine.wait_requests(2)
        page = await at.get(f"/api/tasks/{runs}")
        assert page["row"]["state"] == "running"
        assert page["cancelled"]["by"] == who
        assert page["cancelled"]["took"] in ("it is being interrupted", "it was interrupted, and has not ended yet")
        at.engine.held.pop(0).fail("KeyboardInterrupt", "")
        await at.client.reply(runs)
        page = await at.get(f"/api/tasks/{runs}")
        assert page["row"]["error"]["ename"] == page["error"]["ename"] == "TaskCancelled"
        assert page["cancelled"]["took"].startswith("it was interrupted, and ended after ")
        assert [step["detail"] for step in page["story"] if step["what"] == "cancelled"] == [f"by {who}"]
        (entry,) = [one for one in (await at.get("/api/journal"))["entries"] if one["who"] == who]
        assert (entry["kind"], entry["text"], entry["count"]) == ("cancelled", "cancelled 2 requests", 2)
        assert (await done(at, "cancel", {"msg_ids": [runs]}))["finished"] == [runs]
        assert at.hub.statistics().service_failures == {}


async def test_all_tasks_that_are_found_are_cancelled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bulk, "SLICE", 2)
    async with site(dashboard_admin=True) as at:
        at.engine.hold()
        night = [at.client.submit(metadata={"label": "night"}) for _ in range(3)]
        day = at.client.submit(metadata={"label": "day"})
        direct = at.client.call(at.engine)
        await eventually(lambda: at.hub.statistics().submitted == 5)
        assert await at.get("/api/count") == {"abort": 3, "cancel": 5, "resubmit": 0}
        answer = await done(at, "cancel", {"query": {"label": "night"}, "grace": 0.5})
        assert {msg_id for what in ("withdrawn", "interrupted") for msg_id in answer[what]} == {*night}
        assert {*(await done(at, "cancel", {"query": {}, "text": day}))["withdrawn"]} == {day}
        assert (await at.get(f"/api/tasks/{direct}"))["cancelled"] is None


async def test_engines_are_drained_and_undrained() -> None:
    async with site(dashboard_admin=True) as at:
        at.hub.tag(at.engine.uuid, {"gpu": 2, "memory": "32G", "site": "a"})
        body = {"uuids": [at.engine.uuid], "deadline": 600}
        assert await done(at, "drain", body, query="?actor=ada") == {"drained": [at.engine.uuid]}
        (row,) = (await at.get("/api/engines"))["engines"]
        assert (row["drain"]["by"], row["drain"]["then"]) == ("ada (127.0.0.1)", None)
        assert 0 < row["drain"]["deadline"] - time() <= 600
        assert row["offers"] == {"gpu": 2, "memory": 2**35, "site": "a"}
        waits = at.client.submit()
        await eventually(lambda: at.hub.statistics().submitted == 1)
        page = await at.get(f"/api/tasks/{waits}")
        assert page["why_waiting"] == "these engines are drained: 0"
        assert [one["text"] for one in page["explained"]] == ["is drained: it gets no new tasks"]
        assert await done(at, "undrain", {"uuids": [at.engine.uuid]}) == {"undrained": [at.engine.uuid]}
        await at.client.reply(waits)
        details = await at.get(f"/api/engines/{at.engine.uuid}")
        assert details["drain"] is None
        assert [(one["event"], one["detail"]) for one in details["history"][-2:]] == [
            ("drained", "by ada (127.0.0.1)"),
            ("undrained", "by 127.0.0.1"),
        ]
        entries = {one["kind"]: one for one in (await at.get("/api/journal"))["entries"]}
        assert (entries["drained"]["who"], entries["drained"]["text"]) == ("ada (127.0.0.1)", "drained engine 0")
        assert entries["undrained"]["text"] == "undrained engine 0"
        await done(at, "drain", {"uuids": [at.engine.uuid], "then": "shutdown"})
        await at.engine.wait_until(lambda: at.engine.requests[-1].msg_type == "shutdown_request")


async def test_the_policies_of_the_hub_are_listed() -> None:
    async with site() as at:
        assert await at.get("/api/policies") == {"policies": []}
        at.hub.add_policy({"name": "night", "label": "night-*", "priority": -5})
        (policy,) = (await at.get("/api/policies"))["policies"]
        assert policy == {"name": "night", "source": "added", "label": "night-*", "priority": -5}


@pytest.mark.parametrize("db", ["memory", "sqlite"])
async def test_all_tasks_that_are_found_are_resubmitted_once(
    db: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bulk, "SLICE", 2)
    url = db if db == "memory" else f"sqlite:///{tmp_path / 'tasks.sqlite'}"
    async with site(dashboard_admin=True, db=url) as at:
        tasks = [at.client.submit(metadata={"label": "work" if number else "other"}) for number in range(6)]
        for task in tasks:
            await at.client.reply(task)
        again = await done(at, "resubmit", {"query": {"label": "work"}})
        assert (again["resubmitted"].keys(), again["refused"]) == ({*tasks[1:]}, [])
        await eventually(lambda: at.hub.statistics().completed == 11)
        fresh = [*again["resubmitted"].values()]
        last = await done(at, "resubmit", {"query": {"label": "work"}})
        assert [*last["resubmitted"]] == fresh, "each task is resubmitted once"


async def test_all_tasks_of_a_group_of_failures_are_resubmitted() -> None:
    async with site(dashboard_admin=True) as at:
        at.engine.hold()
        failed = []
        for number in range(3):
            failed.append(at.client.submit(metadata={"label": "bad"}))
            await eventually(lambda: bool(at.engine.held))
            traceback = [f'File "run.py", line {3 if number < 2 else 4}, in run']
            at.engine.held.pop().answer(content=error_content("ValueError", f"no {number}", traceback=traceback))
            await at.client.reply(failed[-1])
        other, group = (await at.get("/api/failures"))["groups"]
        assert (group["count"], group["where"], group["examples"]) == (2, "run.py:3 in run", ["no 1", "no 0"])
        assert other["count"] == 1
        at.engine.release()
        again = await done(at, "resubmit", {"group": group["group"]})
        assert (again["resubmitted"].keys(), again["refused"]) == ({*failed[:2]}, [])
        assert await done(at, "resubmit", {"group": group["group"]}) == {"resubmitted": {}, "refused": []}
        await refused(at, "resubmit", {"group": 99}, 404, "group 99")


async def test_an_engine_and_then_the_hub_are_stopped() -> None:
    async with site(dashboard_admin=True) as at:
        assert await done(at, "shutdown_engine", {"uuid": at.engine.uuid}) == {}
        await at.engine.wait_requests(1)
        assert at.engine.requests[-1].msg_type == "shutdown_request"
        assert await done(at, "stop_hub") == {}
        await at.hub.wait_stopped()


async def test_what_cannot_be_done_is_named() -> None:
    async with site(dashboard_admin=True) as at:
        for name, body, status, part in (
            ("nonsense", {}, 404, "the actions are abort"),
            ("abort", {}, 400, "msg_ids"),
            ("abort", {"msg_ids": []}, 400, "msg_ids"),
            ("abort", {"msg_ids": [1]}, 400, "msg_ids"),
            ("abort", b"{", 400, "not JSON"),
            ("abort", b"[]", 400, "object"),
            ("cancel", {}, 400, "msg_ids"),
            ("cancel", {"msg_ids": ["x"], "grace": -1}, 400, "grace"),
            ("cancel", {"msg_ids": ["x"], "grace": True}, 400, "grace"),
            ("cancel", {"query": {}, "msg_ids": ["x"]}, 400, "either"),
            ("drain", {}, 400, "uuids"),
            ("drain", {"uuids": ["nobody"]}, 404, "nobody"),
            ("drain", {"uuids": [at.engine.uuid], "deadline": "soon"}, 400, "deadline"),
            ("drain", {"uuids": [at.engine.uuid], "then": "dance"}, 400, "then"),
            ("drain", {"uuids": [at.engine.uuid], "then": 5}, 400, "then"),
            ("undrain", {"uuids": ["nobody"]}, 404, "nobody"),
            ("resubmit", {"msg_ids": ["unknown"]}, 404, "unknown"),
            ("purge", {}, 400, "give exactly one of"),
            ("purge", {"all": True, "query": {}}, 400, "give exactly one of"),
            ("purge", {"all": False}, 400, "all"),
            ("purge", {"query": {"nonsense": 1}}, 400, "nonsense"),
            ("shutdown_engine", {}, 400, "uuid"),
            ("shutdown_engine", {"uuid": "nobody"}, 404, "nobody"),
        ):
            await refused(at, name, body, status, part)


async def test_a_body_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(actions, "MAX_BODY", 100)
    async with site(dashboard_admin=True) as at:
        await refused(at, "abort", {"msg_ids": ["x" * 200]}, 400, "100 bytes")


async def test_each_is_logged_with_who_asked(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "trio_hub.dashboard")
    async with site(dashboard_admin=True) as at:
        await done(at, "abort", {"msg_ids": [f"task {number}" for number in range(9)]}, query="?actor=ada")
        await done(at, "purge", {"all": True}, Cookie="trio_hub_actor=grace")
        await refused(at, "abort", {}, 400, "msg_ids")
    one, two = (record for record in caplog.records if record.message == "action from the dashboard")
    assert vars(one)["action"] == "abort"
    assert (vars(one)["actor"], vars(one)["peer"]) == ("ada", "127.0.0.1")
    assert "task 4" in vars(one)["asked"]
    assert "and 4 more" in vars(one)["asked"]
    assert (vars(two)["actor"], vars(two)["outcome"]) == ("grace", '{"purged": 0}')
    (three,) = (record for record in caplog.records if record.message == "refused an action from the dashboard")
    assert (vars(three)["action"], vars(three)["peer"]) == ("abort", "127.0.0.1")
    assert "msg_ids" in vars(three)["error"]
