"""A broadcast to the engines of a large cluster, some of which die during it."""

from __future__ import annotations

import resource
from collections.abc import Iterator
from random import Random

import pytest

from trio_hub.cli.limits import DESCRIPTORS_PER_ENGINE, raise_open_files_limit
from trio_hub.testing import Request

from .support import cluster

ENGINES = 500
DYING = 5
DESCRIPTORS_HERE = DESCRIPTORS_PER_ENGINE + 16
"""Descriptors per scripted engine in the hub's process: both ends of each connection, and one for each socket."""


@pytest.fixture
def engines_that_fit() -> Iterator[int]:
    """Raise the limit on open files, and give the number of engines that this allows, at most `ENGINES`."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    raise_open_files_limit()
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    yield ENGINES if soft == resource.RLIM_INFINITY else min(ENGINES, (soft - 200) // DESCRIPTORS_HERE)
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


def answer_with_its_name(request: Request) -> None:
    request.answer([request.engine.ident])


async def test_a_gathered_broadcast_outlives_the_death_of_some_of_its_engines(engines_that_fit: int) -> None:
    """The client gets one reply, with all results there are, as soon as the hub has missed the hearts of the rest.

    It does not wait for the grace, which is longer than any test may take.
    """
    rng = Random(500)
    settings = {"ping": 0.25, "max_heartmonitor_misses": 6, "stranded_grace": 600}
    async with cluster(engines_that_fit, behaviour=answer_with_its_name, **settings) as (hub, client, engines):
        targets = rng.sample(engines, len(engines))
        dying = sorted(rng.sample(targets, DYING), key=targets.index)
        for engine in dying:
            engine.hold()
        metadata = {
            "targets": [[engine.uuid, engine.id] for engine in targets],
            "is_broadcast": True,
            "is_coalescing": True,
        }
        msg_id = client.send("broadcast", "apply_request", metadata=metadata, buffers=[b"f"])
        for engine in dying:
            await engine.wait_requests(1)
            engine.die()
        reply = await client.reply(msg_id)
        dead = {engine.uuid for engine in dying}
        assert reply.content["status"] == "error"
        errors = reply.content["errors"]
        assert list(errors) == [engine.uuid for engine in dying], "in the order of the targets"
        for engine in dying:
            assert errors[engine.uuid]["ename"] == "EngineError"
            assert f"Engine {engine.id} died" in errors[engine.uuid]["evalue"]
        assert reply.content["evalue"] == errors[dying[0].uuid]["evalue"]
        assert reply.metadata["broadcast_targets"] == metadata["targets"]
        assert reply.metadata["buffer_counts"] == [int(engine.uuid not in dead) for engine in targets]
        assert [bytes(buffer) for buffer in reply.buffers] == [
            engine.ident for engine in targets if engine.uuid not in dead
        ]
        assert len(reply.buffers) == len(engines) - DYING
        # no other engine was lost, and no further reply comes
        assert (await client.query("queue_request")).content.keys() - {"status", "unassigned"} == {
            str(engine.id) for engine in engines if engine.uuid not in dead
        }
        assert len(client.replies[msg_id]) == 1
        assert not hub._host.hub.broadcasts.unanswered.pending
