"""Messages: typed headers and metadata, and the session that reads and writes messages.

The structs have only the fields that the hub needs. The hub passes on all other fields without reading them.
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
from .tracebacks import raising_line

__all__ = [
    "MAX_HEADER",
    "MAX_METADATA",
    "OWN_USERNAME",
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

OWN_USERNAME = "trio-hub"
"""The username in messages of this project's peers begins with this. Stock peers name the user of their process."""
PROTOCOL_VERSION = "5.3"  # the version of the Jupyter messaging protocol that stock sessions state
MAX_HEADER = 1 << 20
"""The greatest size of a header or parent header, in bytes. Headers of stock sessions have about 200 bytes."""
MAX_METADATA = 64 << 20
"""The greatest size of a metadata dict, in bytes. A task with 100,000 dependencies needs about 6 MB."""


class Header(msgspec.Struct, frozen=True, gc=False):
    msg_id: str
    msg_type: str
    session: str = ""
    username: str = ""
    date: str | None = None

    @property
    def is_stock(self) -> bool:
        """Whether a stock client has written this header.

        A stock client settles the requests of a lost engine itself, and reads results in its own way. False if in
        doubt.
        """
        return self.username != "" and not self.username.startswith(OWN_USERNAME)

    @property
    def user(self) -> str:
        """The name of the user whose process has written this header; empty if the header names none."""
        if self.username.startswith(OWN_USERNAME):
            return self.username.partition("/")[2]
        return self.username

    def renamed(self, msg_id: str) -> Header:
        """Return a copy of this header with another msg_id."""
        return msgspec.structs.replace(self, msg_id=msg_id)


class _Kind(msgspec.Struct, frozen=True, gc=False):
    """The type of a message alone."""

    msg_type: str


class ParentHeader(msgspec.Struct, frozen=True, gc=False):
    """The header of the message that this message answers. All fields are empty if it answers no message."""

    msg_id: str = ""
    msg_type: str = ""
    session: str = ""


class TaskMetadata(msgspec.Struct, frozen=True, gc=False):
    """The metadata of a task that the scheduler reads. `after`, `follow` and `rules` are not parsed here."""

    targets: list[str] | None = None
    retries: Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)] | None = 0  # stored as 64-bit integers
    after: Any = None
    follow: Any = None
    timeout: float | None = None
    label: Any = None
    rules: Any = None


class BroadcastMetadata(msgspec.Struct, frozen=True, gc=False):
    """The metadata of a broadcast: its targets, as pairs of uuid and engine id, and whether answers are gathered."""

    targets: list[tuple[str, int]]
    is_coalescing: bool = False
    label: Any = None


class ResultMetadata(msgspec.Struct, frozen=True, gc=False):
    """The metadata of a reply that the hub reads.

    ``idle_topic`` is the topic of the idle status that the engine leaves to the hub; None if the engine publishes the
    status itself.
    """

    status: str | None = None
    engine: str | None = None
    dependencies_met: bool = True
    started: str | None = None
    idle_topic: str | None = None


class ErrorContent(msgspec.Struct, frozen=True, gc=False):
    """The content of a reply that reports an error: the name of the exception's class, its text, and the traceback."""

    ename: str = ""
    evalue: str = ""
    traceback: Any = None


class Message(msgspec.Struct, eq=False, gc=False):
    """A message whose signature has been verified, with its routing identities.

    - ``frames``: the frames from the delimiter on, as they were received, so that the hub can send them on:
      ``[delimiter, signature, header, parent, metadata, content, buffer…]``;
    - ``date``: the date in a client's request; None until that date has been parsed.
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
    def raw_parent(self) -> bytes:
        return to_bytes(self.frames[3])

    @property
    def raw_content(self) -> bytes:
        return to_bytes(self.frames[5])

    @property
    def buffers(self) -> Frames:
        return self.frames[6:]


_NO_PARENT = ParentHeader()


class Session:
    """Reads and writes messages that are signed with one key.

    Args:
        key: The shared secret. Messages are not signed if the key is empty.
        packer: The name of the serialisation, see `packer_named`.
        scheme: The name of the signature scheme, see `Signer`.
        session_id: The session in the headers of messages that this object writes.
        now: Returns the current time, aware and in UTC.
        username: The username in these headers.

    Raises:
        ConfigError: The packer or the scheme is unknown or unsafe.
    """

    def __init__(
        self,
        key: bytes,
        *,
        session_id: str,
        now: Callable[[], datetime],
        packer: str = "json",
        scheme: str = "hmac-sha256",
        username: str = OWN_USERNAME,
    ) -> None:
        self.session_id = session_id
        self.username = username
        self.now = now
        self.packer: Packer = packer_named(packer)
        self.signer = Signer(key, scheme)
        self.replays = ReplayWindow()
        """The signatures of all messages that this session has read or made."""
        self.lasting = ReplayWindow()
        """The signatures of the messages that were read as `lasting`. These messages are few, and leave no record by
        which the hub could recognise a replay."""
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
        """Read a message: verify its signature, check that it is not a replay, and decode its header and parent header.

        Args:
            frames: Routing identities, and a message from the delimiter on.
            lasting: Whether to remember the signature in `lasting` too. There, only other lasting messages can push
                the signature out.

        Raises:
            WireError: The frames are not a valid message. No other exception is raised.
        """
        idents, frames = split_untrusted(frames)
        _, signature, header, parent, metadata, content = frames[:6]
        if len(header) > MAX_HEADER or len(parent) > MAX_HEADER:
            raise WireError(
                "too_large", f"a header of {max(len(header), len(parent))} bytes; the limit is {MAX_HEADER}"
            )
        if len(metadata) > MAX_METADATA:
            raise WireError("too_large", f"metadata of {len(metadata)} bytes; the limit is {MAX_METADATA}")
        if self.signer.key:
            if type(signature) is not bytes:
                signature = bytes(signature)
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
        """Read frames, from the delimiter on, that were verified when they were received. Raises `WireError`."""
        # Nearly all frames are bytes already. Calling `to_bytes` for each would double the time of this function.
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
        """Decode the metadata of a task. Raises `WireError`."""
        return self._task_metadata(message.raw_metadata)

    def task_label(self, frames: Frames) -> Any:
        """Return the label in the metadata of a task, given its frames. Raises `WireError`."""
        return self._task_metadata(to_bytes(frames[4])).label

    def broadcast_metadata(self, message: Message) -> BroadcastMetadata:
        """Decode the metadata of a broadcast. Raises `WireError`."""
        return self._broadcast_metadata(message.raw_metadata)

    def result_metadata(self, message: Message) -> ResultMetadata:
        """Decode the metadata of a reply. Raises `WireError`."""
        return self._result_metadata(message.raw_metadata)

    def header(self, message: Message) -> dict[str, Any]:
        """Decode the whole header. Raises `WireError`."""
        return self._dict(message.raw_header)

    def metadata(self, message: Message) -> dict[str, Any]:
        """Decode the whole metadata. Raises `WireError`."""
        return self._dict(message.raw_metadata)

    def content(self, message: Message) -> dict[str, Any]:
        """Decode the content. Raises `WireError`."""
        return self._dict(message.raw_content)

    def error_in(self, frames: Frames) -> tuple[str, str, str]:
        """Return the name, the text and the `raising_line` of the error in a reply; empty if it cannot be read.

        The name is cut after 100 characters. The text is cut after its first line, and after 200 characters.
        """
        try:
            error = self._error(to_bytes(frames[5]))
        except WireError:
            return "", "", ""
        return error.ename[:100], error.evalue.partition("\n")[0][:200], raising_line(error.traceback)

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
        """Make a message. Return its frames from the delimiter on.

        Args:
            msg_type, content, metadata, buffers: The parts of the message.
            parent: The packed header of the message that this message answers.
            header: The header; None for a new header.
            noted: Whether to `note` the message, so that it is dropped as a replay if somebody sends it back. Only the
                thread that reads messages may note messages.
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
        """Sign four packed dicts, and `note` the new message. Return its frames from the delimiter on."""
        frames = self.sign(parts, buffers)
        self.note(frames)
        return frames

    def sign(self, parts: Sequence[Buffer], buffers: Sequence[Buffer] = ()) -> Frames:
        """Sign four packed dicts without noting the message. Return its frames from the delimiter on.

        For a message that was noted before, or that the caller notes later.
        """
        return [DELIMITER, self.signer.sign(parts), *parts, *buffers]

    def remember_lasting(self, message: Message) -> None:
        """Remember a message, which was read already, in `lasting`. Raises `WireError` (``replayed``)."""
        if self.signer.key:
            self.lasting.remember(to_bytes(message.frames[1]))

    def note(self, frames: Frames, *, lasting: bool = False) -> None:
        """Remember a message that this session has made: if the message is received later, it is a replay.

        Such a message does not come from a peer. An attacker has sent it back, perhaps with other buffers, since
        buffers are not signed.
        """
        if self.signer.key:
            signature = to_bytes(frames[1])
            self.replays.note(signature)
            if lasting:
                self.lasting.note(signature)


_from_iso = datetime.fromisoformat


def parse_date(text: str | None) -> datetime | None:
    """Parse an ISO 8601 date. Return an aware date in UTC, or None for any other text. A date without a zone is UTC."""
    if not text:
        return None
    try:
        date = _from_iso(text)
    except ValueError:
        return None
    if date.tzinfo is None:
        return date.replace(tzinfo=UTC)
    try:
        return date if date.tzinfo is UTC else date.astimezone(UTC)
    except OverflowError:  # in UTC, the date is before year 1 or after year 9999
        return None


def error_content(
    ename: str, evalue: str, *, traceback: Sequence[str] = (), engine_info: dict[str, Any] | None = None
) -> dict[str, Any]:
    """Return the content of a reply that reports an error, in the form that stock clients expect.

    An empty ``engine_info`` also tells clients that no output of an engine will follow. The texts are made `printable`,
    so that each packer can write them.
    """
    ename, evalue = printable(ename), printable(evalue)
    return {
        "status": "error",
        "ename": ename,
        "evalue": evalue,
        "traceback": list(map(printable, traceback)) or [f"{ename}: {evalue}"],
        "engine_info": engine_info or {},
    }
