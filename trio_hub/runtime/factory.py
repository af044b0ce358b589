"""`HubFactory`: from a configuration to bound sockets and the connection info that leads to them.

Ports are bound first and written down after: what the connection files say is true from the first moment.
"""

from __future__ import annotations

import errno
import logging
import socket as dns
from typing import Any

import zmq

from ..config import HubConfig
from ..errors import ConfigError
from .sockets import Channel

__all__ = ["HubFactory"]

log = logging.getLogger("trio_hub.runtime")

# Channels of the hub, the key and side of the connection info that has the port, and the socket's identity.
# Engines answer to the identity of the socket that asked them, so these are fixed, as in ipcontroller.
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
    ("iopub_out", zmq.PUB, ("client",), "iopub", b""),
    ("notification", zmq.PUB, ("client",), "notification", b""),
    ("broadcast_in", zmq.ROUTER, ("client",), "broadcast", b"broadcast_in"),
)
PORTS_NEEDED = len(_SOCKETS)


class HubFactory:
    """Binds a hub's sockets.

    After `bind`, ``channels`` holds them by name, and ``client_info`` and ``engine_info`` are what the
    connection files say. `close_sockets` and then `release` give everything back.
    """

    def __init__(self, config: HubConfig, key: str) -> None:
        self.config = config
        self.key = key
        self.context = zmq.Context()
        self.channels: dict[str, Channel] = {}
        self.client_info: dict[str, Any] = {}
        self.engine_info: dict[str, Any] = {}
        self._ports = list(config.ports)

    def client_url(self, channel: str) -> str:
        """The ZeroMQ address of a channel for clients, such as ``"task"``."""
        return f"{self.client_info['interface']}:{self.client_info[channel]}"

    def engine_url(self, channel: str, index: int | None = None) -> str:
        """The ZeroMQ address of a channel for engines; ``broadcast`` has several, told apart by index."""
        port = self.engine_info[channel]
        return f"{self.engine_info['interface']}:{port if index is None else port[index]}"

    def bind(self) -> None:
        """Bind all sockets.

        Raises:
            ConfigError: if the address or the ports cannot be bound, naming them.
        """
        config = self.config
        common = {
            "ssh": "",
            "interface": f"tcp://{config.ip}",
            "key": self.key,
            "curve_serverkey": None,
            "location": config.location or dns.gethostname(),
            "pack": config.packer,
            "unpack": config.packer,
            "signature_scheme": config.signature_scheme,
        }
        self.engine_info = dict(common)
        self.client_info = dict(common, task_scheme=config.scheme)
        for name, kind, sides, key, identity in _SOCKETS:
            channel, port = self._bind(name, kind, identity)
            self.channels[name] = channel
            if "engine" in sides:
                # stock engines choose among a list of broadcast ports
                self.engine_info[key] = [port] if key == "broadcast" else port
            if "client" in sides:
                self.client_info[key] = port

    def _bind(self, name: str, kind: int, identity: bytes) -> tuple[Channel, int]:
        socket: zmq.Socket[Any] = self.context.socket(kind)
        channel = Channel(socket, name=name)
        try:
            socket.sndhwm = socket.rcvhwm = 0
            socket.backlog = 1024  # engines come by the thousand
            if ":" in self.config.ip:
                socket.ipv6 = True
            if identity:
                socket.identity = identity
            if kind == zmq.ROUTER:
                # An unreachable peer is an error that becomes a reply, not a message that vanishes. A peer that
                # comes back (or comes twice, and must be told so) replaces the connection it had.
                socket.router_mandatory = True
                socket.router_handover = True
            elif kind == zmq.SUB:
                socket.subscribe(b"")
            elif kind == zmq.XPUB:
                socket.xpub_verbose = True  # each engine's subscription is told, not only the first
            return channel, self._bind_port(socket)
        except BaseException:
            channel.close(linger=0)
            raise

    def _bind_port(self, socket: zmq.Socket[Any]) -> int:
        ip = self.config.ip
        if not self.config.ports:
            self._bind_to(socket, f"tcp://{ip}:*")
            endpoint = socket.getsockopt(zmq.LAST_ENDPOINT)
            assert isinstance(endpoint, bytes)
            return int(endpoint.rpartition(b":")[2].rstrip(b"\0"))
        while self._ports:
            port = self._ports.pop(0)
            if self._bind_to(socket, f"tcp://{ip}:{port}", in_use_is_fine=True):
                return port
            log.warning("port %d is in use; trying the next of the pool", port)
        raise ConfigError(
            f"ports: the pool of {len(self.config.ports)} has no free port left; a hub needs {PORTS_NEEDED}. "
            "Give more ports, or none to let the system choose."
        )

    def _bind_to(self, socket: zmq.Socket[Any], url: str, *, in_use_is_fine: bool = False) -> bool:
        try:
            socket.bind(url)
        except zmq.ZMQError as error:
            if in_use_is_fine and error.errno == errno.EADDRINUSE:
                return False
            raise ConfigError(
                f"ip: cannot listen on {url}: {error.strerror}. Use an address of this machine, or 127.0.0.1 "
                "for local use only, or * for all interfaces."
            ) from error
        return True

    def close_sockets(self, linger: int) -> None:
        """Close all sockets; what was sent has `linger` milliseconds to leave."""
        for channel in self.channels.values():
            channel.close(linger)

    def release(self) -> None:
        """Release ZeroMQ's threads and descriptors. Blocks until the lingering messages have left."""
        self.context.term()
