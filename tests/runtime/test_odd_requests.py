"""Requests with values that the hub could not unpack and pack again are passed on unchanged."""

from __future__ import annotations

import pytest
from msgspec.msgpack import Ext
from msgspec.msgpack import encode as msgpack

from trio_hub.testing import ScriptedClient, failing

from .support import cluster

HUGE = b'{"retries": 1, "x": ' + b"1" * 5000 + b"}"
SURROGATE = b'{"retries": 1, "x": ["\\udcff", NaN]}'
DEEP = b'{"retries": 1, "x": ' + b"[" * 800 + b"]" * 800 + b"}"
EXTENSION = msgpack({"retries": 1, "x": {1: Ext(5, b"x")}})


def submit(client: ScriptedClient, metadata: bytes) -> str:
    """Send a task whose packed metadata are these bytes."""
    pack = client.session.packer.pack
    header = client.session.new_header("apply_request")
    client.send_raw("task", client.session.seal([pack(header), pack({}), metadata, pack({})], [b"work"]))
    return str(header["msg_id"])


@pytest.mark.parametrize("metadata", [HUGE, SURROGATE, DEEP], ids=["huge", "surrogate", "deep"])
async def test_a_task_with_odd_metadata_is_tried_again(metadata: bytes) -> None:
    async with cluster(2, behaviour=failing("ValueError", "no"), db="memory") as (hub, client, engines):
        reply = await client.reply(submit(client, metadata))
        assert (reply.content["ename"], reply.content["evalue"]) == ("ValueError", "no")
        requests = [request for engine in engines for request in engine.requests]
        assert len(requests) == 2
        odd = metadata.partition(b'"x": ')[2].removesuffix(b"}")
        assert all(odd in request.message.raw_metadata for request in requests)
        assert b'"retries":0' in requests[0].message.raw_metadata + requests[1].message.raw_metadata
        assert (await client.query("queue_request")).content["status"] == "ok"
        assert hub.statistics().failed == 1


async def test_a_task_with_an_extension_in_its_metadata_is_refused_where_it_cannot_be_recorded() -> None:
    async with cluster(packer="msgpack", db="memory") as (_, client, _):
        reply = await client.reply(submit(client, EXTENSION))
        assert reply.content["ename"] == "WireError"
        assert (await client.query("queue_request")).content["status"] == "ok"
