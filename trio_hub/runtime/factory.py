"""`HubFactory`: binds the sockets that a configuration asks for, and makes the connection info.

Ports are bound before the connection files are written, so the files are always true.
"""

from __future__ import annotations

import errno
import math
import socket as dns
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import zmq

from ..config import HubConfig
from ..errors import ConfigError
from ..logs import get_logger
from ..transport.channel import Channel
from ..transport.publisher import Publisher
from ..transport.receiver import Receiver
from ..transport.tcp import ConnectionMonitor
from ..transport.zap import NANNY_DOMAIN, ZAP_DOMAIN, Gatekeeper, HandshakeMonitor, ZapHandler
from .restore import Known
from .security import Security

__all__ = ["HubFactory"]

log = get_logger("trio_hub.runtime")

WAITING_MESSAGES, WAITING = 200, {"hb_pong": 20, "iopub": 32}
"""Messages of each peer that ZeroMQ receives ahead of the hub; and the channels that have another limit. (Output may be
large, and waits at the engine, since stock engines have no limit.)"""
MAX_SIGN_OF_LIFE = 1024
"""Bytes that an answer to a ping, or a subscription to pings, may have. Stock engines send some 30 bytes."""
KEEPALIVE_IDLE, KEEPALIVE_INTERVAL, KEEPALIVE_COUNT = 60, 15, 4
"""Seconds until the system probes an idle TCP connection, seconds between probes, and probes until it is broken."""
CONNECTION_PING, LEAST_SILENCE = 5.0, 30.0
"""Seconds between ZeroMQ's own pings on connections of engines; and seconds for their answer, at least."""
MAX_TTL = 6_553_500
"""Milliseconds: the longest time to live that ZeroMQ can send to a peer."""

# Channels of the hub, the sides that connect to it, the key of the connection info that has the port, and the socket's
# identity. Engines answer to the identity of the socket that asked them, so these are fixed, as in ipcontroller. In
# this order the ports of the pools are used, as by ipcontroller.
_SOCKETS: tuple[tuple[str, int, tuple[str, ...], str, bytes], ...] = (
    ("query", zmq.ROUTER, ("engine", "client"), "registration", b""),
    ("control_out", zmq.ROUTER, ("engine",), "control", b"control_out"),
    ("mux_out", zmq.ROUTER, ("engine",), "mux", b"mux_out"),
    ("task_out", zmq.ROUTER, ("engine",), "task", b"task_out"),
    ("iopub", zmq.SUB, ("engine",), "iopub", b""),
    ("hb_ping", zmq.XPUB, ("engine",), "hb_ping", b""),
    ("hb_pong", zmq.ROUTER, ("engine",), "hb_pong", b""),
    ("broadcast_out", zmq.ROUTER, ("engine",), "broadcast", b"broadcast_out"),
    ("control_in", zmq.ROUTER, ("client",), "control", b"control_in"),
    ("mux_in", zmq.ROUTER, ("client",), "mux", b"mux_in"),
    ("task_in", zmq.ROUTER, ("client",), "task", b"task_in"),
    ("iopub_out", zmq.XPUB, ("client",), "iopub", b""),
    ("notification", zmq.XPUB, ("client",), "notification", b""),
    ("broadcast_in", zmq.ROUTER, ("client",), "broadcast", b"broadcast_in"),
)
PUBLISHED = ("iopub_out", "notification")
"""Channels that clients subscribe to."""
_WILDCARDS = ("*", "0.0.0.0", "[::]")
_TRIES = 20
"""Attempts to find a port that is free at all addresses."""


class HubFactory:
    """Binds a hub's sockets.

    After `bind`, ``channels`` has the channels by name, and ``client_info`` and ``engine_info`` are the contents of the
    connection files. `close_sockets` and then `release` free everything.

    Args:
        config: addresses, ports, and much of the connection info.
        key: signs messages.
        security: the keys for encryption, and the keys of the peers that may connect.
        known: the connection files of an earlier hub, whose ports are to be used.
    """

    def __init__(
        self,
        config: HubConfig,
        key: str,
        security: Security | None = None,
        known: Known | None = None,
    ) -> None:
        self.config = config
        self.key = key
        self.context = zmq.Context()
        self.channels: dict[str, Channel] = {}
        self.publishers: dict[str, Publisher] = {}
        """The channels that clients subscribe to, by name."""
        self.monitors: dict[str, ConnectionMonitor] = {}
        """The monitors of the channels on which engines are known by their identities, by the channels' names."""
        self.receiver = Receiver()
        """Receives from all channels."""
        self.client_info: dict[str, Any] = {}
        self.engine_info: dict[str, Any] = {}
        self.broadcast_channels = [f"broadcast_out{index or ''}" for index in range(config.broadcast_ports)]
        """The channels to engines for broadcasts, in the order of the ports."""
        self.gatekeepers: list[Gatekeeper] = []
        """Objects that watch connections; the receiver has to read the channel of each."""
        security = security or Security()
        self._curve = security.hub_keys
        self._allowed_keys = security.allowed_keys
        self._known = known
        self._bound_as: dict[str, str] = {}
        """The address that ZeroMQ has made of each address that was asked for, but for wildcards."""
        self._on_close: list[Callable[[], None]] = []
        # A copy of each pool, from which ports are taken
        self._pools = {"client": list(config.client_ports), "engine": list(config.engine_ports)}
        self._common_pool = list(config.ports)

    def client_url(self, channel: str) -> str:
        """Return the ZeroMQ address of a channel for clients, such as ``"task"``."""
        return f"{self.client_info['interface']}:{self.client_info[channel]}"

    def engine_url(self, channel: str, index: int | None = None) -> str:
        """Return the ZeroMQ address of a channel for engines. ``broadcast`` has several, which need an index."""
        port = self.engine_info[channel]
        return f"{self.engine_info['interface']}:{port if index is None else port[index]}"

    @property
    def ports(self) -> set[int]:
        """The ports on which the sockets listen."""
        names = {key for _, _, _, key, _ in _SOCKETS} - {"broadcast"}
        ports = {info[name] for info in (self.client_info, self.engine_info) for name in names if name in info}
        return ports | {self.client_info["broadcast"], *self.engine_info["broadcast"]}

    @property
    def bound_config(self) -> HubConfig:
        """The configuration with the addresses of the interfaces that it names, after `bind`."""
        addresses = {
            "client_ip": self.client_info["interface"].removeprefix("tcp://"),
            "engine_ip": self.engine_info["interface"].removeprefix("tcp://"),
        }
        return replace(self.config, **addresses)

    def bind(self) -> None:
        """Bind all sockets.

        Raises:
            ConfigError: an address or a port cannot be bound; the text names it.
        """
        config = self.config
        if self._allowed_keys is not None:
            self.gatekeepers.append(ZapHandler(self.context, self._allowed_keys))
        common: dict[str, Any] = {
            "key": self.key,
            "curve_serverkey": self._curve.public if self._curve is not None else None,
            "location": config.location or dns.gethostname(),
            "pack": config.packer,
            "unpack": config.packer,
            "signature_scheme": config.signature_scheme,
        }
        self.engine_info = common | {"ssh": config.engine_ssh_server, "interface": f"tcp://{config.engine_address}"}
        self.client_info = common | {"ssh": config.ssh_server, "interface": f"tcp://{config.client_address}"}
        self.client_info["task_scheme"] = config.scheme
        if self._known is not None:  # the files may have more entries
            self.engine_info = self._known.engine_info | self.engine_info
            self.client_info = self._known.client_info | self.client_info
        for name, kind, sides, key, identity in _SOCKETS:
            if name == "broadcast_out":  # stock engines choose among a list of these
                self.engine_info[key] = [
                    self._bind(channel, kind, sides, key, identity, index)
                    for index, channel in enumerate(self.broadcast_channels)
                ]
                continue
            port = self._bind(name, kind, sides, key, identity)
            if "engine" in sides:
                self.engine_info[key] = port
            if "client" in sides:
                self.client_info[key] = port
        # Other machines do not know the name of an interface, such as lo, so they are told its address.
        self.engine_info["interface"] = f"tcp://{self._bound_as.get(config.engine_address, config.engine_address)}"
        self.client_info["interface"] = f"tcp://{self._bound_as.get(config.client_address, config.client_address)}"

    def _bind(
        self, name: str, kind: int, sides: tuple[str, ...], key: str, identity: bytes, index: int | None = None
    ) -> int:
        """Make the channel with this name, and return the port to which it is bound."""
        config = self.config
        addresses = self._addresses(sides)
        socket: zmq.Socket[Any] = self.context.socket(kind)
        channel: Channel
        if name in PUBLISHED:
            channel = self.publishers[name] = Publisher(socket, config.subscriber_queue, name=name)
        else:
            channel = Channel(socket, name=name)
            channel.max_frames = 2 if name == "hb_pong" else config.max_message_frames
            socket.maxmsgsize = MAX_SIGN_OF_LIFE if name in ("hb_ping", "hb_pong") else config.max_message_bytes
            socket.sndhwm = 0
            # Messages that the hub has not received yet wait at their sender, not in this process.
            socket.rcvhwm = WAITING.get(name, WAITING_MESSAGES)
        try:
            self._keep_alive(socket)
            if sides == ("engine",) and name not in WAITING:
                self._ping_connections(name, socket)
            socket.backlog = 1024  # a thousand engines may connect at the same time
            if any("[" in address for address in addresses):
                socket.ipv6 = True
            if identity:
                socket.identity = identity
            if kind == zmq.ROUTER:
                # An unreachable peer is an error that becomes a reply, not a message that vanishes. A name belongs to
                # the connection that has it: see trio_hub.runtime.connections.
                socket.router_mandatory = True
                socket.router_handover = False
                if sides == ("engine",):  # before any engine can connect
                    self.monitors[name] = ConnectionMonitor(socket)
                    self.on_close(self.monitors[name].close)
            elif kind == zmq.SUB:
                socket.subscribe(b"")
            elif name == "hb_ping":
                socket.setsockopt(zmq.XPUB_MANUAL, 1)  # `Heartbeat` decides which peer gets which ping
            if self._curve is not None:
                socket.curve_server = True
                socket.curve_secretkey = self._curve.secret.encode()
                if name == "query":  # the first connection of each client and engine
                    self.gatekeepers.append(HandshakeMonitor(socket))
            if self._allowed_keys is not None:
                socket.zap_domain = NANNY_DOMAIN if name == "control_out" else ZAP_DOMAIN
                socket.setsockopt(zmq.ZAP_ENFORCE_DOMAIN, 1)  # without an answer of the handler no peer is admitted
            port = self._bind_port(socket, addresses, sides[0], key, index)
        except BaseException:
            if name in self.monitors:
                self.monitors[name].close()
            channel.close(linger=0)
            raise
        self.channels[name] = channel
        return port

    def _keep_alive(self, socket: zmq.Socket[Any]) -> None:
        """Have the system probe silent connections, so that routers and firewalls do not forget them."""
        socket.tcp_keepalive = 1
        socket.tcp_keepalive_idle = KEEPALIVE_IDLE
        socket.tcp_keepalive_intvl = KEEPALIVE_INTERVAL
        socket.tcp_keepalive_cnt = KEEPALIVE_COUNT

    def _ping_connections(self, name: str, socket: zmq.Socket[Any]) -> None:
        """Have ZeroMQ ping connections of engines, so that both ends notice a dead connection.

        When the hub closes a dead connection, its name is free. The engine closes its end later than the hub, so that
        the name is free when the engine connects again. Connections of clients are not pinged: a client may be
        suspended for hours, and still gets its results.

        The socket has no limit on received messages: libzmq 4.3 aborts the process if it pings a broken connection
        whose messages were held back by a limit.
        """
        period, silence = CONNECTION_PING, max(self.config.heart_timeout, LEAST_SILENCE)
        if name == "hb_ping":  # shorter, so that the connection is replaced before the heart counts as stopped
            silence = self.config.heart_timeout / 3
            period = min(CONNECTION_PING, silence / 3)
        socket.rcvhwm = 0
        socket.heartbeat_ivl = math.ceil(1000 * period)
        socket.heartbeat_timeout = math.ceil(1000 * silence)
        socket.heartbeat_ttl = min(math.ceil(1000 * (2 * period + silence)), MAX_TTL)

    def _addresses(self, sides: tuple[str, ...]) -> list[str]:
        addresses = {"engine": self.config.engine_address, "client": self.config.client_address}
        found = list(dict.fromkeys(addresses[side] for side in sides))
        wildcards = [address for address in found if address in _WILDCARDS]
        if len(found) == 1 or not wildcards:
            return found
        return ["[::]"] if any("[" in address for address in found) else wildcards[:1]

    def _bind_port(self, socket: zmq.Socket[Any], addresses: list[str], side: str, key: str, index: int | None) -> int:
        if self._known is not None:
            ports = self._known.engine_info[key] if side == "engine" else self._known.client_info[key]
            port: int = ports if index is None else ports[index]
            if not self._bind_all(socket, addresses, port):
                raise ConfigError(
                    f"port {port}, which the connection files in {self._known.where} give to {key!r}, is in use: is "
                    "a hub running there already? Stop what uses the port, or remove both files, so that the hub "
                    "writes new ones."
                )
            return port
        own: tuple[int, ...] = self.config.client_ports if side == "client" else self.config.engine_ports
        if not own and not self.config.ports:
            return self._bind_any(socket, addresses)
        for pool in (self._pools[side], self._common_pool):
            while pool:
                port = pool.pop(0)
                if self._bind_all(socket, addresses, port):
                    return port
                log.warning("port is in use; trying the next of the pool", port=port)
        names = [f"{side}_ports"] * bool(own) + ["ports"] * bool(self.config.ports)
        several = self.config.broadcast_ports
        raise ConfigError(
            f"{' and '.join(names)}: the pool of {len(own) + len(self.config.ports)} has no free port left; clients "
            f"need {len(_SOCKETS) - 8}, and engines {7 + several}. Give more ports, or none to let the system choose."
        )

    def _bind_any(self, socket: zmq.Socket[Any], addresses: list[str]) -> int:
        """Bind to the same port at all addresses, which the system chooses. Return the port."""
        for _ in range(_TRIES):
            self._bind_to(socket, f"tcp://{addresses[0]}:*")
            endpoint = _last_endpoint(socket)
            port = int(endpoint.rpartition(":")[2])
            if self._bind_all(socket, addresses[1:], port):
                return port
            socket.unbind(endpoint)
        raise ConfigError(
            f"ip: no port was found that is free at {' and '.join(addresses)}: name free ports, with ports"
        )

    def _bind_all(self, socket: zmq.Socket[Any], addresses: list[str], port: int) -> bool:
        """Bind to a port at all addresses. If it is in use at one of them, bind to none, and return False."""
        bound: list[str] = []
        for address in addresses:
            if not self._bind_to(socket, f"tcp://{address}:{port}", in_use_is_fine=True):
                for endpoint in bound:
                    socket.unbind(endpoint)
                return False
            bound.append(_last_endpoint(socket))
        return True

    def _bind_to(self, socket: zmq.Socket[Any], url: str, *, in_use_is_fine: bool = False) -> bool:
        try:
            socket.bind(url)
        except zmq.ZMQError as error:
            if in_use_is_fine and error.errno == errno.EADDRINUSE:
                return False
            origin = f" (which the connection files in {self._known.where} name)" if self._known is not None else ""
            raise ConfigError(
                f"ip: cannot listen on {url}{origin}: {error.strerror}. Use an address of this machine, or 127.0.0.1 "
                "for local use only, or * for all interfaces."
            ) from error
        asked, bound = (_address_in(one) for one in (url, _last_endpoint(socket)))
        if asked not in _WILDCARDS:
            self._bound_as[asked] = bound
        return True

    def on_close(self, call: Callable[[], None]) -> None:
        """Have ``call`` called before the sockets are closed."""
        self._on_close.append(call)

    def close_sockets(self, linger: int) -> None:
        """Close all sockets. Messages that were sent have `linger` milliseconds to leave."""
        while self._on_close:
            self._on_close.pop()()
        for channel in self.channels.values():
            channel.close(linger)
        for gatekeeper in self.gatekeepers:
            gatekeeper.channel.close(linger=0)

    def release(self) -> None:
        """Release ZeroMQ's threads and descriptors. Blocks until the lingering messages have left."""
        self.receiver.close()
        self.context.term()


def _address_in(url: str) -> str:
    """Return the address in ``tcp://ADDRESS:PORT``."""
    return url.removeprefix("tcp://").rpartition(":")[0]


def _last_endpoint(socket: zmq.Socket[Any]) -> str:
    endpoint = socket.getsockopt(zmq.LAST_ENDPOINT)
    assert isinstance(endpoint, bytes)
    return endpoint.rstrip(b"\0").decode()
