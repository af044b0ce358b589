"""Policies and tags of a running hub, and what the next hub knows of them."""

from __future__ import annotations

from pathlib import Path

import pytest

from trio_hub import HubConfig
from trio_hub.errors import ConfigError, EngineError
from trio_hub.schedulers.policy import parse_policy
from trio_hub.testing import open_client, open_engine, open_hub

from .support import cluster, eventually, within_limit

NIGHT = {"name": "night", "label": "night-*", "priority": -5}
ALL = {"name": "all", "max_attempts": 2}


async def test_an_embedder_changes_policies_and_tags() -> None:
    async with cluster(1, policies=[ALL]) as (hub, client, [engine]):
        assert hub.policies == [{"source": "configuration"} | ALL]
        hub.add_policy(NIGHT)
        hub.add_policy(parse_policy(NIGHT | {"priority": -6}))
        assert [(each["name"], each["source"]) for each in hub.policies] == [
            ("night", "added"),
            ("all", "configuration"),
        ]
        engine.hold()
        msg_id = client.submit(b"x", metadata={"label": "night-1"})
        await engine.wait_requests(1)
        found = hub.explain(msg_id)
        assert (found["rules"], found["policies"]) == ({"priority": -6, "max_attempts": 2}, ["night", "all"])
        hub.remove_policy("night")
        assert hub.policies == [{"source": "configuration"} | ALL]
        assert hub.tag(engine.uuid, {"gpu": 2, "site": "a"}) == {"gpu": 2.0, "site": "a"}
        assert hub.tag(engine.uuid, {}, remove=["gpu"]) == {"site": "a"}
        with pytest.raises(KeyError, match="there is no policy 'night'"):
            hub.remove_policy("night")
        with pytest.raises(ConfigError, match="policy 'x' sets no rule"):
            hub.add_policy({"name": "x"})
        with pytest.raises(ConfigError, match="tags\\[gpu\\] is '-1'"):
            hub.tag(engine.uuid, {"gpu": -1})
        with pytest.raises(EngineError, match="no engine with the uuid 'x' is registered"):
            hub.tag("x", {})
        with pytest.raises(KeyError, match="is unknown"):
            hub.explain("x")
        engine.release()
        await client.reply(msg_id)


async def test_the_next_hub_has_the_added_policies_the_tags_and_the_rules_of_tasks(tmp_path: Path) -> None:
    config = HubConfig(profile_dir=tmp_path, restore=True, policies=(parse_policy(ALL),))
    async with within_limit(), open_hub(config) as hub, open_engine(hub.engine_info) as engine:
        await hub.wait_engines(1)
        engine.hold()
        async with open_client(hub.client_info) as client:
            hub.add_policy(NIGHT)
            hub.add_policy({"name": "gone", "priority": 1})
            hub.remove_policy("gone")
            hub.tag(engine.uuid, {"gpu": 2})
            running = client.submit(b"x", metadata={"label": "night-1"})
            await engine.wait_requests(1)
            queued = client.submit(b"x", metadata={"rules": {"priority": 3, "weight": 2}})
            await eventually(lambda: queued in hub.core.tasks.scheduler.tasks)
            before = [hub.explain(msg_id) for msg_id in (running, queued)]
            hub.remove_policy("all")
            hub.shutdown()
            await hub.wait_stopped()
        changed = HubConfig(profile_dir=tmp_path, restore=True, policies=(parse_policy(ALL | {"max_attempts": 9}),))
        async with open_hub(changed) as second:
            assert second.policies == [
                {"source": "added"} | NIGHT,
                {"source": "configuration"} | ALL | {"max_attempts": 9},
            ]
            after = [second.explain(msg_id) for msg_id in (running, queued)]
            for was, now in zip(before, after, strict=True):
                assert {name: was[name] for name in ("rules", "policies", "attempts")} == {
                    name: now[name] for name in ("rules", "policies", "attempts")
                }
            assert after[0]["rules"] == {"priority": -5, "max_attempts": 2}
            [restored] = second.core.engines.alive.values()
            assert dict(restored.offers) == {"gpu": 2.0}
            assert restored.worker is not None
            assert restored.worker.offers == restored.offers
            engine.release()
            await eventually(lambda: not second.core.tasks.scheduler.tasks)


async def test_without_restore_the_next_hub_begins_with_the_configuration(tmp_path: Path) -> None:
    async with within_limit():
        async with open_hub(HubConfig(profile_dir=tmp_path, policies=(parse_policy(ALL),))) as hub:
            hub.add_policy(NIGHT)
        async with open_hub(HubConfig(profile_dir=tmp_path, restore=True)) as second:
            assert second.policies == []


async def test_a_changed_policy_is_on_disk_soon(tmp_path: Path) -> None:
    file = tmp_path / "log" / "engines.json"
    async with within_limit(), open_hub(HubConfig(profile_dir=tmp_path)) as hub:
        hub.add_policy(NIGHT)
        await eventually(lambda: file.exists() and "night-*" in file.read_text())
        hub.remove_policy("night")
        await eventually(lambda: "night-*" not in file.read_text())
