"""``trio-hub policy``, ``tag`` and ``explain``, and what ``task`` shows of rules."""

from __future__ import annotations

from pathlib import Path

import pytest

from trio_hub.cli.asking import records
from trio_hub.hub.records import HUB_NOTES
from trio_hub.testing import open_engine

from .support import invoke, world

NIGHT = ["policy", "add", "night", "--label", "night-*", "--priority", "-5", "--needs", "gpu=1", "--needs", "site=a"]


async def test_policies_are_added_listed_and_removed(tmp_path: Path) -> None:
    configured = {"name": "all", "max_attempts": 2}
    async with world(tmp_path, policies=[configured]) as it:
        night = {"name": "night", "label": "night-*", "priority": -5, "needs": {"gpu": "1", "site": "a"}}
        both = [{"source": "added"} | night, {"source": "configuration"} | configured]
        assert await it.ask_json(*NIGHT) == {"policies": both}
        for listed in (["policy"], ["policy", "list"]):
            assert await it.ask_json(*listed) == {"policies": both}
        assert [line.split() for line in (await it.ask("policy")).stdout.splitlines()] == [
            ["NAME", "MATCHES", "RULES", "SOURCE"],
            ["night", "label=night-*", 'needs={"gpu":', '"1",', '"site":', '"a"}', "priority=-5", "added"],
            ["all", "all", "tasks", "max_attempts=2", "configuration"],
        ]
        assert it.hub.policies == both
        assert [each["name"] for each in (await it.ask_json("policy", "remove", "night"))["policies"]] == ["all"]
        result = await it.ask("policy", "remove", "all")
        assert (result.exit_code, result.stdout, result.stderr) == (0, "", "no policies\n")
        result = await it.ask("policy", "remove", "all")
        assert result.exit_code == 1
        assert "there is no policy 'all'" in result.stderr


async def test_each_rule_and_condition_is_an_option(tmp_path: Path) -> None:
    async with world(tmp_path) as it:
        words = "--function f* --client c* --user ada --priority 3 --weight 2.5 --max-runtime 2h --grace 5s"
        words += " --retry-pause 1m"
        words += (
            " --max-attempts 4 --retry-on OSError --retry-on death --max-deaths 2 --needs gpu --on-cancel interrupt"
        )
        [policy] = (await it.ask_json("policy", "add", "all", "--label", '{"run": "n*"}', *words.split()))["policies"]
        assert policy == {
            "source": "added",
            "name": "all",
            "label": {"run": "n*"},
            "function": "f*",
            "client": "c*",
            "user": "ada",
            "priority": 3,
            "weight": 2.5,
            "max_runtime": 7200.0,
            "grace": 5.0,
            "retry_pause": 60.0,
            "max_attempts": 4,
            "retry_on": ["OSError", "death"],
            "max_deaths": 2,
            "needs": {"gpu": True},
            "on_cancel": "interrupt",
        }


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        (["policy", "add", "x"], 1, "policy 'x' sets no rule: the rules are"),
        (
            ["policy", "add", "x", "--priority", "5000"],
            1,
            "priority is '5000': it must be a whole number from -1000",
        ),
        (["policy", "add", "x", "--needs", "=1"], 2, "'=1' is not KEY=VALUE: write it as gpu=1 or site=a"),
        (["policy", "add", "x", "--priority", "1", "--label", "{"], 2, "it is not JSON"),
        (["tag", "7", "gpu=1"], 1, "no engine '7' is registered (registered: 0)"),
        (["tag", "0", "gpu="], 2, "'gpu=' is not KEY=VALUE"),
        (["explain", "nobody"], 1, "nobody is no load-balanced task, or has finished, or is unknown"),
    ],
)
async def test_what_cannot_be_done_is_told(arguments: list[str], code: int, told: str, tmp_path: Path) -> None:
    async with world(tmp_path) as it:
        result = await it.ask(*arguments)
        assert result.exit_code == code
        assert told in " ".join(result.stderr.split())


async def test_engines_are_tagged(tmp_path: Path) -> None:
    async with world(tmp_path) as it:
        assert (await it.ask("tag", "0", "gpu=2", "memory=1.5", "site=a")).stdout == (
            "engine 0 offers gpu=2 memory=1.5 site=a\n"
        )
        assert await it.ask_json("tag", it.engines[0].uuid, "--remove", "gpu", "--remove", "memory") == {
            "engine": 0,
            "offers": {"site": "a"},
        }
        assert (await it.ask("tag", "0", "--remove", "site")).stdout == "engine 0 offers nothing\n"


async def test_a_task_is_explained_and_shown_with_its_rules(tmp_path: Path) -> None:
    async with world(tmp_path, policies=[{"name": "night", "label": "night-*", "priority": -5}]) as it:
        it.engines[0].hold()
        running = it.submit(pow, 1, 1, label="night-1")
        await it.engines[0].wait_requests(1)
        queued = it.submit(pow, 1, 1, label={"priority": 7})
        async with open_engine(it.hub.engine_info) as other:
            other.hold()
            await it.hub.wait_engines(2)
            await other.wait_requests(1)
            found = await it.ask_json("explain", running)
            assert (found["state"], found["rules"], found["policies"]) == ("running", {"priority": -5}, ["night"])
            assert [(each["id"], each["may"]) for each in found["engines"]] == [(0, True), (1, False)]
            lines = (await it.ask("explain", running)).stdout.splitlines()
            assert lines[0] == "state       running"
            assert "rules       priority=-5" in lines
            assert "policies    night" in lines
            assert "attempts    1" in lines
            assert any(line.split()[:2] == ["0", "yes"] for line in lines)
            shown = await it.ask_json("task", queued)
            assert (shown["rules"], shown["policies"], shown["attempts"]) == ({"priority": 7}, [], 1)
            other.release()
            it.engines[0].release()
            await it.client.reply(running)
        lines = (await it.ask("task", running)).stdout.splitlines()
        assert "rules       priority=-5" in lines
        assert "policies    night" in lines
        assert "attempts    1" in lines
        plain = await it.run(pow, 1, 1)
        shown = await it.ask_json("task", plain)
        assert (shown["rules"], shown["policies"], shown["attempts"]) == ({}, [], 1)


async def test_help_of_the_group() -> None:
    result = await invoke("policy", "--help")
    assert result.exit_code == 0
    assert "List, add and remove policies" in result.stdout


def test_the_notes_of_the_hub_have_one_name() -> None:
    assert records.HUB_NOTES == HUB_NOTES
