"""The link to a hub: its sockets, what is asked through them, and what became of each request."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple

import trio
import zmq

from ..errors import HubError, HubLostError, WireError
from ..logs import get_logger
from ..transport.channel import Channel, monitor_of
from ..transport.receiver import Receiver
from ..wire.frames import Buffer, Frames, to_bytes
from ..wire.messages import Message, Session
from .finding import HubAddress

__all__ = ["HubConnection", "HubReply", "Pending"]

log = get_logger("trio_hub.client")

_CONNECTED = int(zmq.EVENT_HANDSHAKE_SUCCEEDED)


class HubReply(NamedTuple):
    """An answer. ``buffers`` that are large stay where ZeroMQ has received them."""

    content: dict[str, Any]
    buffers: Frames


class Pending:
    """A request that is not answered yet.

    ``frames`` is the message as it was sent, but for the engine's name before it, which is ``to``. ``repeatable`` is
    whether it may be carried out twice.
    """

    __slots__ = (
        "_error",
        "_event",
        "_reply",
        "channel",
        "done",
        "frames",
        "msg_id",
        "on_end",
        "repeatable",
        "sent_at",
        "to",
    )

    def __init__(self, msg_id: str, channel: str, to: str | None, frames: Frames, repeatable: bool) -> None:
        self.msg_id = msg_id
        self.channel = channel
        self.to = to
        self.frames = frames
        self.repeatable = repeatable
        self.sent_at = 0
        self.on_end: Callable[[Pending], None] | None = None
        self.done = False
        self._event: trio.Event | None = None
        self._reply: HubReply | None = None
        self._error: HubError | None = None

    def __repr__(self) -> str:
        return f"<Pending {self.msg_id}>"

    def end(self, outcome: HubReply | HubError) -> None:
        """It is answered, or will not be. Once."""
        if isinstance(outcome, HubError):
            self._error = outcome
        else:
            self._reply = outcome
        self.frames = []
        self.done = True
        if self._event is not None:
            self._event.set()
        if self.on_end is not None:
            self.on_end(self)

    async def wait(self) -> HubReply:
        """The answer, once it is there. One task may wait for it.

        Raises:
            HubLostError, RequestLostError: there will be none.
        """
        if self.done:
            await trio.lowlevel.checkpoint()
        else:
            self._event = trio.Event()
            await self._event.wait()
        return self.outcome()

    def outcome(self) -> HubReply:
        """Return the answer of a request that is ``done``. Raises `HubLostError` and `RequestLostError`."""
        if self._error is not None:
            raise self._error
        assert self._reply is not None
        return self._reply


class HubConnection:
    """All sockets of a client, and its unanswered requests, by msg_id, in ``pending``.

    Sending and receiving never wait: `ask` returns what can be waited for. The sockets connect again by themselves;
    ``returned`` is set whenever one has, and ``handshakes`` counts them by channel.
    """

    def __init__(self, address: HubAddress, context: zmq.Context[zmq.Socket[Any]], session_id: str) -> None:
        self.address = address
        self.session = Session(
            address.key,
            session_id=session_id,
            now=lambda: datetime.now(UTC),
            packer=address.packer,
            scheme=address.scheme,
            username="trio-hub-client",
        )
        self.pending: dict[str, Pending] = {}
        self.handshakes: dict[str, int] = {}
        self.returned = trio.Event()
        self.hub_name = ""
        """The user that the hub's replies name: it has none, and says what it is instead, if it is one of ours."""
        self.lost: str | None = None
        """Why nothing can be asked at present; None as long as the hub can be reached."""
        self.published: Callable[[str, dict[str, Any]], None] = lambda msg_type, content: None
        self._context = context
        self._channels: dict[str, Channel] = {}
        self._monitors: dict[str, Channel] = {}
        self._receiver = Receiver()

    def open(self, silence: float) -> None:
        """Open all sockets; a connection that is silent for so many seconds counts as broken."""
        for name in ("registration", "task", "mux", "control"):
            self._open(name, zmq.DEALER, silence, self._on_reply)
        self._open("notification", zmq.SUB, silence, self._on_published)

    def _open(self, name: str, kind: int, silence: float, handle: Callable[[Frames], None]) -> None:
        socket: zmq.Socket[Any] = self._context.socket(kind)
        channel = self._channels[name] = Channel(socket, handle, name=name)
        socket.sndhwm = socket.rcvhwm = 0
        socket.ipv6 = "[" in self.address.url(name)
        socket.reconnect_ivl_max = 1000  # milliseconds: after a long absence, too, the hub is soon noticed
        socket.heartbeat_ivl = max(1, int(silence * 1000 / 3))
        socket.heartbeat_timeout = max(1, int(silence * 1000))
        if self.address.curve is not None:
            socket.curve_serverkey, socket.curve_publickey, socket.curve_secretkey = self.address.curve
        if kind == zmq.SUB:
            socket.subscribe(b"")
        # No identity: the hub gives each connection a new one, and knows the client again by its session. A name of our
        # own could be in use, by the connection that the hub does not know to be broken, or by a stranger.
        # its descriptors are watched before it connects, so that no handshake is missed
        monitor = Channel(monitor_of(socket, _CONNECTED), lambda frames: self._on_handshake(name))
        self._monitors[name] = monitor
        self._receiver.add(monitor)
        socket.connect(self.address.url(name))
        self._receiver.add(channel)

    async def run(self) -> None:
        """Receive, until cancelled or closed."""
        await self._receiver.run()

    def close(self, linger: int) -> None:
        """Close all sockets; what was sent has so many milliseconds to leave. Who still waits gets `HubLostError`."""
        for name, monitor in self._monitors.items():
            self._channels[name].socket.disable_monitor()
            monitor.close(linger=0)
        for channel in self._channels.values():
            channel.close(linger)
        self._receiver.close()
        self.lose("the client is closed")

    # Asking

    def ask(
        self,
        channel: str,
        msg_type: str,
        content: dict[str, Any],
        *,
        to: str | None = None,
        metadata: dict[str, Any] | None = None,
        buffers: Sequence[Buffer] = (),
        repeatable: bool = True,
        though_lost: bool = False,
    ) -> Pending:
        """Send a request.

        Args:
            channel: ``registration``, ``task``, ``mux`` or ``control``.
            msg_type: ends in ``_request``.
            content: of the message.
            to: the uuid of the engine, for ``mux`` and ``control``.
            metadata: of the message.
            buffers: go behind the content.
            repeatable: whether it may be sent again if nobody knows what became of it.
            though_lost: to find out whether the hub is back.

        Raises:
            HubLostError: the hub has been away for too long, and is not back yet.
        """
        if self.lost is not None and not though_lost:
            raise HubLostError(self.lost)
        header = self.session.new_header(msg_type)
        frames = self.session.write(msg_type, content, metadata=metadata, buffers=buffers, header=header)
        pending = Pending(header["msg_id"], channel, to, frames, repeatable)
        self.pending[pending.msg_id] = pending
        self._send(pending)
        return pending

    def ask_again(self, pending: Pending) -> None:
        """Send a request once more, under its msg_id, as a message that nobody has seen before."""
        header = self.session.packer.unpack_untrusted(to_bytes(pending.frames[2]))
        header["date"] = self.session.now().isoformat()
        parts = [self.session.packer.pack(header), *pending.frames[3:6]]
        pending.frames = self.session.seal(parts, pending.frames[6:])
        self._send(pending)

    def _send(self, pending: Pending) -> None:
        pending.sent_at = self.handshakes.get(pending.channel, 0)
        frames = pending.frames if pending.to is None else [pending.to.encode(), *pending.frames]
        self._channels[pending.channel].send(frames)

    def interrupted(self) -> list[Pending]:
        """Requests that were sent on a connection that broke; or that waited for the next one, which cannot be told."""
        return [one for one in self.pending.values() if 0 < one.sent_at < self.handshakes.get(one.channel, 0)]

    def give_up(self, pending: Pending) -> None:
        """Nobody waits for this one any more; its answer is ignored."""
        self.pending.pop(pending.msg_id, None)

    def end(self, pending: Pending, outcome: HubReply | HubError) -> None:
        """A request is answered, or will not be."""
        if self.pending.pop(pending.msg_id, None) is not None:
            pending.end(outcome)

    def lose(self, why: str) -> None:
        """The hub is away: whoever waits, and whoever asks until it is `found`, gets a `HubLostError`."""
        self.lost = why
        for pending in list(self.pending.values()):
            self.end(pending, HubLostError(why))

    def found(self) -> None:
        """The hub is there again."""
        self.lost = None

    # What arrives

    def _read(self, frames: Frames) -> Message | None:
        try:
            return self.session.read_untrusted(frames)
        except WireError as error:
            log.warning("a message that cannot be read was dropped", error=error)
            return None

    def _on_reply(self, frames: Frames) -> None:
        message = self._read(frames)
        pending = None if message is None else self.pending.get(message.parent.msg_id)
        if message is not None and pending is not None:
            if pending.channel == "registration":
                self.hub_name = message.header.username
            try:
                outcome: HubReply | HubError = HubReply(self.session.content(message), message.buffers)
            except WireError as error:
                outcome = error
            self.end(pending, outcome)

    def _on_published(self, frames: Frames) -> None:
        message = self._read(frames)
        if message is not None:
            try:
                content = self.session.content(message)
            except WireError as error:
                log.warning("a notification that cannot be read was dropped", error=error)
            else:
                self.published(message.header.msg_type, content)

    def _on_handshake(self, name: str) -> None:
        self.handshakes[name] = self.handshakes.get(name, 0) + 1
        self.returned.set()
