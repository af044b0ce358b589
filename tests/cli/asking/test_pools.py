"""``trio-hub pools`` and ``trio-hub scale``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ...dashboard.pools import block, fixed_pool, pool, pretend, stopped_pool
from .support import invoke, world

TITLES = ["POOL", "STATE", "SIZE", "WANTED", "ASKED", "COMING", "THERE", "IDLE", "HOURS", "WHY"]
WHY = "has 1 block in the queue of the batch system; at most 1 (backlog); has tasks that could use more engines"


async def test_pools_are_listed(tmp_path: Path) -> None:
    async with world(tmp_path, 0) as it:
        pretend(it.hub)
        result = await it.ask("pools")
        assert (result.exit_code, result.stdout, result.stderr) == (0, "", "no pools\n")
        pretend(it.hub, pool(), stopped_pool(), fixed_pool(2))
        for listed in (["pools"], ["pools", "list"]):
            lines = (await it.ask(*listed)).stdout.splitlines()
            assert lines[0].split() == TITLES
            assert lines[1].split(maxsplit=9) == ["slurm", "steady", "0..8", "7", "4", "0", "4", "1", "1.50", WHY]
            assert lines[2].split(maxsplit=9)[:3] == ["broken", "stopped", "0..8"]
            assert lines[2].endswith("mend the cause, then resume the pool")
            assert lines[3].split(maxsplit=9)[:8] == ["local", "steady", "2", "2", "0", "0", "2", "2"]
        pretend(it.hub, pool(cost=2.5), fixed_pool())
        lines = (await it.ask("pools")).stdout.splitlines()
        assert [line.split(maxsplit=10)[8:10] for line in lines] == [["HOURS", "COST"], ["1.50", "3.75"], ["1.50"] * 2]
        [found, _] = (await it.ask_json("pools"))["pools"]
        assert found["grow"]["word"] == "backlog"
        assert found["blocks"][0]["asked"] == "2026-09-21T14:13:21+00:00"
        assert (found["paused_until"], found["blocks"][1]["started"]) == (None, None)


@pytest.mark.parametrize(
    ("word", "shrink", "failures", "state"),
    [("grows", "in_use", 0, "growing"), ("probing", "empty", 2, "paused"), ("no_demand", "shrinks", 0, "shrinking")],
)
async def test_a_pool_has_a_state(word: str, shrink: str, failures: int, state: str, tmp_path: Path) -> None:
    async with world(tmp_path, 0) as it:
        words: dict[str, Any] = {"grow": {"word": word, "text": "x"}, "shrink": {"word": shrink, "text": "y"}}
        pretend(it.hub, pool(failures=failures, **words))
        assert (await it.ask("pools")).stdout.splitlines()[1].split()[1] == state


async def test_a_pool_is_shown_with_its_blocks(tmp_path: Path) -> None:
    async with world(tmp_path, 0) as it:
        blocks = [block(2, "waiting", words="\x1b[31mPriority\n"), block(1)]
        changes: dict[str, Any] = {
            "min": 4,
            "max": 16,
            "cost": 0.5,
            "failures": 2,
            "failed_words": "PREEMPTED",
            "draining": 1,
        }
        pretend(
            it.hub, pool(blocks=blocks, **changes, paused_until=1_790_000_000.0), stopped_pool(unanswered="no answer")
        )
        lines = (await it.ask("pools", "show", "slurm")).stdout.splitlines()
        assert [line for line in lines[:11] if not line.startswith("paused")] == [
            "state       paused",
            "launcher    slurm, 4 per block",
            "size        4 to 16 engines (configured: 0 to 8 engines)",
            "engines     7 wanted, 4 asked for, 0 coming, 4 there, 1 idle, 1 drained",
            "used        1.50 engine-hours, which cost 0.75",
            "growing     has 1 block in the queue of the batch system; at most 1 (backlog)",
            "shrinking   has tasks that could use more engines",
            "failures    2 in a row: PREEMPTED",
            "blocks      3 submitted, 0 refused, 1 failed, 2 ended, 1 cancelled",
            "",
        ]
        assert lines[8].startswith("paused      until ")
        table = [line.split() for line in lines[11:]]
        assert table[0] == ["BLOCK", "STATE", "JOB", "CAME", "ASKED", "STARTED", "SYSTEM", "SAYS"]
        assert [(row[:4], row[-1]) for row in table[1:]] == [
            (["slurm-1", "running", "4711", "4/4"], "-"),
            (["slurm-2", "waiting", "4712", "0/4"], "[31mPriority"),
        ]
        assert "\x1b" not in "".join(lines)
        lines = (await it.ask("pools", "show", "broken")).stdout.splitlines()
        assert lines[-1] == "blocks      0 submitted, 10 refused, 0 failed, 0 ended, 0 cancelled"
        assert "unanswered  no answer" in lines
        assert "failures    10 in a row: sbatch: error: invalid partition specified: nowhere" in lines
        found = await it.ask_json("pools", "show", "slurm")
        assert (found["name"], found["paused_until"]) == ("slurm", "2026-09-21T14:13:20+00:00")
        result = await it.ask("pools", "show", "pbs")
        assert (result.exit_code, result.stdout) == (1, "")
        assert result.stderr == "trio-hub: there is no pool 'pbs' (pools: slurm, broken)\n"


async def test_pools_are_scaled_and_resumed(tmp_path: Path) -> None:
    async with world(tmp_path, 0) as it:
        pools = pretend(it.hub, pool(), stopped_pool())
        told = [
            (["1"], "1 engine"),
            (["8"], "8 engines"),
            (["2..16"], "2 to 16 engines"),
            (["--reset"], "0 to 8 engines"),
        ]
        for words, engines in told:
            assert (await it.ask("scale", "slurm", *words)).stdout == f"pool slurm has {engines} from now on\n"
        assert await it.ask_json("scale", "slurm", "0") == {"pool": "slurm", "min": 0, "max": 0}
        assert (await it.ask("pools", "resume", "broken")).stdout == (
            "pool broken asks for blocks again when tasks need engines\n"
        )
        assert await it.ask_json("pools", "resume", "broken") == {"resumed": "broken"}
        assert [asked[:-1] for asked in pools.asked] == [
            ("scale", "slurm", 1, None, None),
            ("scale", "slurm", 8, None, None),
            ("scale", "slurm", None, 2, 16),
            ("scale", "slurm", None, None, None),
            ("scale", "slurm", 0, None, None),
            *[("resume", "broken")] * 2,
        ]
        assert all("client " in asked[-1] for asked in pools.asked), "it says by whom"


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        (["scale", "slurm"], 2, "give either a number of engines (N or MIN..MAX) or --reset"),
        (["scale", "slurm", "4", "--reset"], 2, "give either a number of engines (N or MIN..MAX) or --reset"),
        (["scale", "slurm", "4.."], 2, "'4..' is neither a number of engines, such as 4, nor a range, such as 0..8"),
        (["scale", "slurm", "--", "-1"], 2, "'-1' is neither a number of engines"),
        (["scale", "slurm", "9..8"], 1, "min is 9, which is more than max, 8"),
        (["scale", "pbs", "4"], 1, "there is no pool 'pbs'"),
        (["pools", "resume", "pbs"], 1, "there is no pool 'pbs'"),
    ],
)
async def test_what_cannot_be_done_is_told(arguments: list[str], code: int, told: str, tmp_path: Path) -> None:
    async with world(tmp_path, 0) as it:
        pools = pretend(it.hub, pool())
        result = await it.ask(arguments[0], arguments[1], "--json", *arguments[2:])
        assert (result.exit_code, result.stdout) == (code, "")
        assert told in " ".join(result.stderr.split())
        assert pools.asked == []


async def test_help_of_the_group() -> None:
    result = await invoke("pools", "--help")
    assert result.exit_code == 0
    assert "Without a command, the pools are listed." in result.stdout
