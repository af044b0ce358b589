"""`connect`: makes a client, for the length of a block."""

from __future__ import annotations

import os
import secrets
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from typing import Any, TypedDict, Unpack

import trio
import zmq

from ..config.connectionfiles import read_connection_file
from ..errors import ConfigError, HubLostError
from ..transport.blocks import serving
from .client import Client
from .finding import HubAddress, address_in, connection_file_path
from .hubconnection import HubConnection
from .keeping import keep, learn_engines
from .notifying import Engines

__all__ = ["Where", "connect", "open_link"]

LINGER = 1000
"""Milliseconds within which the last messages must leave when the client is closed."""


@asynccontextmanager
async def connect(
    *,
    profile: str | None = None,
    profile_dir: str | os.PathLike[str] | None = None,
    cluster_id: str = "",
    connection_file: str | os.PathLike[str] | None = None,
    connection_info: Mapping[str, Any] | None = None,
    curve_keys: tuple[str, str] | None = None,
    answer_within: float = 10.0,
    lost_after: float = 60.0,
) -> AsyncGenerator[Client, None]:
    """Connect to a running hub, for the length of the block.

    ::

        async with trio_hub.connect(profile="default") as client:
            print(await client.apply(pow, 2, 10))

    The hub may be any hub of IPython Parallel. The client finds it as stock clients do, by the connection file
    ``PROFILE_DIR/security/ipcontroller[-CLUSTER_ID]-client.json``. Connections that break are made again, as long as
    the block lasts.

    Args:
        profile: The name of the IPython profile; ``"default"`` if no other argument names the hub.
        profile_dir: The directory of the profile.
        cluster_id: The cluster id of the hub, if the profile has several hubs.
        connection_file: The path of the connection file.
        connection_info: The content of the connection file, such as `RunningHub.client_info`.
        curve_keys: The client's public and secret CURVE key, if the hub admits only known keys. By default new keys.
        answer_within: Seconds within which the hub must give its first answer.
        lost_after: If the hub has not answered for this many seconds, it is lost, and all waiting requests fail.

    Raises:
        ConnectionFileError: There is no connection file, or it cannot be used.
        ConfigError: The arguments contradict each other, or a value is unknown.
        HubLostError: The hub does not answer.
    """
    context: zmq.Context[zmq.Socket[Any]] = zmq.Context()
    try:
        async with open_link(
            context,
            profile=profile,
            profile_dir=profile_dir,
            cluster_id=cluster_id,
            connection_file=connection_file,
            connection_info=connection_info,
            curve_keys=curve_keys,
            answer_within=answer_within,
            lost_after=lost_after,
        ) as (link, engines):
            yield Client(link, engines)
    finally:
        with trio.CancelScope(shield=True):
            await trio.to_thread.run_sync(context.term)  # in a thread, since it waits for the last messages to leave


class Where(TypedDict):
    """The arguments of `connect`."""

    profile: str | None
    profile_dir: str | os.PathLike[str] | None
    cluster_id: str
    connection_file: str | os.PathLike[str] | None
    connection_info: Mapping[str, Any] | None
    curve_keys: tuple[str, str] | None
    answer_within: float
    lost_after: float


@asynccontextmanager
async def open_link(
    context: zmq.Context[zmq.Socket[Any]], **where: Unpack[Where]
) -> AsyncGenerator[tuple[HubConnection, Engines], None]:
    """Give a connection to a running hub, and the hub's engines, for the length of the block.

    Args:
        context: The context for the sockets. The caller terminates it afterwards, which waits for the last messages.
        where: The arguments of `connect`. The errors are those of `connect`, too.
    """
    answer_within, lost_after = where["answer_within"], where["lost_after"]
    address = await _address(where)
    engines = Engines()
    link = None
    try:
        async with serving() as nursery:
            # The session is the same on all sockets and connections: a hub that comes back recognises the client by it.
            link = HubConnection(address, context, secrets.token_hex(16))
            link.published = engines.publish_untrusted
            link.open(lost_after)
            nursery.start_soon(link.run, name="client: receive")
            with trio.move_on_after(answer_within) as scope:
                await learn_engines(link, engines)
            if scope.cancelled_caught:
                raise HubLostError(
                    f"no answer from {address.url('registration')} within {answer_within:g} s: is the hub of "
                    f"{address.source} still running, and is its key the one in that file?"
                )
            nursery.start_soon(keep, link, engines, lost_after, name="client: keep")
            yield link, engines
    finally:
        engines.close()
        if link is not None:
            link.close(LINGER)


async def _address(where: Where) -> HubAddress:
    """Return the hub's address. Raises `ConnectionFileError` and `ConfigError`."""
    for name, seconds in (("answer_within", where["answer_within"]), ("lost_after", where["lost_after"])):
        if not 0 < seconds < 1e6:
            raise ConfigError(f"{name} is {seconds!r}: it must be a positive number of seconds, below 1,000,000")
    profile, profile_dir, cluster_id = where["profile"], where["profile_dir"], where["cluster_id"]
    connection_file, connection_info = where["connection_file"], where["connection_info"]
    if connection_info is None:
        path = connection_file_path(profile, profile_dir, cluster_id, connection_file, os.environ)
        return await address_in(read_connection_file(path), str(path), where["curve_keys"])
    if profile is not None or profile_dir is not None or connection_file is not None or cluster_id:
        raise ConfigError("with connection_info, leave out profile, profile_dir, cluster_id and connection_file")
    return await address_in(dict(connection_info), "connection_info", where["curve_keys"])
