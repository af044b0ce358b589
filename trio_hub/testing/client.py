"""`ScriptedClient`: a client that does what a test tells it, and remembers every reply."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import trio
import zmq

from ..transport.channel import Channel
from ..transport.receiver import receive_from
from ..wire.frames import Buffer, Frames
from .engine import ScriptedEngine
from .peer import Peer, Received, new_uuid, open_context, serving

__all__ = ["ScriptedClient", "open_client"]


class ScriptedClient(Peer):
    """A client whose channels are all open. Made by `open_client`.

    - ``replies``: the replies received, by the msg_id of the request; more than one only if the hub has a fault;
    - ``notifications``, ``iopub``: the published messages received, in order.

    Methods that send return at once with a msg_id. `reply` waits for the answer to it.
    """

    def __init__(
        self,
        info: dict[str, Any],
        nursery: trio.Nursery,
        context: zmq.Context[zmq.Socket[Any]],
        session_id: str | None,
        curve_keys: tuple[str, str] | None = None,
    ) -> None:
        super().__init__(info, session_id or new_uuid(), nursery, context, curve_keys)
        self.replies: defaultdict[str, list[Received]] = defaultdict(list)
        self.notifications: list[Received] = []
        self.iopub: list[Received] = []

    def __repr__(self) -> str:
        return f"<ScriptedClient {self.session.session_id}>"

    # Asking

    def submit(self, *buffers: Buffer, metadata: dict[str, Any] | None = None, msg_id: str | None = None) -> str:
        """Submit a task to the load-balanced queue. `metadata` may have ``retries``, ``targets`` and so on."""
        return self.send("task", "apply_request", metadata=metadata, buffers=buffers, msg_id=msg_id)

    def call(
        self,
        engine: ScriptedEngine | str,
        *buffers: Buffer,
        msg_type: str = "apply_request",
        content: dict[str, Any] | None = None,
        metadata: dict[str, Any] | None = None,
    ) -> str:
        """Send a request to one engine, given as an object or by its uuid, through the direct queue."""
        return self.send("mux", msg_type, content, to=engine, metadata=metadata, buffers=buffers)

    def control(self, engine: ScriptedEngine | str, msg_type: str, content: dict[str, Any] | None = None) -> str:
        """Send a request, such as ``abort_request``, to the control channel of one engine, given as object or uuid."""
        return self.send("control", msg_type, content, to=engine)

    async def query(self, msg_type: str, content: dict[str, Any] | None = None) -> Received:
        """Send a query, such as ``queue_request``, to the hub, and wait for the answer."""
        return await self.reply(self.send("registration", msg_type, content))

    def send(
        self,
        channel: str,
        msg_type: str,
        content: dict[str, Any] | None = None,
        *,
        to: ScriptedEngine | str | None = None,
        metadata: dict[str, Any] | None = None,
        buffers: Sequence[Buffer] = (),
        key: bytes | None = None,
        msg_id: str | None = None,
    ) -> str:
        """Send any message on any channel (``registration``, ``task``, ``mux``, ``control``, ``broadcast``).

        Args:
            channel: The name of the channel.
            msg_type: The message type in the header.
            content: The content; empty by default.
            to: The engine, for ``mux`` and ``control``.
            metadata: The metadata; empty by default.
            buffers: The buffers.
            key: A key that signs the message instead of the hub's key.
            msg_id: A msg_id to use instead of a new one.

        Returns:
            The msg_id of the message.
        """
        msg_id = msg_id or self.session.new_msg_id()
        frames = self._write(msg_type, content or {}, metadata=metadata, buffers=buffers, key=key, msg_id=msg_id)
        if to is not None:
            frames.insert(0, (to if isinstance(to, str) else to.uuid).encode())
        self.send_raw(channel, frames)
        return msg_id

    # Hearing

    async def reply(self, msg_id: str) -> Received:
        """Wait for a reply to the request with this msg_id, and return the first one."""
        await self.wait_until(lambda: msg_id in self.replies)
        return self.replies[msg_id][0]

    async def notification(self, msg_type: str, **content: Any) -> Received:
        """Wait for a notification of this type with this content, and return the first one."""
        return await self._first(self.notifications, msg_type, content)

    async def output(self, msg_type: str, **content: Any) -> Received:
        """Wait for an iopub message of this type with this content, and return the first one."""
        return await self._first(self.iopub, msg_type, content)

    async def _first(self, received: list[Received], msg_type: str, content: dict[str, Any]) -> Received:
        found: list[Received] = []

        def seen() -> bool:
            found.extend(one for one in received if one.msg_type == msg_type and content.items() <= one.content.items())
            return bool(found)

        await self.wait_until(seen)
        return found[0]

    # Coming

    async def _open(self) -> None:
        for name, into in (("notification", self.notifications), ("iopub", self.iopub)):
            await self._subscribe(name, into)
        for name in ("registration", "task", "mux", "control", "broadcast"):
            port = self.info[name]
            self.connect(name, zmq.DEALER, port if isinstance(port, list) else [port], self._on_reply)
        # When the answer arrives, the hub has also read the subscriptions, which were sent before.
        await self.query("connection_request")

    async def _subscribe(self, name: str, into: list[Received]) -> None:
        """Open a channel for published messages, and wait until the subscription is sent.

        Messages that are published before it arrives are lost.
        """
        channel = self.connect(name, zmq.SUB, [], lambda frames: self._on_published(frames, into))
        connected = trio.Event()
        monitor = channel.socket.get_monitor_socket(zmq.EVENT_HANDSHAKE_SUCCEEDED)
        with Channel(monitor, lambda frames: connected.set(), name=f"{name} monitor") as events:
            async with serving() as nursery:
                nursery.start_soon(receive_from, events)
                channel.socket.connect(self.url(self.info[name]))
                await connected.wait()
            channel.socket.disable_monitor()

    # Incoming messages

    def _on_reply(self, frames: Frames) -> None:
        message = self._read(frames)
        if message is not None:
            self.replies[message.parent.msg_id].append(Received(message, self.session))
            self._changed()

    def _on_published(self, frames: Frames, into: list[Received]) -> None:
        message = self._read(frames[1:])  # the first frame is the topic with which the hub addresses this client
        if message is not None:
            into.append(Received(message, self.session))
            self._changed()


@asynccontextmanager
async def open_client(
    info: dict[str, Any], *, session: str | None = None, curve_keys: tuple[str, str] | None = None
) -> AsyncGenerator[ScriptedClient, None]:
    """Open a client for the duration of a block.

    ::

        async with open_client(hub.client_info) as client: ...

    When the block begins, the hub has answered the client once, and knows its subscriptions.

    Args:
        info: The contents of the clients' connection file.
        session: The session of the client; random by default.
        curve_keys: The public and the secret CURVE key of the client, for a hub that encrypts; new keys by default.
    """
    async with open_context() as (nursery, context, peers):
        client = ScriptedClient(info, nursery, context, session, curve_keys)
        peers.append(client)
        await client._open()
        yield client
