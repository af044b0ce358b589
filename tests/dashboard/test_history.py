"""What the dashboard remembers of a real hub: its answers, and the file that outlives the hub."""

from __future__ import annotations

import json
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio

from trio_hub import HubConfig
from trio_hub.dashboard import feed, history
from trio_hub.dashboard.history import history_path
from trio_hub.dashboard.spans import FOLDS
from trio_hub.testing import open_engine, open_hub

from ..runtime.support import LIMIT, within_limit
from .support import EventReader, Site, fetch, open_dashboard, reading, site


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feed, "PERIOD", 0.05)
    monkeypatch.setattr(history, "SOON", 0.02)


async def entries(at: Site, **wanted: Any) -> list[dict[str, Any]]:
    """Return the entries with these values as soon as there are any."""
    with trio.fail_after(LIMIT):
        while True:
            answer = await at.get("/api/journal")
            found = [one for one in answer["entries"] if all(one[key] == value for key, value in wanted.items())]
            if found:
                return found
            await trio.sleep(0.01)


async def lost_within_an_hour(reader: EventReader) -> dict[str, Any]:
    """Return the first overview that knows of one lost engine."""
    with trio.fail_after(LIMIT):
        while True:
            overview: dict[str, Any] = await reader.until("overview")
            if overview["lost_last_hour"] == 1:
                return overview


async def test_a_lost_engine_is_remembered_with_the_cause() -> None:
    async with site(db="memory") as at, reading(at.dashboard) as reader:
        at.hub.core.lose_engine(at.hub.core.engines.alive[at.engine.id], "ended", "killed by signal 9 (SIGKILL)")
        (entry,) = await entries(at, kind="engine_lost")
        assert entry["text"] == f"Engine {at.engine.id} was lost: killed by signal 9 (SIGKILL)."
        overview = await lost_within_an_hour(reader)
        (alert,) = [one for one in overview["alerts"] if one["id"].startswith("lost:")]
        assert alert["event"]
        assert "1 engine was lost in the last hour." in alert["text"]
        assert overview["journal"] >= entry["seq"]
        answer = await at.get("/api/history?range=hour")
        assert sum(answer["series"]["lost"]) == 1
        assert (answer["step"], answer["seconds"]) == (10, 3600)
        assert set(answer["series"]) == {"t", *FOLDS}
        assert (await at.get("/api/history?range=day"))["seconds"] == 86400


async def test_an_engine_that_is_told_to_end_is_not_lost() -> None:
    async with site(db="memory") as at:
        at.hub.core.lose_engine(at.hub.core.engines.alive[at.engine.id], "shutdown")
        (entry,) = await entries(at, kind="engine_left")
        assert entry["level"] == "info"
        assert sum((await at.get("/api/history"))["series"]["lost"]) == 0


async def test_an_engine_whose_nanny_tells_of_its_death_is_lost() -> None:
    async with site(db="memory") as at, open_engine(at.hub.engine_info) as other:
        await at.hub.wait_engines(2)
        alive = at.hub.core.engines.alive
        cause = "killed by signal 9 (SIGKILL)"
        at.hub.core.engines.lose_engine(alive[at.engine.id], "request", cause, may_return=False)
        at.hub.core.engines.lose_engine(alive[other.id], "request", "a client has asked for it", may_return=False)
        (entry,) = await entries(at, kind="engine_lost")
        assert entry["text"] == f"Engine {at.engine.id} was lost: {cause}."
        (entry,) = await entries(at, kind="engine_left")
        assert entry["text"] == f"Engine {other.id} has left: a client has asked for it."


async def test_a_hub_with_fewer_engines_than_it_was_told_to_have_needs_attention() -> None:
    config = HubConfig(db="memory", engines=2, engine_command=("sleep", "600"))
    async with within_limit(), open_hub(config) as hub, open_dashboard(hub) as dashboard, reading(dashboard) as reader:
        with trio.fail_after(LIMIT):
            while True:
                alerts = (await reader.until("overview"))["alerts"]
                found = [alert["text"] for alert in alerts if alert["id"].startswith("missing:")]
                if found:
                    break
        assert found[0].startswith("2 of 2 local engines cannot be used: local engine 0 has not registered yet")


async def test_it_says_who_did_what() -> None:
    async with site(db="memory", dashboard_admin=True) as at:
        await at.client.reply(at.client.submit())
        token = {"Authorization": f"Bearer {at.dashboard.token}"}
        act = partial(fetch, at.dashboard.port, method="POST")
        path = "/api/actions/purge?actor=ada"
        answer = await act(path, token | {"X-Trio-Hub": "1"}, body=json.dumps({"all": True}).encode())
        assert answer.status == 200
        (entry,) = await entries(at, kind="action")
        assert (entry["who"], entry["text"]) == ("ada (127.0.0.1)", "purged 1 record")
        assert (await act(path, token, body=b"{}")).status == 403
        (entry,) = await entries(at, kind="refused")
        assert entry["text"].startswith("was not allowed the action 'purge': the header")
        reply = await at.client.query("purge_request", {"msg_ids": "all"})
        assert reply.content["status"] == "ok"
        (entry,) = await entries(at, kind="purged")
        assert entry["text"] == "purged 0 records"
        assert entry["who"].startswith("client ")


async def test_errors_are_noted() -> None:
    async with site(db="memory") as at:
        at.hub.core.notices.failed("a test", RuntimeError("no"))
        at.hub.service_failures["a service"] += 2
        (entry,) = await entries(at, kind="error")
        assert (entry["level"], entry["count"]) == ("bad", 3)
        await at.client.reply(at.client.submit())  # the hub goes on


async def test_what_may_be_asked_for_is_said() -> None:
    async with site(db="memory") as at:
        assert '"hour" or "day"' in await at.refused("/api/history?range=year", 400)
        assert "whole number" in await at.refused("/api/journal?since=x", 400)
        answer = await at.get("/api/journal?limit=1")
        assert len(answer["entries"]) == 1
        assert (await at.get(f"/api/journal?since={answer['next']}"))["entries"] == []


# The file


def settings(profile: Path) -> HubConfig:
    return HubConfig(profile_dir=profile, db="sqlite")


async def written(path: Path, part: bytes) -> None:
    """Wait until the file contains these bytes."""
    with trio.fail_after(LIMIT):
        while True:
            with suppress(FileNotFoundError):
                if part in await trio.Path(path).read_bytes():
                    return
            await trio.sleep(0.01)


async def remembered(profile: Path) -> list[str]:
    """Run a hub with this profile for a moment. Return the kinds of the events that its dashboard remembers."""
    async with within_limit(), open_hub(settings(profile)) as hub, open_dashboard(hub) as dashboard:
        answer = await fetch(dashboard.port, f"/api/journal?token={dashboard.token}")
        return [entry["kind"] for entry in json.loads(answer.body)["entries"]]


async def test_it_outlives_the_hub_if_a_database_does(tmp_path: Path) -> None:
    async with within_limit(), open_hub(settings(tmp_path)) as hub:
        path = history_path(hub)
        assert path == tmp_path / "db" / "history"
        async with open_dashboard(hub) as dashboard, open_engine(hub.engine_info) as engine:
            await hub.wait_engines(1)
            hub.core.lose_engine(hub.core.engines.alive[engine.id], "ended")
            await written(path, b"engine_lost")
            assert path.stat().st_mode & 0o777 == 0o600
            async with reading(dashboard) as reader:
                await lost_within_an_hour(reader)
            hub.shutdown()
            await hub.wait_stopped()
    async with within_limit(), open_hub(settings(tmp_path)) as hub, open_dashboard(hub) as dashboard:
        answer = await fetch(dashboard.port, f"/api/journal?token={dashboard.token}")
        kinds = [entry["kind"] for entry in json.loads(answer.body)["entries"]]
        assert kinds == ["started", "stopped", "engine_lost", "engine_registered", "started"]
        answer = await fetch(dashboard.port, f"/api/history?token={dashboard.token}")
        assert sum(json.loads(answer.body)["series"]["lost"]) == 1
        async with reading(dashboard) as reader:
            await lost_within_an_hour(reader)


async def test_a_hub_that_was_killed_is_told_of(tmp_path: Path) -> None:
    assert await remembered(tmp_path) == ["started"]
    path = tmp_path / "db" / "history"
    path.write_text(path.read_text().replace('"ended":true', '"ended":false'))
    assert (await remembered(tmp_path))[:2] == ["started", "crashed"]
    assert (await remembered(tmp_path)).count("crashed") == 1


@pytest.mark.parametrize("content", ["", "{}", "[" * 10_000, '{"version": 7}', "\0\xff"])
async def test_a_file_that_is_damaged_is_ignored(tmp_path: Path, content: str) -> None:
    path = tmp_path / "db" / "history"
    path.parent.mkdir()
    path.write_text(content)
    assert await remembered(tmp_path) == ["started"]
    assert json.loads(path.read_text())["version"] == history.VERSION, "it is replaced"


async def test_rows_of_other_series_are_left_out(tmp_path: Path) -> None:
    assert await remembered(tmp_path) == ["started"]
    path = tmp_path / "db" / "history"
    saved = json.loads(path.read_text())
    path.write_text(json.dumps(saved | {"series": ["other"], "hour": [[1.0, 1.0, 1.0]]}))
    kinds = await remembered(tmp_path)
    assert kinds == ["started", "started"]


async def test_a_file_that_cannot_be_written_disturbs_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(path: Path, text: str) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(history, "write_private_file", full)
    assert await remembered(tmp_path) == ["started"]
    assert "cannot write the history of the dashboard" in caplog.text
    assert not (tmp_path / "db" / "history").exists()


async def test_nothing_is_kept_if_records_are_not(tmp_path: Path) -> None:
    async with within_limit(), open_hub(HubConfig(profile_dir=tmp_path, db="memory")) as hub, open_dashboard(hub):
        assert history_path(hub) is None
    assert not (tmp_path / "db" / "history").exists()
