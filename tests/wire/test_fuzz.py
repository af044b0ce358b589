"""Any bytes give a message or a `WireError`, and nothing else."""

from __future__ import annotations

from typing import Any, Literal

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trio_hub.errors import WireError
from trio_hub.wire.frames import DELIMITER, Frames
from trio_hub.wire.messages import (
    Header,
    Message,
    ParentHeader,
    ResultMetadata,
    Session,
    TaskMetadata,
    parse_date,
)

from .making import PACKERS, make_session, sealed

pytestmark = pytest.mark.property

# These many for each test and packer, or more where the profile says so.
many = settings(max_examples=max(250, settings.default.max_examples if settings.default else 0))

# What stands in a message that was not written by mistake: right keys, and values that are right or nearly so.
# Drawn from lists, since that is many times faster than making them up.
texts = st.sampled_from(["", "a", "apply_request", "\ufffd", "0001-01-01T00:00:00+23:00", "2026-05-01", "é" * 40])
odd: list[Any] = [[], ["a"], ["a", 1], [[[]]], {}, {"a": ["b"]}, {"all": True, "dependencies": ["a"]}]
odd += [None, True, False, 0, -1, 2**31, 2**63, 2**64 - 1, 1.5, 1e308, float("inf"), float("nan")]
values = texts | st.sampled_from(odd)
KEYS = sorted(
    {key for struct in (Header, ParentHeader, TaskMetadata, ResultMetadata) for key in struct.__struct_fields__}
)
dicts = st.dictionaries(st.sampled_from(KEYS) | texts, values, max_size=6)
headers: st.SearchStrategy[dict[str, Any]] = st.builds(dict, dicts, msg_id=texts, msg_type=texts) | dicts

# What only bad luck or bad will writes.
pieces = [b"{", b"}", b"[", b"]", b'"', b'":', b",", b"\\u", b"d800", b"NaN", b"-Infinity", b"1e999", b"9" * 5000]
pieces += [b"\xff", b"\xef\xbb\xbf", b"\x00", b"{}", b"[" * 3000, b'{"a":' * 3000, DELIMITER]
pieces += [b'{"msg_id":"a","msg_type":"b"}', b'{"x":NaN,"msg_id":"a","msg_type":"b"}']
pieces += [b"\x80", b"\x81\xa1a", b"\xc1", b"\xc7\x0c\xff", b"\x91" * 3000]
pieces += [code + b"\xff\xff\xff\xff" for code in (b"\xd6\xff", b"\xdb", b"\xdd", b"\xdf")]
snippets = st.sampled_from(pieces)
garbage = st.binary(max_size=20) | st.lists(snippets, max_size=6).map(b"".join)
KINDS_OF_FRAMES: list[type[bytes] | type[memoryview]] = [bytes, memoryview]


@st.composite
def packed(draw: st.DrawFn, packer: str, wanted: st.SearchStrategy[Any]) -> bytes:
    """Draw a packed dict, sometimes with some bytes changed, and sometimes another packed value."""
    if draw(st.integers(0, 3)) == 0:
        return draw(garbage)
    value = draw(wanted)
    # packed by msgspec, since our packer is not tested here
    data = msgspec.msgpack.encode(value) if packer == "msgpack" else msgspec.json.encode(value)
    return draw(mutated(data)) if draw(st.integers(0, 3)) == 0 else data


@st.composite
def mutated(draw: st.DrawFn, data: bytes) -> bytes:
    """Draw these bytes with some parts removed and others inserted."""
    start = draw(st.integers(0, len(data)))
    length = draw(st.integers(0, 4) | st.integers(0, len(data)))
    return data[:start] + draw(garbage) + data[start + length :]


def read_whole(session: Session, frames: Frames) -> Message | WireError:
    """Read all parts of a message that the hub may ever read. An exception breaks the invariant."""
    try:
        message = session.read_untrusted(frames)
    except WireError as error:
        check_error(error)
        return error
    assert all(type(ident) is bytes for ident in message.idents)
    assert message.frames[0] == DELIMITER
    assert len(message.frames) >= 6
    assert message.frames[1:] == frames[len(message.idents) + 1 :]
    assert isinstance(message.header, Header)
    assert isinstance(message.parent, ParentHeader)
    for text in (message.header.msg_id, message.header.msg_type, message.header.session, message.header.username):
        assert type(text) is str
    for text in (message.parent.msg_id, message.parent.msg_type, message.parent.session):
        assert type(text) is str
    assert repr(message)
    parse_date(message.header.date)
    for read, kind in (
        (session.task_metadata, TaskMetadata),
        (session.result_metadata, ResultMetadata),
        (session.content, dict),
    ):
        try:
            assert isinstance(read(message), kind)
        except WireError as error:
            check_error(error)
    for raw in (message.raw_header, message.raw_metadata, message.raw_content):
        try:
            assert type(session.packer.to_json(raw)) is bytes
        except WireError as error:
            check_error(error)
    return message


def check_error(error: WireError) -> None:
    assert error.kind in WireError.KINDS
    assert 0 < len(str(error)) < 300, "it goes into a log"


@pytest.mark.parametrize("packer", PACKERS)
@pytest.mark.parametrize("key", [b"secret", b""], ids=["key", "no key"])
@given(frames=st.lists(garbage | st.just(DELIMITER), max_size=12), kind=st.sampled_from(KINDS_OF_FRAMES))
@many
def test_random_frames(packer: str, key: bytes, frames: list[bytes], kind: type[bytes]) -> None:
    session = make_session(key, packer)
    outcome = read_whole(session, [kind(frame) for frame in frames])
    if key:
        assert isinstance(outcome, WireError), "nobody guesses a signature"
        assert len(session.replays) == 0


@pytest.mark.parametrize("packer", PACKERS)
@given(data=st.data(), kind=st.sampled_from(KINDS_OF_FRAMES))
@many
def test_a_valid_signature_over_garbage(packer: str, data: st.DataObject, kind: type[bytes]) -> None:
    session = make_session(packer=packer)
    header, *others = (data.draw(packed(packer, wanted)) for wanted in (headers, headers, dicts, dicts))
    idents, buffers = data.draw(st.lists(st.binary(max_size=5), max_size=2)), data.draw(st.lists(garbage, max_size=2))
    parts = [kind(part) for part in (header, *others)]
    frames: Frames = [*idents, *session.sign(parts, buffers)]
    outcome = read_whole(session, frames)
    if isinstance(outcome, WireError):
        assert outcome.kind in ("malformed", "wrong_type")
    assert len(session.replays) == 1
    again = read_whole(session, frames)
    assert isinstance(again, WireError)
    assert again.kind == "replayed", "it said what it said only once, readable or not"


@pytest.mark.parametrize("packer", PACKERS)
@given(data=st.data(), kind=st.sampled_from(KINDS_OF_FRAMES))
@many
def test_a_valid_message_with_something_changed(packer: str, data: st.DataObject, kind: type[bytes]) -> None:
    session = make_session(packer=packer)
    valid: list[bytes] = [b"ident", *map(bytes, sealed(session, metadata={"retries": 1}, content={"a": 1}))]
    frames = list(valid)
    how: Literal["change", "drop", "repeat", "insert", "swap"] = data.draw(
        st.sampled_from(["change", "drop", "repeat", "insert", "swap"])
    )
    index = data.draw(st.integers(0, len(frames) - 1))
    if how == "change":
        frames[index] = data.draw(mutated(frames[index]))
    elif how == "drop":
        del frames[index]
    elif how == "repeat":
        frames.insert(index, frames[index])
    elif how == "insert":
        frames.insert(index, data.draw(garbage))
    else:
        other = data.draw(st.integers(0, len(frames) - 1))
        frames[index], frames[other] = frames[other], frames[index]
    outcome = read_whole(session, [kind(frame) for frame in frames])
    if isinstance(outcome, Message):
        assert [bytes(frame) for frame in outcome.frames[1:6]] == valid[2:7], "what is signed is as it was signed"


@pytest.mark.parametrize("packer", PACKERS)
@given(data=st.data())
@many
def test_any_bytes_as_a_single_dict(packer: str, data: st.DataObject) -> None:
    session = make_session(packer=packer)
    raw = data.draw(packed(packer, dicts) | garbage)
    for wanted in (Header, ParentHeader, TaskMetadata, ResultMetadata, dict[str, Any], Any):
        try:
            session.packer.decoder(wanted)(raw)
        except WireError as error:
            check_error(error)
