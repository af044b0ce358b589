"""What an engine offers, from its options and its environment."""

from __future__ import annotations

import os
import socket
from pathlib import Path
from typing import Any

import pytest
import trio

from trio_hub import HubConfig, connect
from trio_hub.engine.offers import MEMORY_UNIT, offers, seconds_left
from trio_hub.engine.options import OptionError, parse_options
from trio_hub.testing import open_hub

from .support import LIMIT, open_engine_process


def test_an_engine_offers_what_its_machine_has() -> None:
    found = offers({}, {})
    assert found.keys() == {"host", "cores", "memory"}
    assert found["host"] == socket.gethostname()
    assert found["cores"] == len(os.sched_getaffinity(0))
    memory = found["memory"]
    assert isinstance(memory, int)
    assert memory >= MEMORY_UNIT
    assert memory % MEMORY_UNIT == 0


@pytest.mark.parametrize(
    ("devices", "number"),
    [("0", 1), ("0,1,3", 3), ("GPU-8a,MIG-3", 2), ("", None), ("-1", None), ("0,-1,1", 1), ("NoDevFiles", None)],
)
def test_the_devices_of_cuda(devices: str, number: int | None) -> None:
    assert offers({}, {"CUDA_VISIBLE_DEVICES": devices}).get("gpu") == number


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({"SLURM_CPUS_PER_TASK": "3"}, {"cores": 3}),
        ({"SLURM_CPUS_PER_TASK": "x"}, {"cores": len(os.sched_getaffinity(0))}),
        ({"SLURM_MEM_PER_NODE": "300"}, {"memory": MEMORY_UNIT}),
        ({"SLURM_MEM_PER_CPU": "300", "SLURM_CPUS_ON_NODE": "2"}, {"memory": 2 * MEMORY_UNIT}),
        ({"SLURM_MEM_PER_NODE": "1"}, {"memory": MEMORY_UNIT}),
        ({"SLURM_JOB_PARTITION": "long", "SLURMD_NODENAME": "n7"}, {"partition": "long", "host": "n7"}),
    ],
)
def test_a_job_of_slurm_says_what_it_has(environ: dict[str, str], expected: dict[str, Any]) -> None:
    found = offers({}, environ)
    assert {name: found[name] for name in expected} == expected


def test_tags_take_the_place_of_what_was_found() -> None:
    found = offers({"cores": "1", "site": "a", "memory": ""}, {})
    assert (found["cores"], found["site"]) == ("1", "a")
    assert "memory" not in found


def test_the_end_of_a_job() -> None:
    assert seconds_left(1000.5, {"SLURM_JOB_END_TIME": "1600"}) == 599.5
    assert seconds_left(2000, {"SLURM_JOB_END_TIME": "1600"}) == 0
    assert seconds_left(1000, {}) is seconds_left(1000, {"SLURM_JOB_END_TIME": "never"}) is None


def test_options_say_tags() -> None:
    environ = {"TRIO_HUB_ENGINE_TAGS": "site=a big=2"}
    options = parse_options(["--tag", "gpu=1", "--tag=site=b", "--Engine.tag=memory=", "--tag", "ssd"], environ)
    assert options.tags == {"site": "b", "big": "2", "gpu": "1", "memory": "", "ssd": "1"}
    with pytest.raises(OptionError, match="--tag cannot be '=1': write it as gpu=1, site=a, or large"):
        parse_options(["--tag", "=1"], {})


async def test_a_task_finds_the_engine_that_has_what_it_needs(tmp_path: Path) -> None:
    with trio.fail_after(LIMIT):
        async with open_hub(HubConfig()) as hub:
            environ = {"SLURM_JOB_END_TIME": "99999999999", "CUDA_VISIBLE_DEVICES": "0"}
            environ["TRIO_HUB_ENGINE_BLOCK"] = "big-1"
            async with (
                open_engine_process(
                    tmp_path, "--tag", "site=a", "--tag=cores=1", info=hub.engine_info, environ=environ
                ),
                connect(connection_info=hub.client_info) as client,
            ):
                await hub.wait_engines(1)
                [engine] = hub.core.engines.alive.values()
                offered = dict(engine.offers)
                assert offered | {"site": "a", "cores": 1.0, "gpu": 1.0, "host": socket.gethostname()} == offered
                assert engine.block == "big-1"
                assert await client.apply(os.getenv, "TRIO_HUB_ENGINE_BLOCK") is None
                assert engine.leaves_at is not None
                assert abs(engine.leaves_at - 99999999999) < 600
                needs: dict[str, float | str | bool] = {"site": "a", "gpu": 1, "host": socket.gethostname()}
                assert await client.apply(abs, -1, needs=needs) == 1


async def test_local_engines_have_the_tags_of_the_settings() -> None:
    with trio.fail_after(LIMIT):
        async with open_hub(HubConfig(engines=1, engine_tags=("site=a", "gpu=2"))) as hub:
            await hub.wait_engines(1)
            [engine] = hub.core.engines.alive.values()
            assert dict(engine.offers) | {"site": "a", "gpu": 2.0} == dict(engine.offers)
