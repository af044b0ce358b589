"""The base class of scripted engines and clients: sockets, a session, and waiting for conditions."""

from __future__ import annotations

import secrets
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from functools import cached_property
from typing import Any

import trio
import zmq

from ..errors import WireError
from ..transport.blocks import serving
from ..transport.channel import Channel
from ..transport.receiver import Receiver
from ..wire.frames import Buffer, Frames, to_bytes
from ..wire.messages import Message, Session
from ..wire.signing import Signer

__all__ = ["Peer", "Received", "new_uuid", "open_context", "serving"]


class Received:
    """A received and verified message. Its dicts are unpacked when they are first used.

    ``at`` is the time of its arrival, by Trio's clock.
    """

    def __init__(self, message: Message, session: Session) -> None:
        self.message = message
        self.at = trio.current_time()
        self._unpack = session.packer.unpack_untrusted

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.msg_type} {self.msg_id}>"

    @property
    def msg_id(self) -> str:
        return self.message.header.msg_id

    @property
    def msg_type(self) -> str:
        return self.message.header.msg_type

    @property
    def parent_id(self) -> str:
        """The msg_id of the request that this message answers; empty if it answers none."""
        return self.message.parent.msg_id

    @property
    def idents(self) -> list[bytes]:
        """The frames before the delimiter: routing identities, or the topics of a published message."""
        return self.message.idents

    @property
    def frames(self) -> Frames:
        """The frames of the message from the delimiter on, as received."""
        return self.message.frames

    @property
    def buffers(self) -> Frames:
        """The frames after the content. Large ones are `zmq.Frame` objects."""
        return self.message.buffers

    @cached_property
    def header(self) -> dict[str, Any]:
        return self._dict(2)

    @cached_property
    def parent(self) -> dict[str, Any]:
        """The header of the request that this message answers."""
        return self._dict(3)

    @cached_property
    def metadata(self) -> dict[str, Any]:
        return self._dict(4)

    @cached_property
    def content(self) -> dict[str, Any]:
        return self._dict(5)

    def _dict(self, index: int) -> dict[str, Any]:
        value: dict[str, Any] = self._unpack(to_bytes(self.message.frames[index]))
        return value


class Peer:
    """An engine or a client: an object with ZeroMQ sockets that are connected to a hub.

    - ``channels``: the sockets by name, each as a `Channel`;
    - ``unreadable``: the errors of received messages that could not be read, in order;
    - ``curve_keys``: the public and the secret CURVE key of the peer, in Z85. If the connection info has the hub's
      public CURVE key, all connections are encrypted.
    """

    def __init__(
        self,
        info: dict[str, Any],
        session_id: str,
        nursery: trio.Nursery,
        context: zmq.Context[zmq.Socket[Any]],
        curve_keys: tuple[str, str] | None = None,
    ) -> None:
        self.info = info
        if curve_keys is None and info.get("curve_serverkey"):
            public, secret = zmq.curve_keypair()
            curve_keys = public.decode(), secret.decode()
        self.curve_keys = curve_keys
        self.session = Session(
            info["key"].encode(),
            session_id=session_id,
            now=lambda: datetime.now(UTC),
            packer=info.get("pack", "json"),
            scheme=info.get("signature_scheme", "hmac-sha256"),
            username="trio-hub-scripted",
        )
        self.channels: dict[str, Channel] = {}
        self.unreadable: list[WireError] = []
        self.closed = False
        self._nursery = nursery
        self._context = context
        self._waiting = trio.lowlevel.ParkingLot()
        self._receiver: Receiver | None = None

    async def wait_until(self, condition: Callable[[], bool]) -> None:
        """Wait until a condition is true. The condition is checked again each time that a message has arrived.

        Raises:
            trio.ClosedResourceError: The sockets were closed, and the condition is false.
        """
        await trio.lowlevel.checkpoint()
        while not condition():
            if self.closed:
                raise trio.ClosedResourceError(f"{self!r} is closed, and the condition is not true")
            await self._waiting.park()

    def send_raw(self, channel: str, frames: Sequence[Buffer]) -> bool:
        """Send frames unchanged. Return False if the channel is closed."""
        return self.channels[channel].send(frames)

    def close(self) -> None:
        """Close all sockets at once, as the death of a process does. Idempotent."""
        self.closed = True
        for channel in self.channels.values():
            channel.close(linger=0)
        self._changed()

    def url(self, port: int) -> str:
        """Return the ZeroMQ URL of a port of the hub. A wildcard address is replaced by the loopback address."""
        interface: str = self.info["interface"]
        for anywhere, here in (("*", "127.0.0.1"), ("0.0.0.0", "127.0.0.1"), ("[::]", "[::1]")):
            interface = interface.replace(anywhere, here)
        return f"{interface}:{port}"

    def connect(
        self,
        name: str,
        kind: int,
        ports: Sequence[int],
        handle: Callable[[Frames], None] | None = None,
        *,
        identity: bytes = b"",
    ) -> Channel:
        """Open a channel: a new socket that is connected to these ports of the hub.

        The socket has no high water mark, so sending never waits. `handle` is called with the frames of each message.
        """
        socket = self._context.socket(kind)
        channel = self.channels[name] = Channel(socket, handle, name=name)
        socket.sndhwm = socket.rcvhwm = 0
        if "[" in self.info["interface"]:
            socket.ipv6 = True
        server_key = self.info.get("curve_serverkey")
        if server_key and self.curve_keys is not None:
            socket.curve_serverkey = server_key.encode()
            socket.curve_publickey, socket.curve_secretkey = (key.encode() for key in self.curve_keys)
        if identity:
            socket.identity = identity
        if kind == zmq.SUB:
            socket.subscribe(b"")
        for port in ports:
            socket.connect(self.url(port))
        if handle is not None:
            self._receive_from(channel)
        return channel

    def _receive_from(self, channel: Channel) -> None:
        if self._receiver is None:
            self._receiver = Receiver()
            self._receiver.add(channel)
            self._nursery.start_soon(self._receive, self._receiver, name=f"{self!r}")
        else:
            self._receiver.add(channel)

    async def _receive(self, receiver: Receiver) -> None:
        try:
            with receiver:
                await receiver.run()
        finally:
            self._receiver = None

    def _read(self, frames: Frames) -> Message | None:
        try:
            return self.session.read_untrusted(frames)
        except WireError as error:
            self.unreadable.append(error)
            self._changed()
            return None

    def _write(
        self,
        msg_type: str,
        content: Any,
        *,
        parent: Buffer | dict[str, Any] = b"{}",
        metadata: Any = None,
        buffers: Sequence[Buffer] = (),
        key: bytes | None = None,
        msg_id: str | None = None,
    ) -> Frames:
        """Return the frames of a message from the delimiter on, signed with `key` or else with the hub's key."""
        header = self.session.new_header(msg_type)
        if msg_id is not None:
            header["msg_id"] = msg_id
        if isinstance(parent, dict):
            parent = self.session.packer.pack(parent)
        frames = self.session.write(msg_type, content, parent=parent, metadata=metadata, buffers=buffers, header=header)
        if key is not None:
            frames[1] = Signer(key, self.session.signer.scheme).sign(frames[2:6])
        return frames

    def _changed(self) -> None:
        if self._waiting:
            self._waiting.unpark_all()


def new_uuid() -> str:
    return secrets.token_hex(16)


@asynccontextmanager
async def open_context() -> AsyncGenerator[tuple[trio.Nursery, zmq.Context[zmq.Socket[Any]], list[Peer]], None]:
    """Open a nursery and a ZeroMQ context for peers. Peers in the yielded list are closed at the end of the block."""
    context: zmq.Context[zmq.Socket[Any]] = zmq.Context()
    context.max_sockets = 65_535
    peers: list[Peer] = []
    try:
        async with serving() as nursery:
            yield nursery, context, peers
    finally:
        for peer in peers:
            peer.close()
        context.term()  # returns at once, since no socket lingers
