"""`ScriptedEngine`: an engine that does what a test tells it."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import trio
import zmq

from ..errors import HubError
from ..wire.frames import Buffer, Frames
from ..wire.messages import Message, error_content
from .behaviours import Behaviour, answer, obey
from .peer import Peer, Received, new_uuid, open_context

__all__ = ["RegistrationRefused", "Request", "ScriptedEngine", "open_engine", "open_engines"]

PROBE = "kernel_info_request"
"""The type of the hub's probes, whose answer shows that the engine has answered all earlier requests."""


class RegistrationRefused(HubError):
    """The hub has answered a registration with an error: ``ename`` and ``evalue``."""

    def __init__(self, ename: str, evalue: str) -> None:
        super().__init__(f"{ename}: {evalue}")
        self.ename = ename
        self.evalue = evalue


class Request(Received):
    """A request that an engine has received. ``queue`` is ``task``, ``mux``, ``broadcast`` or ``control``."""

    def __init__(self, message: Message, engine: ScriptedEngine, queue: str) -> None:
        super().__init__(message, engine.session)
        self.engine = engine
        self.queue = queue

    @property
    def reply_type(self) -> str:
        return self.msg_type.removesuffix("_request") + "_reply"

    def answer(
        self,
        buffers: Sequence[Buffer] = (),
        *,
        content: dict[str, Any] | None = None,
        metadata: dict[str, Any] | None = None,
        by: ScriptedEngine | None = None,
        key: bytes | None = None,
    ) -> Frames:
        """Send a reply: success, or another content. May be called at any time, and any number of times.

        Args:
            buffers: The buffers of the reply.
            content: A content instead of ``{"status": "ok"}``.
            metadata: Changes to the metadata of the reply.
            by: Another engine that sends the reply, which is then forged.
            key: A key that signs the reply instead of the hub's key.

        Returns:
            The frames that were sent. `Peer.send_raw` can send the same frames again, on ``shell`` or ``control``.
        """
        content = {"status": "ok"} if content is None else content
        engine = by or self.engine
        return engine.send_reply(
            self.queue,
            self.reply_type,
            content,
            to=self.idents[1:],
            parent=self.frames[2],
            metadata={"status": content.get("status", "ok")} | (metadata or {}),
            buffers=buffers,
            key=key,
        )

    def fail(self, ename: str = "RuntimeError", evalue: str = "as the script says") -> Frames:
        """Reply with an error."""
        info = {"engine_uuid": self.engine.uuid, "engine_id": self.engine.id, "method": "apply"}
        return self.answer(content=error_content(ename, evalue, engine_info=info))

    def refuse(self) -> Frames:
        """Reply that the functional dependency is not met on this engine."""
        content = error_content("UnmetDependency", "not on this engine")
        return self.answer(content=content, metadata={"dependencies_met": False})

    def print(self, text: str, name: str = "stdout") -> None:
        """Publish output of this request."""
        self.engine.publish(
            "stream",
            {"name": name, "text": text},
            parent=self.frames[2],
            topic=f"engine.{self.engine.id}.{name}",
        )


class ScriptedEngine(Peer):
    """A registered engine that answers pings, and passes each request to its behaviour. Made by `open_engine`.

    - ``id``, ``uuid``: the id and the uuid of the engine;
    - ``registration``: the content of the hub's answer to the registration;
    - ``behaviour``: the behaviour for requests on the shell channel; may be changed at any time;
    - ``control_behaviour``: the behaviour for requests on the control channel; may be changed at any time;
    - ``beating``: whether the engine answers pings; may be changed at any time;
    - ``pings``: the pings received; ``send_raw("hb_pong", [ping])`` answers a ping by hand;
    - ``requests``: the requests received, in order, without the hub's probes (``kernel_info_request``), which the
      engine answers by itself after all earlier requests, as stock engines do;
    - ``held``: the requests that were not passed to the behaviour because of `hold`.
    """

    def __init__(
        self,
        info: dict[str, Any],
        nursery: trio.Nursery,
        context: zmq.Context[zmq.Socket[Any]],
        *,
        uuid: str | None = None,
        behaviour: Behaviour = answer,
        beating: bool = True,
        curve_keys: tuple[str, str] | None = None,
    ) -> None:
        self.uuid = uuid or new_uuid()
        self.ident = self.uuid.encode()
        self.id = -1
        super().__init__(info, self.uuid, nursery, context, curve_keys)
        self.behaviour = behaviour
        self.control_behaviour: Behaviour = obey
        self.beating = beating
        self.pings: list[bytes] = []
        self.requests: list[Request] = []
        self.held: list[Request] = []
        self._holding = False
        self.registration: dict[str, Any] = {}
        self._subscribed = False

    def __repr__(self) -> str:
        return f"<ScriptedEngine {self.id} {self.uuid}>"

    # At work

    async def wait_requests(self, n: int) -> list[Request]:
        """Wait until at least `n` requests were received, and return all received requests."""
        await self.wait_until(lambda: len(self.requests) >= n)
        return self.requests

    def hold(self) -> None:
        """From now on, keep requests on the shell channel in ``held``, until `release`."""
        self._holding = True

    def release(self, n: int | None = None) -> None:
        """Pass the first `n` held requests to the behaviour. Without `n`, pass all of them, and stop holding."""
        if n is None:
            self._holding = False
        released, self.held = self.held[:n], self.held[len(self.held[:n]) :]
        for request in released:
            self._do(request)

    def _do(self, request: Request) -> None:
        if request.msg_type == PROBE:
            request.answer()
        else:
            self.behaviour(request)

    def send_reply(
        self,
        queue: str,
        msg_type: str,
        content: dict[str, Any],
        *,
        to: Sequence[bytes] = (b"nobody",),
        parent: Buffer | dict[str, Any] = b"{}",
        metadata: dict[str, Any] | None = None,
        buffers: Sequence[Buffer] = (),
        key: bytes | None = None,
    ) -> Frames:
        """Send a reply, even without a request. The other arguments are those of `Request.answer`.

        Args:
            queue: The queue of the reply: ``task``, ``mux``, ``broadcast`` or ``control``.
            to: The routing identities of the receiver.
            parent: The header of the request that the reply seems to answer, packed or as a dict.
        """
        metadata = {
            "started": self.session.now().isoformat(),
            "dependencies_met": True,
            "engine": self.uuid,
            "is_broadcast": queue == "broadcast",
            "is_coalescing": False,
            "original_msg_id": "",
        } | (metadata or {})
        message = self._write(msg_type, content, parent=parent, metadata=metadata, buffers=buffers, key=key)
        frames: Frames = [f"{queue}_out".encode(), *to, *message]
        self.send_raw("control" if queue == "control" else "shell", frames)
        return frames

    def publish(
        self,
        msg_type: str,
        content: dict[str, Any],
        *,
        parent: Buffer | dict[str, Any] = b"{}",
        topic: str | None = None,
    ) -> Frames:
        """Publish a message on iopub. The default topic is ``engine.ID.MSG_TYPE``."""
        topic = topic if topic is not None else f"engine.{self.id}.{msg_type}"
        frames: Frames = [topic.encode(), *self._write(msg_type, content, parent=parent)]
        self.send_raw("iopub", frames)
        return frames

    # Leaving

    def die(self) -> None:
        """Close all sockets at once without sending anything, as SIGKILL would."""
        self.close()

    def leave(self) -> None:
        """Ask the hub to unregister the engine. Its sockets stay open, and its heart continues to beat."""
        self.send_raw("registration", self._write("unregistration_request", {"id": self.id, "uuid": self.uuid}))

    def shut_down(self) -> None:
        """Publish on iopub that the engine has shut down, as stock engines do at their end. Its sockets stay open."""
        self.publish("shutdown_reply", {"status": "ok", "restart": False})

    # Coming

    async def _register(self, id: int | None, *, shell: bool) -> None:
        """Register and open all channels.

        Raises:
            RegistrationRefused: if the hub answers with an error.
        """
        info = self.info
        self.connect("registration", zmq.DEALER, [info["registration"]], self._on_registration, identity=self.ident)
        content: dict[str, Any] = {"uuid": self.uuid} if id is None else {"uuid": self.uuid, "id": id}
        self.send_raw("registration", self._write("registration_request", content))
        await self.wait_until(lambda: bool(self.registration))
        reply = self.registration
        if reply.get("status") != "ok":
            raise RegistrationRefused(reply.get("ename", ""), reply.get("evalue", ""))
        self.id = reply["id"]
        self.connect("iopub", zmq.XPUB, [info["iopub"]], self._on_subscription)
        self.connect("control", zmq.ROUTER, [info["control"]], self._on_control, identity=self.ident)
        if shell:
            self.open_shell()
        # Messages that are published before the hub has subscribed are lost.
        await self.wait_until(lambda: self._subscribed)
        # The heart comes last: when the hub hears it, everything else is open.
        self.connect("hb_pong", zmq.DEALER, [info["hb_pong"]], identity=self.ident)
        self.connect("hb_ping", zmq.SUB, [info["hb_ping"]], self._on_ping)

    def open_shell(self) -> None:
        """Open the shell channel of an engine that was opened with ``shell=False``."""
        broadcast = self.info["broadcast"]
        ports = [self.info["mux"], self.info["task"], broadcast[self.id % len(broadcast)]]
        self.connect("shell", zmq.ROUTER, ports, self._on_shell, identity=self.ident)

    # Incoming messages

    def _on_registration(self, frames: Frames) -> None:
        message = self._read(frames)
        if message is not None:
            self.registration = Received(message, self.session).content
            self._changed()

    def _on_subscription(self, frames: Frames) -> None:
        self._subscribed = True
        self._changed()

    def _on_ping(self, frames: Frames) -> None:
        ping = bytes(frames[0])
        self.pings.append(ping)
        if self.beating:
            self.send_raw("hb_pong", [ping])
        self._changed()

    def _on_shell(self, frames: Frames) -> None:
        request = self._request(frames)
        if request is None:
            return
        if self._holding or (self.held and request.msg_type == PROBE):
            self.held.append(request)
        else:
            self._do(request)
        self._changed()

    def _on_control(self, frames: Frames) -> None:
        request = self._request(frames)
        if request is not None:
            self.control_behaviour(request)
            self._changed()

    def _request(self, frames: Frames) -> Request | None:
        message = self._read(frames)
        if message is None:
            return None
        request = Request(message, self, message.idents[0].decode().removesuffix("_out"))
        if request.msg_type != PROBE:
            self.requests.append(request)
        return request


@asynccontextmanager
async def open_engine(
    info: dict[str, Any],
    *,
    uuid: str | None = None,
    id: int | None = None,
    behaviour: Behaviour = answer,
    beating: bool = True,
    shell: bool = True,
    curve_keys: tuple[str, str] | None = None,
) -> AsyncGenerator[ScriptedEngine, None]:
    """Open an engine for the duration of a block. At the end of the block, the engine dies.

    ::

        async with open_engine(hub.engine_info) as engine: ...

    When the block begins, the engine has its id, but the hub may not have heard its heart yet. Use
    `RunningHub.wait_engines` to wait for that.

    Args:
        info: The contents of the engines' connection file.
        uuid: The uuid of the engine; random by default.
        id: The id that the engine asks for.
        behaviour: The behaviour for requests, see `trio_hub.testing.behaviours`.
        beating: Whether the engine answers pings. If it never does, its registration stalls.
        shell: Whether to open the shell channel, on which requests arrive. If not, use `ScriptedEngine.open_shell`.
        curve_keys: The public and the secret CURVE key of the engine, for a hub that encrypts; new keys by default.

    Raises:
        RegistrationRefused: The hub has answered the registration with an error.
    """
    async with open_context() as (nursery, context, peers):
        engine = ScriptedEngine(
            info, nursery, context, uuid=uuid, behaviour=behaviour, beating=beating, curve_keys=curve_keys
        )
        peers.append(engine)
        await engine._register(id, shell=shell)
        yield engine


@asynccontextmanager
async def open_engines(
    info: dict[str, Any], n: int, *, behaviour: Behaviour = answer
) -> AsyncGenerator[list[ScriptedEngine], None]:
    """Open `n` engines for the duration of a block. They are ordered by id. See `open_engine`."""
    async with open_context() as (nursery, context, peers):
        engines = [ScriptedEngine(info, nursery, context, behaviour=behaviour) for _ in range(n)]
        peers.extend(engines)
        async with trio.open_nursery() as registering:
            for engine in engines:
                registering.start_soon(_register, engine)
        yield sorted(engines, key=lambda engine: engine.id)


async def _register(engine: ScriptedEngine) -> None:
    await engine._register(None, shell=True)
