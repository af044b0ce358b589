"""The connection to a hub: its sockets, and the client's unanswered requests."""

from __future__ import annotations

import getpass
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
from ..wire.messages import OWN_USERNAME, Message, Session
from ..wire.plain import printable
from .finding import HubAddress

__all__ = ["HubConnection", "HubReply", "Pending"]

log = get_logger("trio_hub.client")

_CONNECTED = int(zmq.EVENT_HANDSHAKE_SUCCEEDED)


class HubReply(NamedTuple):
    """A reply of the hub or of an engine. Large ``buffers`` stay where ZeroMQ has received them."""

    content: dict[str, Any]
    buffers: Frames


class Pending:
    """A request that is not answered yet.

    ``frames`` is the message as it was sent, without the engine's identity in front, which is ``to``. ``repeatable`` is
    whether the request may be carried out twice.
    """

    __slots__ = (
        "_error",
        "_reply",
        "_waiter",
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
        self._waiter: trio.lowlevel.Task | None = None
        self._reply: HubReply | None = None
        self._error: HubError | None = None

    def __repr__(self) -> str:
        return f"<Pending {self.msg_id}>"

    def end(self, outcome: HubReply | HubError) -> None:
        """Set the reply, or the error if there will be no reply. Call this once."""
        if isinstance(outcome, HubError):
            self._error = outcome
        else:
            self._reply = outcome
        self.frames = []
        self.done = True
        if self._waiter is not None:
            waiter, self._waiter = self._waiter, None
            trio.lowlevel.reschedule(waiter)
        if self.on_end is not None:
            self.on_end(self)

    async def wait(self) -> HubReply:
        """Wait for the reply, and return it. Only one task may wait.

        Raises:
            HubLostError, RequestLostError: There will be no reply.
        """
        if self.done:
            await trio.lowlevel.checkpoint()
        else:
            # An event per request would cost three times as much.
            self._waiter = trio.lowlevel.current_task()
            await trio.lowlevel.wait_task_rescheduled(self._cancelled)
        return self.outcome()

    def _cancelled(self, raise_cancel: object) -> trio.lowlevel.Abort:
        self._waiter = None
        return trio.lowlevel.Abort.SUCCEEDED

    def outcome(self) -> HubReply:
        """Return the reply to a request that is ``done``. Raises `HubLostError` and `RequestLostError`."""
        if self._error is not None:
            raise self._error
        assert self._reply is not None
        return self._reply


class HubConnection:
    """All sockets of a client, and its unanswered requests, by msg_id, in ``pending``.

    Sending never waits: `ask` returns a `Pending`, which can be waited for. The sockets connect again by themselves.
    ``returned`` is set whenever a socket has connected, and ``handshakes`` counts the connections by channel.
    """

    def __init__(self, address: HubAddress, context: zmq.Context[zmq.Socket[Any]], session_id: str) -> None:
        self.address = address
        self.session = Session(
            address.key,
            session_id=session_id,
            now=lambda: datetime.now(UTC),
            packer=address.packer,
            scheme=address.scheme,
            username=_username(),
        )
        self.pending: dict[str, Pending] = {}
        self.handshakes: dict[str, int] = {}
        self.returned = trio.Event()
        self.hub_name = ""
        """The username in the hub's replies. A trio-hub sends its kind as username."""
        self.lost: str | None = None
        """Why the hub is lost; None while it can be reached."""
        self.published: Callable[[str, dict[str, Any]], None] = lambda msg_type, content: None
        self._context = context
        self._channels: dict[str, Channel] = {}
        self._monitors: dict[str, Channel] = {}
        self._receiver = Receiver()

    def open(self, silence: float) -> None:
        """Open all sockets. A connection that is silent for ``silence`` seconds counts as broken."""
        for name in ("registration", "task", "mux", "control"):
            self._open(name, zmq.DEALER, silence, self._on_reply)
        self._open("notification", zmq.SUB, silence, self._on_published)

    def _open(self, name: str, kind: int, silence: float, handle: Callable[[Frames], None]) -> None:
        socket: zmq.Socket[Any] = self._context.socket(kind)
        channel = self._channels[name] = Channel(socket, handle, name=name)
        socket.sndhwm = socket.rcvhwm = 0
        socket.ipv6 = "[" in self.address.url(name)
        socket.reconnect_ivl_max = 1000  # milliseconds, so that the hub is soon noticed even after a long absence
        socket.heartbeat_ivl = max(1, int(silence * 1000 / 3))
        socket.heartbeat_timeout = max(1, int(silence * 1000))
        if self.address.curve is not None:
            socket.curve_serverkey, socket.curve_publickey, socket.curve_secretkey = self.address.curve
        if kind == zmq.SUB:
            socket.subscribe(b"")
        # No identity: the hub gives each connection a new one, and recognises the client by its session. An identity of
        # our own could be in use, by a connection that the hub does not know to be broken, or by a stranger.
        # The monitor is made before the socket connects, so that no handshake is missed.
        monitor = Channel(monitor_of(socket, _CONNECTED), lambda frames: self._on_handshake(name))
        self._monitors[name] = monitor
        self._receiver.add(monitor)
        socket.connect(self.address.url(name))
        self._receiver.add(channel)

    async def run(self) -> None:
        """Receive until cancelled or closed."""
        await self._receiver.run()

    def close(self, linger: int) -> None:
        """Close all sockets. Sent messages have `linger` milliseconds to leave. Waiting tasks get a `HubLostError`."""
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
            msg_type: The type of the message, which ends in ``_request``.
            content: The content of the message.
            to: The uuid of the engine, for ``mux`` and ``control``.
            metadata: The metadata of the message.
            buffers: The buffers of the message.
            repeatable: Whether the request may be sent again if it may have been lost.
            though_lost: Send the request even if the hub is lost, to find out whether it is back.

        Raises:
            HubLostError: The hub is lost, and not back yet.
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
        """Send a request once more, with its msg_id, as a new message, which is not a replay."""
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
        """Return the requests that may have been sent on a connection that broke."""
        return [one for one in self.pending.values() if 0 < one.sent_at < self.handshakes.get(one.channel, 0)]

    def give_up(self, pending: Pending) -> None:
        """Ignore the reply to a request, for which nobody waits any more."""
        self.pending.pop(pending.msg_id, None)

    def end(self, pending: Pending, outcome: HubReply | HubError) -> None:
        """End a request with its reply, or with the error if there will be no reply."""
        if self.pending.pop(pending.msg_id, None) is not None:
            pending.end(outcome)

    def lose(self, why: str) -> None:
        """Note that the hub is lost: all waiting requests, and all requests until `found`, get a `HubLostError`."""
        self.lost = why
        for pending in list(self.pending.values()):
            self.end(pending, HubLostError(why))

    def found(self) -> None:
        """Note that the hub is back."""
        self.lost = None

    # Receiving

    def _read(self, frames: Frames) -> Message | None:
        try:
            return self.session.read_untrusted(frames)
        except WireError as error:
            log.warning("dropped an unreadable message", error=error)
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
                log.warning("dropped an unreadable notification", error=error)
            else:
                self.published(message.header.msg_type, content)

    def _on_handshake(self, name: str) -> None:
        self.handshakes[name] = self.handshakes.get(name, 0) + 1
        self.returned.set()


def _username() -> str:
    """Return the username for headers. It has the name of the user of this process, if that is known."""
    try:
        return printable(f"{OWN_USERNAME}-client/{getpass.getuser()}")
    except (KeyError, OSError):  # a process in a container may have a user id without a name
        return f"{OWN_USERNAME}-client"
