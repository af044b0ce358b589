"""Becoming a Dask cluster: how the core handles the requests."""

from __future__ import annotations

from typing import Any

import pytest

from trio_hub.errors import HubError

from .world import Peer, World


@pytest.mark.parametrize("content", [{}, {"scheduler_args": None}, {"scheduler_args": {}}])
def test_the_reply_says_where_the_scheduler_is(content: dict[str, Any]) -> None:
    world = World()
    reply = world.query_message("become_dask_request", content)
    assert reply.header.msg_type == "become_dask_reply"
    expected = {"status": "ok", "address": "tcp://10.0.0.1:8786", "ip": "10.0.0.1", "port": 8786}
    assert world.content(reply) == expected
    assert world.host.dask == [{}]


def test_the_arguments_are_passed_on_and_a_stop_too() -> None:
    world = World()
    world.query("become_dask_request", {"scheduler_args": {"port": 8786}})
    assert world.host.dask == [{"port": 8786}]
    reply = world.query_message("stop_distributed_request")
    assert reply.header.msg_type == "stop_distributed_reply"
    assert world.content(reply) == {"status": "ok"}
    assert world.host.dask == []


@pytest.mark.parametrize("content", [{"scheduler_args": 5}, {"scheduler_args": ["port"]}, [1], "x"])
def test_arguments_that_are_none_are_refused(content: Any) -> None:
    world = World()
    reply = world.query("become_dask_request", content)
    assert reply["status"] == "error"
    assert world.host.dask == []


def test_a_scheduler_that_cannot_be_had_is_an_error_reply() -> None:
    world = World()
    world.host.dask_error = HubError("no scheduler today")
    reply = world.query("become_dask_request")
    assert (reply["status"], reply["ename"], reply["evalue"]) == ("error", "HubError", "no scheduler today")


def test_while_a_scheduler_starts_others_are_answered() -> None:
    world = World()
    world.host.deferred = []
    world.hub.dispatch_query([b"client", *world.client.session.write("become_dask_request", {})])
    assert world.query("connection_request", client=Peer("other"))["status"] == "ok"
    [(message, query)] = world.host.deferred
    world.host.finish_query(message, query)
    [reply] = world.replies("query")
    assert reply["status"] == "ok"
