"""An engine's life at its hub: registration, work, absences of the hub, and the end."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from functools import partial
from typing import Any

import trio
import zmq

from ..errors import HubLostError
from ..logs import get_logger
from ..transport.receiver import Receiver
from ..wire.frames import DELIMITER, Frames
from ..wire.messages import Session
from .address import HubAddress, moved
from .control import Control
from .dispatch import Dispatcher
from .draining import Draining
from .heart import Heart
from .jobs import Jobs
from .link import Link
from .offers import offers
from .options import EngineOptions
from .output import Printed, Redirection
from .registrar import Registrar, RegistrationFailed
from .returns import Returns
from .tunnels import TunnelFailed, Tunnels
from .turns import ShellReader
from .usage import UsageReporter
from .waiting import happens_within

__all__ = ["Engine", "RegistrationFailed"]

log = get_logger("trio_hub.engine")

LINGER, LINGER_AWAY = 3000, 500
"""Milliseconds that the last messages have to leave when the engine ends: with the hub there, and with the hub away."""
SUBSCRIBED_WITHIN = 2.0
"""Seconds. The engine waits at most this long for the hub to subscribe to its output, before its heart beats."""
HEARTBEAT_SLACK = 0.5
"""Seconds that a ping may be late, as with stock engines."""


class Engine:
    """The engine's side of its connections, in the thread of the sockets.

    Args:
        options: the engine's options.
        uuid: the engine's name.
        address: where the hub is.
        jobs: the requests for the main thread.
        printed: the output that is not sent yet.
        redirection: the pipes that catch the output of subprocesses and libraries in C.
        reader: receives requests in the main thread.
        told: called with the data with which the nanny reports the engine's death; with None after the engine has
            unregistered.
        registered: called with the engine's id, each time the hub has given one.
        stop_work: stops the user code that runs.
    """

    def __init__(
        self,
        options: EngineOptions,
        uuid: str,
        address: HubAddress,
        jobs: Jobs,
        printed: Printed,
        redirection: Redirection,
        reader: ShellReader,
        *,
        told: Callable[[dict[str, Any] | None], None],
        registered: Callable[[int], None],
        stop_work: Callable[[], None],
    ) -> None:
        self._options = options
        self._uuid = uuid
        self._identity = uuid.encode()
        self.address = address
        self._told = told
        self._registered = registered
        self._redirection = redirection
        self._printed = printed
        self._reader = reader
        self._context: zmq.Context[zmq.Socket[Any]] = zmq.Context()
        self._receiver = Receiver()
        self._link: Link | None = None
        self._tunnels = self._tunnels_to(address)
        self._heart: Heart | None = None
        session = session_for(address, uuid)
        self.dispatcher = Dispatcher(uuid, session, self._send, jobs, printed, redirection)
        self._control = Control(self.dispatcher, jobs, self._asked_to_end)
        self.id = -1
        self._usage = UsageReporter(partial(self.dispatcher.report, "engine_usage"))
        self._registrar = Registrar(
            uuid, self.dispatcher, options.timeout, options.id, offers(options.tags), options.block
        )
        self._returns = Returns(self._registrar, lambda: self.id, lambda: self._misses == 0, self._known_again)
        self._hub_drains = False
        self.draining = Draining(
            options,
            self._registrar,
            jobs,
            hub_is_there=lambda: self._link is not None and self._link.is_connected("registration"),
            hub_drains=lambda: self._hub_drains,
            stop=self.stop,
            stop_work=stop_work,
        )
        self._scope = trio.CancelScope()
        self._opened = trio.Event()
        self._subscribed = trio.Event()
        self._ping = trio.Event()
        self.hb_period = 3.0
        self._misses = 0
        self._killed = self._is_ending = False
        self.reason = ""
        """Why the engine ends."""

    # Life

    async def run(self) -> None:
        """Register, and work until the engine is told to end, or the hub is away for too long.

        Raises:
            RegistrationFailed: the hub does not answer, or refuses the engine.
            HubLostError: the hub was away for too long.
        """
        try:
            async with trio.open_nursery() as nursery:
                await self._live(nursery)
        finally:
            self._leave()
            with trio.move_on_after(LINGER / 1000 + 1, shield=True):
                await trio.to_thread.run_sync(self._context.term, abandon_on_cancel=True)
            await self._tunnels.close()
            self._told(None)

    async def _live(self, nursery: trio.Nursery) -> None:
        """Register and work, until `stop` is called. Raises like `run`."""
        self._nursery = nursery
        with self._scope:
            nursery.start_soon(self._receive, name="receive")
            await self._connect()
            nursery.start_soon(self.dispatcher.publish_output, name="output")
            for descriptor in self._redirection.pipes:
                nursery.start_soon(self.dispatcher.read_pipe, descriptor, name="pipe")
            nursery.start_soon(self._control.die_as_told, name="signals")
            nursery.start_soon(self._returns.run, name="returns")
            nursery.start_soon(self._usage.run, name="usage")
            nursery.start_soon(self.draining.run, name="drain")
            nursery.start_soon(self.draining.watch_job, name="job")
            await self._watch_hub()
        nursery.cancel_scope.cancel()

    async def _receive(self) -> None:
        while True:
            await self._opened.wait()
            self._opened = trio.Event()
            await self._receiver.run()  # until all channels are closed, as when the engine moves to another hub

    def stop(self, reason: str, *, killed: bool = False) -> None:
        """End the engine: unregister, and return from `run`. `killed`: somebody has killed it, rather than asked."""
        self.reason, self._killed, self._is_ending = self.reason or reason, killed, True
        self._scope.cancel()

    @property
    def can_drain(self) -> bool:
        """Whether the engine is registered, and not ending already. For any thread."""
        return self.id >= 0 and not self._is_ending

    def _asked_to_end(self) -> None:
        self.stop("a client has asked for it")

    def _leave(self) -> None:
        """Unregister, send the messages that can be sent, and close all sockets."""
        link = self._link
        if link is not None:
            self._redirection.drain(self._printed)
            self.dispatcher.flush()
            if self.id >= 0:
                content: dict[str, Any] = {"id": self.id, "uuid": self._uuid, "killed": self._killed}
                if self.reason:
                    content["cause"] = self.reason
                link.send("registration", self.dispatcher.session.write("unregistration_request", content))
            # A hub that has just stopped has broken its connections, and misses a ping only seconds later.
            away = self._misses > 0 or link.is_broken("registration")
            link.close(LINGER_AWAY if away else LINGER)
        self._receiver.close()

    # Connections

    def _send(self, channel: str, frames: Frames) -> bool:
        assert self._link is not None
        return self._link.send(channel, frames)

    async def _connect(self, unsent: Sequence[tuple[str, Frames]] = ()) -> None:
        """Open the connections to the hub, register, and let the heart beat. `unsent`: answers that are sent then."""
        link = Link(self.address, self._tunnels.address, self._context, self._identity, self._receiver)
        link.on_return, link.on_loss = self._on_return, self._on_loss
        self._link = link
        self._registrar.turn_to(self.address.urls["registration"])
        for channel, frames in unsent:
            link.send(channel, frames)  # which keeps them, since no channel is open
        await self._join(link)

    async def _join(self, link: Link) -> None:
        """Register, open the other connections, and let the heart beat. It can be called again after it has failed."""
        if not link.is_open("registration"):
            await self._open_registration(link)
        log.info("registering", hub=self._registrar.hub)
        late = self._registrar.accepted_late()
        answer = late or await self._registrar.register()
        # The hub was restored, or its answer to an earlier request was lost.
        known = self.id >= 0 and self._registrar.is_in_use(answer)
        self._take_id({"id": self.id} if known else self._registrar.accepted(answer))
        urls = self.address.urls
        shell = [urls["mux"], urls["task"], self.address.broadcast_url(self.id)]
        link.open("iopub", zmq.XPUB, [urls["iopub"]], self._on_subscription)
        link.open("control", zmq.ROUTER, [urls["control"]], self._control.on_message)
        link.open("shell", zmq.ROUTER, shell, self.dispatcher.on_shell, self._reader)
        # What is published before the hub has subscribed is lost.
        with trio.move_on_after(SUBSCRIBED_WITHIN):
            await self._subscribed.wait()
        self.dispatcher.release_output()
        # The heart comes last: when the hub hears it, everything else is open.
        self._heart = Heart(self.address, self._tunnels.address, self._identity, self._receiver, self._on_ping)
        self._returns.resume()
        if known or late is not None:
            self._returns.note()  # the hub may have stopped waiting for this heart
        log.info("registered", engine=self.id, uuid=self._uuid)

    async def _open_registration(self, link: Link) -> None:
        if self.address.ssh:
            try:
                await self._tunnels.open()
            except TunnelFailed as error:
                raise RegistrationFailed(str(error)) from error
            self._nursery.start_soon(self._tunnels.keep, name="tunnels")
        link.open("registration", zmq.DEALER, [self.address.urls["registration"]], self._registrar.on_reply)
        self._opened.set()

    def _tunnels_to(self, address: HubAddress) -> Tunnels:
        urls = [*address.urls.values(), *address.broadcast]
        return Tunnels(self._options, address.ssh, urls, self._tell_nanny)

    def _take_id(self, answer: dict[str, Any]) -> None:
        engine_id = answer.get("id")
        if type(engine_id) is not int:
            raise RegistrationFailed(f"the hub's answer to the registration has no id: {answer!r}")
        if self._registrar.wanted_id not in (None, engine_id):
            log.warning("did not get the requested id", engine=engine_id, requested=self._registrar.wanted_id)
        self.id = self._registrar.wanted_id = self.dispatcher.engine_id = engine_id
        self.dispatcher.hub_publishes_idle = answer.get("publishes_idle") is True  # ipcontroller does not
        self._hub_drains = answer.get("drains", self._hub_drains) is True  # ipcontroller does not say so
        self.draining.tell_again()
        period = answer.get("hb_period")
        if isinstance(period, int | float) and period > 0:
            self.hb_period = period / 1000
        self._usage.asked(answer.get("usage_period"))
        self._registered(engine_id)
        self._tell_nanny()

    def _tell_nanny(self) -> None:
        """Tell the nanny how to reach the hub, which also changes when SSH tunnels are opened again."""
        if self.id < 0:
            return
        self._told(
            {
                "id": self.id,
                "uuid": self._uuid,
                "url": self._tunnels.address(self.address.urls["registration"]),
                "tunnels": self._tunnels.pid,
                "key": self.address.key.decode(),
                "scheme": self.address.scheme,
                "packer": self.address.packer,
                "curve": None if self.address.curve is None else [key.decode() for key in self.address.curve],
            }
        )

    def _on_subscription(self, frames: Frames) -> None:
        self._subscribed.set()

    # Absences

    def _on_ping(self) -> None:
        self._ping.set()

    def _on_return(self, channel: str) -> None:
        if channel == "registration":
            self.draining.tell_again()
        if channel == "registration" and self._link is not None and self._link.handshakes[channel] > 1:
            self._returns.note()
        if channel == "iopub" and self._subscribed.is_set():
            self.dispatcher.release_output()

    def _on_loss(self, channel: str) -> None:
        # Without a subscription, the connection was never of use.
        if channel == "iopub" and self._subscribed.is_set():
            self.dispatcher.hold_output()

    def _known_again(self, answer: dict[str, Any]) -> None:
        self._take_id(answer)
        assert self._link is not None
        self._link.connect("shell", [self.address.broadcast_url(self.id)])
        log.info("registered again, at a hub that did not know this engine", engine=self.id, uuid=self._uuid)

    async def _watch_hub(self) -> None:
        """Watch the hub's pings; raise `HubLostError` when they stay away for too long."""
        while True:
            self._ping = trio.Event()
            period, began = self.hb_period + HEARTBEAT_SLACK, trio.current_time()
            if await happens_within(self._ping, period):
                self._misses = 0
                if trio.current_time() - began > 2 * self.hb_period:
                    self._returns.note()  # this process was suspended, perhaps for longer than the hub waits
                continue
            self._misses += 1
            log.warning("no heartbeat of the hub", seconds=round(self._misses * period, 1))
            if 0 < self._options.max_heartbeat_misses <= self._misses:
                self.reason = "the hub was away for too long"
                raise HubLostError(f"no heartbeat of the hub for {self._misses * period:.0f} s")
            if self._misses >= 2:
                began = trio.current_time()
                if await self._follow():
                    self._misses = 0
                else:
                    self._misses += int((trio.current_time() - began) / period)  # nobody has counted meanwhile

    async def _follow(self) -> bool:
        """Go to the hub that has taken the place of the last one. Return whether the engine has registered there.

        A failure is one more absence of the hub. The answers that are kept stay in the link.
        """
        address = await moved(self.address, self._options)
        try:
            if address is not None:
                await self._move(address)
            elif self._heart is None:  # an earlier attempt has failed
                assert self._link is not None
                await self._join(self._link)
            else:
                return False
        except RegistrationFailed as error:
            log.warning("cannot register at the new hub; tries again", error=error)
            return False
        return True

    async def _move(self, address: HubAddress) -> None:
        """Go to the hub that has taken the place of the last one."""
        log.info("the hub has a new connection file", hub=address.urls["registration"])
        heart, link = self._heart, self._link
        assert link is not None
        self._returns.pause()
        self.dispatcher.hold_output()
        if heart is not None:
            self._heart = None
            heart.close()
            await trio.to_thread.run_sync(heart.wait)
        link.close(0)
        await self._tunnels.close()
        unsent = link.unsent()
        self._hub_drains = False
        self.address, self._tunnels = address, self._tunnels_to(address)
        self._subscribed = trio.Event()
        session = session_for(address, self._uuid)
        unsent = [(channel, resealed(frames, session)) for channel, frames in unsent]
        self.dispatcher.use(session)
        await self._connect(unsent)


def session_for(address: HubAddress, uuid: str) -> Session:
    """Return a session with the hub's key."""
    return Session(
        address.key,
        session_id=uuid,
        now=partial(datetime.now, UTC),
        packer=address.packer,
        scheme=address.scheme,
        username="trio-hub-engine",
    )


def resealed(frames: Frames, session: Session) -> Frames:
    """Return a message with the signature of another session."""
    start = frames.index(DELIMITER)
    return [*frames[:start], *session.seal(frames[start + 2 : start + 6], frames[start + 6 :])]
