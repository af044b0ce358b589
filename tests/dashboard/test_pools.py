"""Pools on the dashboard: their data, metrics, alerts and actions."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from time import time
from typing import Any

import pytest

from trio_hub import HubConfig
from trio_hub.dashboard import poolmetrics
from trio_hub.dashboard.alerts import HESITATION, Look, concerns
from trio_hub.dashboard.pools import bringing, pool_rows
from trio_hub.hub.events import PoolScaled
from trio_hub.testing import open_hub

from ..runtime.support import eventually, within_limit
from .pools import block, fixed_pool, pool, pretend, stopped_pool
from .support import Answer, Site, fetch, reading, scrape, site


async def act(at: Site, name: str, body: Any) -> Answer:
    headers = {"Authorization": f"Bearer {at.dashboard.token}", "X-Trio-Hub": "1"}
    path = f"/api/actions/{name}?actor=ada"
    return await fetch(at.dashboard.port, path, headers, method="POST", body=json.dumps(body).encode())


async def test_the_overview_has_the_pools_and_counts_their_blocks() -> None:
    async with site() as at:
        assert (await at.get("/api/pools"))["pools"] == []
        pretend(at.hub, fixed_pool(), pool(blocks=[block(1), block(2), block(3, "waiting"), block(4, "cancelled")]))
        async with reading(at.dashboard) as reader:
            found = (await reader.until("overview"))["pools"]
            while not found:  # the numbers may be those of a moment ago
                found = (await reader.until("overview"))["pools"]
        assert [one["name"] for one in found] == ["local", "slurm"]
        assert found[1]["blocks"] == {"asked": 0, "waiting": 1, "running": 2, "cancelled": 1}
        assert {key: value for key, value in found[1].items() if key != "blocks"} == {
            key: value for key, value in pool().items() if key != "blocks"
        }


async def test_a_pool_has_its_blocks() -> None:
    async with site() as at:
        pretend(at.hub, fixed_pool(), pool("a b"))
        answer = await at.get("/api/pools")
        assert abs(answer["now"] - time()) < 60
        assert [one["name"] for one in answer["pools"]] == ["local", "a b"]
        found = await at.get("/api/pools/a%20b")
        assert abs(found.pop("now") - time()) < 60
        assert found == pool("a b")
        assert "no pool 'slurm'" in await at.refused("/api/pools/slurm", 404)


async def test_metrics_of_pools() -> None:
    async with site() as at:
        later = time() + 3600
        pretend(at.hub, pool(cost=0.5), stopped_pool(), pool("tired", failures=2, paused_until=later, draining=1))
        seen = await scrape(at.dashboard)
        engines = [
            seen("trio_hub_pool_engines", pool="slurm", state=state) for state in ("asked", "coming", "busy", "idle")
        ]
        assert engines == [4, 0, 3, 1]
        assert seen("trio_hub_pool_engines", pool="tired", state="busy") == 2
        assert seen("trio_hub_pool_engines", pool="tired", state="draining") == 1
        limits = [seen("trio_hub_pool_engines_limit", pool="slurm", limit=limit) for limit in ("min", "max")]
        assert limits == [0, 8]
        assert seen("trio_hub_pool_blocks", pool="slurm", state="waiting") == 1
        assert seen("trio_hub_pool_blocks", pool="slurm", state="asked") == 0
        assert seen("trio_hub_pool_cost_total", pool="slurm") == 0.75
        outcomes = [
            seen("trio_hub_pool_blocks_finished_total", pool="slurm", outcome=one) for one in poolmetrics.OUTCOMES
        ]
        assert outcomes == [0, 1, 2, 1]
        for name, values in {
            "engines_wanted": (7, 8, 7),
            "blocks_submitted_total": (3, 0, 3),
            "engine_seconds_total": (5400, 0, 5400),
            "failures": (0, 10, 2),
            "paused": (0, 0, 1),
            "stopped": (0, 1, 0),
        }.items():
            assert tuple(seen(f"trio_hub_pool_{name}", pool=one) for one in ("slurm", "broken", "tired")) == values, (
                name
            )


async def test_what_needs_attention() -> None:
    async with within_limit(), open_hub(HubConfig()) as hub:
        statistics = replace(hub.statistics(), tasks_queued=3)
    look = Look(statistics, 1000.0, 0.0, 0.0, 0.01, 10, 1000, 0, None, 0, None, None)

    def found(*pools: dict[str, Any]) -> list[tuple[str, str, str, str]]:
        told = concerns(replace(look, pools=pools))
        return [(concern.key, concern.level, concern.text, concern.href) for concern in told]

    nobody = ("no_engine", "bad", "3 tasks wait, but no engine is alive.", "#/engines")
    assert found() == [nobody]
    assert found(pool()) == [], "engines are on their way"
    idle: dict[str, Any] = {"asked": 0, "there": 0}
    assert found(pool(**idle, grow={"word": "grows", "text": "asks for 1 block of 4 engines"})) == []
    assert found(pool(**idle, grow={"word": "at_max", "text": "may have no more"})) == [nobody]
    assert not bringing([fixed_pool()])
    hesitations = [
        [concern.after for concern in concerns(replace(look, pools=pools)) if concern.key == "no_engine"]
        for pools in ([], [fixed_pool(0)], [stopped_pool()])
    ]
    assert hesitations == [[0], [0], [HESITATION]], "the decision of a pool may come in a moment"
    assert found(stopped_pool()) == [
        nobody,
        (
            "pool_stopped:broken",
            "bad",
            "Pool broken asks for no more blocks: 10 blocks in a row failed (sbatch: error: invalid partition "
            "specified: nowhere). Mend the cause, then resume the pool.",
            "#/pools/broken",
        ),
    ]
    failing: dict[str, Any] = {"failures": 1, "failed_words": "PREEMPTED.", "paused_until": 1004.0}
    (one,) = found(pool(**failing))
    assert one == (
        "pool_failing:slurm",
        "warn",
        "The last block of pool slurm has failed (PREEMPTED). It may ask for the next block in 4 s.",
        "#/pools/slurm",
    )
    (one,) = found(pool(failures=3, paused_until=999.0))
    assert one[2] == "The last 3 blocks of pool slurm have failed."
    (one,) = found(pool(unanswered="squeue: error: Unable to contact slurm controller."))
    assert one[:3] == (
        "pool_unanswered:slurm",
        "warn",
        "The batch system of pool slurm does not answer: squeue: error: Unable to contact slurm controller.",
    )


async def test_pools_are_scaled_and_resumed_and_the_journal_says_by_whom() -> None:
    async with site(dashboard_admin=True) as at:
        pools = pretend(at.hub, pool(), stopped_pool())
        numbers: list[tuple[dict[str, Any], int, int]] = [
            ({"engines": 3}, 3, 3),
            ({"min": 1, "max": 16}, 1, 16),
            ({"reset": True}, 0, 8),
        ]
        for asked, least, most in numbers:
            answer = await act(at, "scale_pool", {"pool": "slurm"} | asked)
            assert (answer.status, json.loads(answer.body)) == (200, {"min": least, "max": most})
        answer = await act(at, "resume_pool", {"pool": "broken"})
        assert (answer.status, answer.body) == (200, "{}")
        who = "ada (127.0.0.1)"
        assert pools.asked == [
            ("scale", "slurm", 3, None, None, who),
            ("scale", "slurm", None, 1, 16, who),
            ("scale", "slurm", None, None, None, who),
            ("resume", "broken", who),
        ]
        assert not pools.pools[1]["is_stopped"]
        entries = [(one["kind"], one["text"], one["who"]) for one in (await at.get("/api/journal"))["entries"]]
        assert entries[0] == ("action", "resumed pool broken", who)
        assert not [one for one in entries if "scale" in one[1]], "the hub itself tells this in an event"
        at.hub.core.notices.tell(PoolScaled("slurm", 0, 8, who))
        newest = (await at.get("/api/journal"))["entries"][0]
        assert (newest["text"], newest["who"]) == ("scaled pool slurm to 0 to 8 engines", who)


@pytest.mark.parametrize(
    ("name", "body", "status", "told"),
    [
        ("scale_pool", {"pool": "slurm"}, 400, 'give either "engines", or "min" and "max", or "reset": true'),
        ("scale_pool", {"pool": "slurm", "engines": 4, "reset": True}, 400, "give either"),
        ("scale_pool", {"pool": "slurm", "engines": 4, "max": 8}, 400, "give either"),
        ("scale_pool", {"pool": "slurm", "min": 4}, 400, "give either"),
        ("scale_pool", {"pool": "slurm", "engines": True}, 400, '"engines" must be a number of engines'),
        ("scale_pool", {"pool": "slurm", "min": -1, "max": 8}, 400, '"min" must be a number of engines'),
        ("scale_pool", {"engines": 4}, 400, '"pool" must be the name of a pool'),
        ("scale_pool", {"pool": "slurm", "min": 9, "max": 8}, 400, "min is 9, which is more than max, 8"),
        ("scale_pool", {"pool": "pbs", "engines": 4}, 400, "there is no pool 'pbs'"),
        ("resume_pool", {"pool": "pbs"}, 400, "there is no pool 'pbs'"),
        ("resume_pool", {}, 400, '"pool" must be the name of a pool'),
    ],
)
async def test_what_cannot_be_done_is_told(name: str, body: dict[str, Any], status: int, told: str) -> None:
    async with site(dashboard_admin=True) as at:
        pools = pretend(at.hub, pool())
        answer = await act(at, name, body)
        assert answer.status == status
        assert told in json.loads(answer.body)["error"]
        assert pools.asked == []


async def test_a_real_pool_whose_blocks_are_refused(tmp_path: Path) -> None:
    refusing = {
        "name": "full",
        "launcher": "command",
        "min": 1,
        "max": 2,
        "max_failures": 1,
        "submit_command": "echo no nodes are left >&2; exit 3",
        "cancel_command": "true",
    }
    async with site(dashboard_admin=True, profile_dir=tmp_path, db="memory", pools=[refusing]) as at:
        await eventually(lambda: at.hub.pools[0]["grow"]["word"] == "stopped")
        found = await at.get("/api/pools/full")
        assert (found["failures"], found["is_stopped"], found["counts"]["refused"]) == (1, True, 1)
        assert "no nodes are left" in found["failed_words"]
        assert found.keys() - {"now"} == pool().keys()
        async with reading(at.dashboard) as reader:
            alerts = (await reader.until("overview"))["alerts"]
            while not alerts:
                alerts = (await reader.until("overview"))["alerts"]
        assert [alert["text"] for alert in alerts if "full" in alert["text"] and "no nodes" in alert["text"]]
        answer = await act(at, "scale_pool", {"pool": "full", "engines": 0})
        assert json.loads(answer.body) == {"min": 0, "max": 0}
        answer = await act(at, "scale_pool", {"pool": "full", "engines": -1})
        assert answer.status == 400
        assert (await act(at, "resume_pool", {"pool": "full"})).status == 200
        assert not (await at.get("/api/pools/full"))["is_stopped"]
        texts = [one["text"] for one in (await at.get("/api/journal"))["entries"]]
        assert "scaled pool full to 0 engines" in texts
        assert "resumed pool full" in texts
        assert [
            text for text in texts if re.match(r"Block full-\w+ of pool full has failed: .*no nodes are left", text)
        ]
        assert at.hub.statistics().service_failures == {}


def test_rows_change_no_pool() -> None:
    mine = pool()
    pool_rows([mine])
    assert mine == pool()
