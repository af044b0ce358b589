"""Packs and unpacks messages with as little work as possible. It does not verify received messages."""

from __future__ import annotations

import hmac
import os
import uuid
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

__all__ = ["BUFFERS", "CONTENT", "DELIMITER", "HEADER", "LARGE", "OK", "PARENT", "PAYLOAD", "Wire", "url"]

DELIMITER = b"<IDS|MSG>"
OK = b'{"status":"ok"}'
LARGE = 65536
"""Frames of this many bytes and more are passed to ZeroMQ without a copy."""

# The places of frames, counted from the delimiter.
HEADER, PARENT, CONTENT, BUFFERS, PAYLOAD = 2, 3, 5, 6, 7


class Wire:
    """Writes signed messages of one session."""

    def __init__(self, key: str) -> None:
        self._key = key.encode()
        session = uuid.uuid4().hex
        self.date = datetime.now(UTC).isoformat()  # one date for all messages: no measurement depends on it
        self._before = f'{{"msg_id":"{session}_{os.getpid()}_'
        self._after = f'","username":"bench","session":"{session}","date":"{self.date}","version":"5.3","msg_type":"'
        self._count = 0

    def message(
        self,
        msg_type: str,
        content: bytes = b"{}",
        *,
        parent: bytes = b"{}",
        metadata: bytes = b"{}",
        buffers: Sequence[bytes] = (),
    ) -> list[bytes]:
        """Return the frames of a message, from the delimiter on. Each message has another header."""
        self._count += 1
        header = f'{self._before}{self._count}{self._after}{msg_type}"}}'.encode()
        signature = hmac.digest(self._key, b"".join((header, parent, metadata, content)), "sha256").hex().encode()
        return [DELIMITER, signature, header, parent, metadata, content, *buffers]


def url(info: dict[str, Any], channel: str, index: int = 0) -> str:
    """Return the address of a channel. If it has several ports, the index, modulo their number, chooses one."""
    port = info[channel]
    return f"{info['interface']}:{port[index % len(port)] if isinstance(port, list) else port}"
