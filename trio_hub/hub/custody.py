"""Notes that a hub keeps with a record, so that the next hub can carry on with the request.

A record has the request in JSON, for users. The next hub also needs the client's routing identities, the number of
retries that are left, and the original bytes if the message was not in JSON. These are the notes. A request that is
sent once more with the same bytes has the same signature, so an engine drops it if it has received it before.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from ..errors import WireError
from ..records.record import TaskRecord
from ..schedulers.task import Task
from ..wire.frames import Buffer, Frames
from ..wire.messages import Message, Session

__all__ = ["AWAY", "Custody", "custody_of", "identities", "reply_frames", "request_frames"]

AWAY = b"\0away"
"""An identity that no peer has. It stands for a client that must first be recognised by its session."""

_NO_PARENT = b"{}"


class Custody(msgspec.Struct, array_like=True, omit_defaults=True):
    """The notes on one request. A completed request uses only ``parent``: the parent header in the engine's reply.

    - ``idents``: the client's routing identities;
    - ``parent``: the packed parent header;
    - ``raw``: header, metadata and content as they came, if the record has other bytes, as for messages that are not in
      JSON and for tasks with rules;
    - ``retries``: the number of retries that are left; None for the number in the metadata;
    - ``refused``, ``unmet``: as in `trio_hub.schedulers.task.Task`;
    - ``since``: when a task with a timeout began to wait, by the hub's clock, in seconds since 1970;
    - ``rules``: the rules of a task, and the policies that have set some of them, as `packed_rules` returns them;
    - ``attempts``, ``deaths``: as in `trio_hub.schedulers.task.Task`;
    - ``cancelled_by``: who has asked to cancel the request; None if nobody has;
    - ``runs_since``: when the present attempt at a task with a limit on its run time began, as ``since``;
    - ``paused_until``: when the pause before the next attempt at a task ends, as ``since``; None if there is none.
    """

    idents: list[bytes] = []
    parent: bytes = _NO_PARENT
    raw: tuple[bytes, bytes, bytes] | None = None
    retries: int | None = None
    refused: list[bytes] = []
    unmet: list[bytes] = []
    since: float | None = None
    rules: bytes = b""
    attempts: int = 0
    deaths: list[bytes] = []
    cancelled_by: str | None = None
    runs_since: float | None = None
    paused_until: float | None = None

    def pack(self) -> bytes:
        return _encode(self)

    def note_attempts(self, task: Task) -> None:
        """Note what may change from attempt to attempt."""
        self.retries, self.refused, self.unmet = task.retries, sorted(task.refused), sorted(task.unmet)
        self.attempts, self.deaths = task.attempts, list(task.deaths)

    def attempts_begun(self, *, assigned: bool, lost: bool) -> int:
        """Return how many attempts at a task of an earlier hub count.

        Args:
            assigned: whether an engine has the task. The first attempt is not noted when it begins.
            lost: whether that engine is gone. Then the attempt does not count.
        """
        return max(self.attempts, int(assigned)) - int(assigned and lost)


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Custody).decode


def custody_of(record: TaskRecord) -> Custody:
    """Return the notes on a record; if they cannot be read, notes that name the client as `AWAY`."""
    try:
        return _decode(record.custody) if record.custody is not None else Custody()
    except (msgspec.MsgspecError, UnicodeDecodeError):  # the database file may be damaged
        return Custody([AWAY])


def custody_of_request(
    idents: list[bytes], msg: Message, *, is_json: bool, since: float | None = None, ruled: bytes = b""
) -> Custody:
    """Return the notes on a request that has just come; ``ruled`` are the rules of a task, see `packed_rules`."""
    parent = bytes(msg.frames[3])
    if is_json and not ruled:
        return Custody(idents, parent, since=since)
    custody = Custody(idents, parent, (msg.raw_header, msg.raw_metadata, msg.raw_content), since=since)
    custody.rules = ruled
    return custody


def identities(custody: Custody) -> list[bytes]:
    """Return routing identities for the client: its own, if it chose one itself; else `AWAY`, which reaches nobody.

    An identity that ZeroMQ had made up may belong to another client now.
    """
    if not custody.idents:
        return []
    first, *rest = custody.idents
    return [AWAY if first.startswith(b"\0") else first, *rest]


def request_frames(record: TaskRecord, session: Session) -> Frames:
    """Return the frames of a request as they came, with the same signature.

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
    """Return the frames of the reply in a completed record, as they came: a client that has received them drops them.

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
