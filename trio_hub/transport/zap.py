"""Access control: the ZAP handler, which ZeroMQ asks whether a peer may connect (RFC 27), and a handshake monitor."""

from __future__ import annotations

from collections import Counter
from typing import Any

import zmq
from zmq.utils import z85

from ..logs import get_logger
from ..wire.frames import Frames, to_bytes
from .channel import Channel, monitor_of

__all__ = ["NANNY_DOMAIN", "ZAP_DOMAIN", "Gatekeeper", "HandshakeMonitor", "ZapHandler"]

log = get_logger("trio_hub.runtime")

ZAP_DOMAIN = b"trio_hub"
NANNY_DOMAIN = b"trio_hub nannies"
"""The domain of sockets to which the nannies of stock engines connect."""
_ENDPOINT = "inproc://zeromq.zap.01"


class Gatekeeper:
    """An object that watches connections. The receiver has to read its ``channel``.

    ``counts`` has the numbers of refused connections, by reason. A refused peer connects again and again, so one peer
    may be counted many times.
    """

    def __init__(self, socket: zmq.Socket[Any], name: str) -> None:
        self.channel = Channel(socket, self._handle, name=name)
        self.counts: Counter[str] = Counter()

    def _handle(self, frames: Frames) -> None:
        raise NotImplementedError

    def _refused(self, reason: str, why: str, **fields: Any) -> None:
        self.counts[reason] += 1
        log.warning("refused a connection", kind=reason, reason=why, **fields)


class ZapHandler(Gatekeeper):
    """Admits peers whose public key is in `allowed`. Other peers are refused, and counted as ``key_not_allowed``.

    There is one exception: the nanny of a stock engine, which has the engine's control connection, does not use the
    engine's keys, but a new pair each time. So in `NANNY_DOMAIN`, any key is accepted from the address of a peer that
    was admitted before.

    Bind it before the sockets that it guards. ZeroMQ admits no peer without an answer of the handler.
    """

    def __init__(self, context: zmq.Context[zmq.Socket[Any]], allowed: frozenset[bytes]) -> None:
        super().__init__(context.socket(zmq.ROUTER), "zap")
        self.allowed = allowed
        self._addresses: set[bytes] = set()
        try:
            self.channel.socket.bind(_ENDPOINT)
        except BaseException:
            self.channel.close(linger=0)
            raise

    def _handle(self, frames: Frames) -> None:
        # [routing id, empty, version, request id, domain, address, identity, mechanism, credentials…]
        parts = [to_bytes(frame) for frame in frames]
        if (
            len(parts) == 9
            and parts[2] == b"1.0"
            and parts[7] == b"CURVE"
            and self._is_allowed(parts[4], parts[5], parts[8])
        ):
            status, text = b"200", b"OK"
        else:
            self._deny(parts)
            status, text = b"400", b"not allowed"
        request_id = parts[3] if len(parts) > 3 else b""
        self.channel.send([parts[0], b"", b"1.0", request_id, status, text, b"", b""])

    def _is_allowed(self, domain: bytes, address: bytes, key: bytes) -> bool:
        if key in self.allowed:
            self._addresses.add(address)
            return True
        return domain == NANNY_DOMAIN and address in self._addresses

    def _deny(self, parts: list[bytes]) -> None:
        address = parts[5].decode("ascii", "backslashreplace") if len(parts) > 5 else "an unknown address"
        key = z85.encode(parts[8]).decode() if len(parts) == 9 and len(parts[8]) == 32 else "(none)"
        self._refused(
            "key_not_allowed",
            "its public key is not among the allowed keys",
            address=address,
            public_key=key,
        )


class HandshakeMonitor(Gatekeeper):
    """Counts and logs connections to an encrypted socket whose handshake failed, as ``handshake_failed``.

    The log line tells why a client or engine hangs. A check whether the port is open is counted, too: it cannot be told
    from a peer without encryption, which may also be the first to close the connection.
    """

    def __init__(self, socket: zmq.Socket[Any]) -> None:
        events = zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL | zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL
        super().__init__(monitor_of(socket, events), "handshakes")

    def _handle(self, frames: Frames) -> None:
        self._refused(
            "handshake_failed",
            "it is not encrypted, or uses another hub's key; clients and engines need the connection files of this hub",
            address=to_bytes(frames[1]),
        )
