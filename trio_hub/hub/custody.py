"""What a hub notes beside a record, so that a hub after it can carry on with the request.

A record has the request as its users see it, in JSON. What another hub needs besides is here: whom to answer, how
often the task may still be tried, and the bytes themselves where JSON is not what came by the wire. Sent once more
with the same bytes, a request has the same signature, and an engine that has had it drops it.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from ..errors import WireError
from ..store.record import TaskRecord
from ..wire.frames import Buffer, Frames
from ..wire.messages import Message, Session

__all__ = ["AWAY", "Custody", "custody_of", "identities", "reply_frames", "request_frames"]

AWAY = b"\0away"
"""An identity that nobody has: that of a client which has to be recognised again by its session."""

_NO_PARENT = b"{}"


class Custody(msgspec.Struct, array_like=True, omit_defaults=True):
    """Of a request that is not completed: all of this. Of one that is: the parent header of its reply, as it came.

    - ``idents``: the client's routing identities;
    - ``parent``: the packed parent header;
    - ``raw``: header, metadata and content as they came, where the record has other bytes;
    - ``retries``: how many are left, None for as many as the metadata says;
    - ``refused``, ``unmet``: as in `trio_hub.schedulers.task.Task`.
    """

    idents: list[bytes] = []
    parent: bytes = _NO_PARENT
    raw: tuple[bytes, bytes, bytes] | None = None
    retries: int | None = None
    refused: list[bytes] = []
    unmet: list[bytes] = []

    def pack(self) -> bytes:
        return _encode(self)


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Custody).decode


def custody_of(record: TaskRecord) -> Custody:
    """What was noted with a record; if that cannot be read, that its client has to be recognised by its session."""
    try:
        return _decode(record.custody) if record.custody is not None else Custody()
    except (msgspec.MsgspecError, UnicodeDecodeError):  # a database is a file, and files get damaged
        return Custody([AWAY])


def custody_of_request(idents: list[bytes], msg: Message, *, is_json: bool) -> Custody:
    """What to note with the record of a request that has come."""
    parent = bytes(msg.frames[3])
    if is_json:
        return Custody(idents, parent)
    return Custody(idents, parent, (msg.raw_header, msg.raw_metadata, msg.raw_content))


def identities(custody: Custody) -> list[bytes]:
    """Routing identities that lead to the client, if it gave itself one; else to nobody, and never to another."""
    if not custody.idents:
        return []
    first, *rest = custody.idents
    return [AWAY if first.startswith(b"\0") else first, *rest]


def request_frames(record: TaskRecord, session: Session) -> Frames:
    """The request once more, as it came: with the same signature.

    Raises:
        WireError: the record is damaged.
    """
    custody = custody_of(record)
    if custody.raw is not None:
        header, metadata, content = custody.raw
    else:
        header, metadata, content = _packed(session, record.header, record.metadata, record.content)
    return session.sign([header, custody.parent, metadata, content], record.buffers or ())


def reply_frames(record: TaskRecord, session: Session) -> Frames:
    """The reply in a record that is completed: as it came, so that a client that has had it drops it.

    Raises:
        WireError: the record is damaged.
    """
    parent = custody_of(record).parent
    header, metadata, content, request = _packed(
        session, record.result_header, record.result_metadata, record.result_content, record.header
    )
    parts: Sequence[Buffer] = [header, request if parent == _NO_PARENT else parent, metadata, content]
    return session.sign(parts, record.result_buffers or ())


def _packed(session: Session, *values: bytes | None) -> list[bytes]:
    try:
        return [session.packer.from_json(b"{}" if value is None else bytes(value)) for value in values]
    except (ValueError, TypeError, RecursionError) as error:
        raise WireError("malformed", f"the record is damaged: {str(error)[:200]}") from None
