"""Sessions with a clock that stands still, and messages to read with them."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from trio_hub.wire.frames import Buffer, Frames
from trio_hub.wire.messages import Session

KEY = b"secret"
NOON = datetime(2026, 5, 1, 12, tzinfo=UTC)
PACKERS = ["json", "orjson", "msgpack"]


def make_session(key: bytes = KEY, packer: str = "json", scheme: str = "hmac-sha256") -> Session:
    return Session(key, session_id="s", now=lambda: NOON, packer=packer, scheme=scheme)


def sealed(
    session: Session,
    header: Any = None,
    parent: Any = None,
    metadata: Any = None,
    content: Any = None,
    buffers: Sequence[Buffer] = (),
) -> Frames:
    """Return a signed message of these dicts, from a peer of the session. Bytes are used as they are."""
    if header is None:
        header = session.new_header("apply_request")
    parts = [header, parent or {}, metadata or {}, content or {}]
    pack = session.packer.pack
    return session.sign([part if isinstance(part, bytes) else pack(part) for part in parts], buffers)
