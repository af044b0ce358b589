"""Messages: typed headers and metadata, and the session that reads and writes them.

The structs name only the fields that the hub needs; all others pass through unread.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Annotated, Any

import msgspec

from ..errors import WireError
from .frames import DELIMITER, Buffer, Frames, split_untrusted, to_bytes
from .packers import Packer, packer_named
from .plain import printable
from .signing import ReplayWindow, Signer

__all__ = [
    "MAX_HEADER",
    "MAX_METADATA",
    "PROTOCOL_VERSION",
    "BroadcastMetadata",
    "Header",
    "Message",
    "ParentHeader",
    "ResultMetadata",
    "Session",
    "TaskMetadata",
    "error_content",
    "parse_date",
]

PROTOCOL_VERSION = "5.3"  # of the Jupyter messaging protocol, as stock sessions state it
MAX_HEADER = 1 << 20
"""Bytes a header or parent header may have. Stock ones have about 200."""
MAX_METADATA = 64 << 20
"""Bytes a metadata dict may have. A task with 100,000 dependencies needs about 6 MB."""


class Header(msgspec.Struct, frozen=True, gc=False):
    msg_id: str
    msg_type: str
    session: str = ""
    username: str = ""
    date: str | None = None

    def renamed(self, msg_id: str) -> Header:
        """The same header under another msg_id."""
        return msgspec.structs.replace(self, msg_id=msg_id)


class _Kind(msgspec.Struct, frozen=True, gc=False):
    """The type of a message alone."""

    msg_type: str


class ParentHeader(msgspec.Struct, frozen=True, gc=False):
    """The header that a message answers; all empty if it answers none."""

    msg_id: str = ""
    msg_type: str = ""
    session: str = ""


class TaskMetadata(msgspec.Struct, frozen=True, gc=False):
    """What the metadata of a request says to the scheduler. Dependencies keep their raw form here."""

    targets: list[str] | None = None
    retries: Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)] | None = 0  # what the hub notes has 64 bits
    after: Any = None
    follow: Any = None
    timeout: float | None = None
    label: Any = None


class BroadcastMetadata(msgspec.Struct, frozen=True, gc=False):
    """What the metadata of a broadcast says: whom it is for, as uuid and engine id, and whether to gather."""

    targets: list[tuple[str, int]]
    is_coalescing: bool = False
    label: Any = None


class ResultMetadata(msgspec.Struct, frozen=True, gc=False):
    """What the metadata of a reply says to the scheduler."""

    status: str | None = None
    engine: str | None = None
    dependencies_met: bool = True
    started: str | None = None


class ErrorContent(msgspec.Struct, frozen=True, gc=False):
    """What the content of a reply says that reports an error."""

    ename: str = ""
    evalue: str = ""


class Message(msgspec.Struct, eq=False, gc=False):
    """A message that has been verified, with its routing identities.

    ``frames`` are those from the delimiter on, just as they came, ready to be sent on:
    ``[delimiter, signature, header, parent, metadata, content, buffer…]``. ``date`` is that of a client's request, once
    it has been parsed.
    """

    idents: list[bytes]
    frames: Frames
    header: Header
    parent: ParentHeader
    raw_header: bytes
    raw_metadata: bytes
    date: datetime | None = None

    def __repr__(self) -> str:
        return f"<Message {self.header.msg_type} {self.header.msg_id} parent={self.parent.msg_id!r}>"

    @property
    def raw_content(self) -> bytes:
        return to_bytes(self.frames[5])

    @property
    def buffers(self) -> Frames:
        return self.frames[6:]


_NO_PARENT = ParentHeader()


class Session:
    """Reads and writes messages under one key.

    Args:
        key: the shared secret; empty for no signatures.
        packer: name of the serialisation, see `packer_named`.
        scheme: name of the signature scheme, see `Signer`.
        session_id: names this session in the headers it writes.
        now: gives the current time, aware and in UTC.

    Raises:
        ConfigError: for a packer or scheme that is unknown or unsafe.
    """

    def __init__(
        self,
        key: bytes,
        *,
        session_id: str,
        now: Callable[[], datetime],
        packer: str = "json",
        scheme: str = "hmac-sha256",
        username: str = "trio-hub",
    ) -> None:
        self.session_id = session_id
        self.username = username
        self.now = now
        self.packer: Packer = packer_named(packer)
        self.signer = Signer(key, scheme)
        self.replays = ReplayWindow()
        """All messages that were read or made here."""
        self.lasting = ReplayWindow()
        """The messages among them that were read as `lasting`: they leave no record, and there are few of them."""
        self._numbers = itertools.count(1)
        self._header = self.packer.decoder(Header)
        self._kind = self.packer.decoder(_Kind)
        self._parent = self.packer.decoder(ParentHeader)
        self._task_metadata = self.packer.decoder(TaskMetadata)
        self._broadcast_metadata = self.packer.decoder(BroadcastMetadata)
        self._result_metadata = self.packer.decoder(ResultMetadata)
        self._error = self.packer.decoder(ErrorContent)
        self._dict = self.packer.decoder(dict[str, Any])

    def new_msg_id(self) -> str:
        return f"{self.session_id}_{next(self._numbers)}"

    # Reading

    def read_untrusted(self, frames: Sequence[Buffer], *, lasting: bool = False) -> Message:
        """The message in the frames: verified, not seen before, with a readable header and parent.

        Args:
            frames: identities, and a message from the delimiter on.
            lasting: whether the message is remembered until as many others were read that are `lasting`, too, however
                many others there are.

        Raises:
            WireError: and nothing else, whatever the frames are.
        """
        idents, frames = split_untrusted(frames)
        _, signature, header, parent, metadata, content, *_ = frames
        if len(header) > MAX_HEADER or len(parent) > MAX_HEADER:
            raise WireError("too_large", f"a header of {max(len(header), len(parent))} bytes; {MAX_HEADER} at most")
        if len(metadata) > MAX_METADATA:
            raise WireError("too_large", f"metadata of {len(metadata)} bytes; {MAX_METADATA} at most")
        if self.signer.key:
            signature = to_bytes(signature)
            self.signer.verify_untrusted(signature, (header, parent, metadata, content))
            self.replays.remember(signature)
            if lasting:
                self.lasting.remember(signature)
        return self.read_trusted(idents, frames)

    def msg_type_untrusted(self, frames: Sequence[Buffer]) -> str | None:
        """The type that a message claims to have, before the message is verified; None if that cannot be read."""
        try:
            header = frames[frames.index(DELIMITER) + 2]
            return self._kind(to_bytes(header)).msg_type if len(header) <= MAX_HEADER else None
        except (WireError, ValueError, IndexError):
            return None

    def read_trusted(self, idents: list[bytes], frames: Frames) -> Message:
        """The message in frames from the delimiter on that were verified when they came. Raises `WireError`."""
        # Nearly all frames are bytes already. To ask `to_bytes` for each would take as long as all else here.
        header, parent, metadata = frames[2], frames[3], frames[4]
        if type(header) is not bytes:
            header = bytes(header)
        if type(parent) is not bytes:
            parent = bytes(parent)
        if type(metadata) is not bytes:
            metadata = bytes(metadata)
        return Message(
            idents,
            frames,
            self._header(header),
            _NO_PARENT if parent == b"{}" else self._parent(parent),
            header,
            metadata,
        )

    def task_metadata(self, message: Message) -> TaskMetadata:
        """Raises `WireError`."""
        return self._task_metadata(message.raw_metadata)

    def broadcast_metadata(self, message: Message) -> BroadcastMetadata:
        """Raises `WireError`."""
        return self._broadcast_metadata(message.raw_metadata)

    def result_metadata(self, message: Message) -> ResultMetadata:
        """Raises `WireError`."""
        return self._result_metadata(message.raw_metadata)

    def header(self, message: Message) -> dict[str, Any]:
        """The whole header dict. Raises `WireError`."""
        return self._dict(message.raw_header)

    def metadata(self, message: Message) -> dict[str, Any]:
        """The whole metadata dict. Raises `WireError`."""
        return self._dict(message.raw_metadata)

    def content(self, message: Message) -> dict[str, Any]:
        """The content dict. Raises `WireError`."""
        return self._dict(message.raw_content)

    def error_in(self, frames: Frames) -> tuple[str, str]:
        """Type and text of the error that a message's content reports: the first line, at most 200 characters."""
        try:
            error = self._error(to_bytes(frames[5]))
        except WireError:
            return "", ""
        return error.ename[:100], error.evalue.partition("\n")[0][:200]

    # Writing

    def write(
        self,
        msg_type: str,
        content: Any,
        *,
        parent: Buffer = b"{}",
        metadata: Any = None,
        buffers: Sequence[Buffer] = (),
        header: dict[str, Any] | None = None,
        noted: bool = True,
    ) -> Frames:
        """A message from the delimiter on.

        Args:
            msg_type, content, metadata, buffers: what the message says.
            parent: the packed header that is answered.
            header: a header of the caller's own instead of a new one.
            noted: whether to `note` the message; a thread must leave that to the thread that reads.
        """
        pack = self.packer.pack
        if header is None:
            header = self.new_header(msg_type)
        empty = b"{}" if self.packer.is_json else b"\x80"
        if parent == b"{}":
            parent = empty
        parts: Frames = [pack(header), parent, pack(metadata) if metadata else empty, pack(content)]
        return self.seal(parts, buffers) if noted else self.sign(parts, buffers)

    def new_header(self, msg_type: str) -> dict[str, Any]:
        return {
            "msg_id": self.new_msg_id(),
            "msg_type": msg_type,
            "username": self.username,
            "session": self.session_id,
            "date": self.now().isoformat(),
            "version": PROTOCOL_VERSION,
        }

    def seal(self, parts: Sequence[Buffer], buffers: Sequence[Buffer] = ()) -> Frames:
        """The four packed dicts as a new message, from the delimiter on, which is noted."""
        frames = self.sign(parts, buffers)
        self.note(frames)
        return frames

    def sign(self, parts: Sequence[Buffer], buffers: Sequence[Buffer] = ()) -> Frames:
        """The four packed dicts, signed, from the delimiter on: a message that there was before, or is to be noted."""
        return [DELIMITER, self.signer.sign(parts), *parts, *buffers]

    def remember_lasting(self, message: Message) -> None:
        """Remember a message that was read as one that is `lasting`. Raises `WireError` (``replayed``)."""
        if self.signer.key:
            self.lasting.remember(to_bytes(message.frames[1]))

    def note(self, frames: Frames, *, lasting: bool = False) -> None:
        """Count a message that was made here as read: if the message comes back, it is a replay.

        A message that comes back is no message of the peer's: the buffers, which are not signed, may be a stranger's.
        """
        if self.signer.key:
            signature = to_bytes(frames[1])
            self.replays.note(signature)
            if lasting:
                self.lasting.note(signature)


def parse_date(text: str | None) -> datetime | None:
    """ISO 8601 text as an aware date in UTC; None if it is not such a date. Naive dates are UTC."""
    if not text:
        return None
    try:
        date = datetime.fromisoformat(text)
    except ValueError:
        return None
    if date.tzinfo is None:
        return date.replace(tzinfo=UTC)
    try:
        return date if date.tzinfo is UTC else date.astimezone(UTC)
    except OverflowError:  # year 1 or 9999, moved across the end of time
        return None


def error_content(
    ename: str, evalue: str, *, traceback: Sequence[str] = (), engine_info: dict[str, Any] | None = None
) -> dict[str, Any]:
    """The content of a reply that reports an error, as stock clients unwrap it.

    An empty ``engine_info`` also tells them that no output of an engine will follow. The texts are made `printable`, so
    that each packer can write them.
    """
    ename, evalue = printable(ename), printable(evalue)
    return {
        "status": "error",
        "ename": ename,
        "evalue": evalue,
        "traceback": list(map(printable, traceback)) or [f"{ename}: {evalue}"],
        "engine_info": engine_info or {},
    }
