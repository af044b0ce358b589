"""Messages: reading the fields that the hub needs, and writing as stock sessions do."""

from __future__ import annotations

import json
import tracemalloc
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trio_hub.errors import WireError
from trio_hub.wire.frames import DELIMITER
from trio_hub.wire.messages import (
    MAX_HEADER,
    MAX_METADATA,
    Header,
    ParentHeader,
    ResultMetadata,
    TaskMetadata,
    error_content,
    parse_date,
)

from .making import KEY, NOON, PACKERS, make_session, sealed


def kind_of(frames: Any, session: Any = None) -> str:
    with pytest.raises(WireError) as caught:
        (session or make_session()).read_untrusted(frames)
    assert caught.value.kind in WireError.KINDS
    return caught.value.kind


# Reading


@pytest.mark.parametrize("packer", PACKERS)
@pytest.mark.parametrize("key", [KEY, b"", b"k" * 100])
def test_what_a_session_writes_another_reads(packer: str, key: bytes) -> None:
    one, other = make_session(key, packer), make_session(key, packer)
    request = one.write("apply_request", {"a": 1}, metadata={"retries": 2}, buffers=[b"x", memoryview(b"y")])
    message = other.read_untrusted([b"ident", *request])
    assert message.idents == [b"ident"]
    assert message.frames == request
    assert message.header == Header("s_1", "apply_request", "s", "trio-hub", "2026-05-01T12:00:00+00:00")
    assert message.parent == ParentHeader()
    assert other.task_metadata(message) == TaskMetadata(retries=2)
    assert other.content(message) == {"a": 1}
    assert message.buffers == [b"x", b"y"]

    reply = other.write("apply_reply", {"status": "ok"}, parent=message.frames[2], metadata={"status": "ok"})
    answer = one.read_untrusted(reply)
    assert answer.idents == []
    assert answer.parent == ParentHeader("s_1", "apply_request", "s")
    assert one.result_metadata(answer) == ResultMetadata(status="ok")
    assert (answer.raw_header, answer.raw_metadata, answer.raw_content) == (reply[2], reply[4], reply[5])
    assert repr(answer) == "<Message apply_reply s_1 parent='s_1'>"


@pytest.mark.parametrize("packer", PACKERS)
def test_frames_are_sent_on_as_they_came(packer: str) -> None:
    session = make_session(packer=packer)
    large = memoryview(bytes(10_000))
    frames = [memoryview(frame) for frame in sealed(session, buffers=[large])]
    message = session.read_untrusted([b"ident", *frames])
    assert all(one is other for one, other in zip(message.frames[1:], frames[1:], strict=True))
    assert type(message.raw_header) is bytes
    assert session.content(message) == {}


def test_metadata_of_a_task_and_of_a_result() -> None:
    session = make_session()
    metadata = {"targets": ["a", "b"], "retries": 3, "after": {"all": True}, "follow": [], "timeout": 1, "label": [1]}
    message = session.read_untrusted(sealed(session, metadata=metadata | {"new": "ignored"}))
    assert session.task_metadata(message) == TaskMetadata(["a", "b"], 3, {"all": True}, [], 1.0, [1])
    nothing = session.read_untrusted(sealed(session, metadata=dict.fromkeys(metadata)))
    assert session.task_metadata(nothing) == TaskMetadata(retries=None)
    result = {"status": "error", "engine": "a", "dependencies_met": False, "started": "2026-05-01T12:00:00Z"}
    message = session.read_untrusted(sealed(session, metadata=result))
    assert session.result_metadata(message) == ResultMetadata(**result)  # type: ignore[arg-type]


@pytest.mark.parametrize("header", [b"", b"[]", b"{}", b"null", b'"text"', b'{"msg_id":"a"}', b'{"msg_type":"a"}'])
def test_a_signed_message_with_an_unusable_header(header: bytes) -> None:
    session = make_session()
    kind = "malformed" if not header else "wrong_type"
    assert kind_of(sealed(session, header=header), session) == kind


@pytest.mark.parametrize("parent", [b"[]", b"null", b'{"msg_id":null}', b'{"msg_id":1}', b'{"session":{}}'])
def test_a_signed_message_with_an_unusable_parent(parent: bytes) -> None:
    session = make_session()
    assert kind_of(sealed(session, parent=parent), session) == "wrong_type"


@pytest.mark.parametrize("part", ["metadata", "content"])
def test_unusable_metadata_or_content_shows_when_it_is_asked_for(part: str) -> None:
    session = make_session()
    for data, kind in ((b"{", "malformed"), (b"[]", "wrong_type")):
        metadata, content = (data, None) if part == "metadata" else (None, data)
        message = session.read_untrusted(sealed(session, metadata=metadata, content=content))
        reads = [session.content] if part == "content" else [session.task_metadata, session.result_metadata]
        for read in reads:
            with pytest.raises(WireError) as caught:
                read(message)
            assert caught.value.kind == kind


@pytest.mark.parametrize("part", ["header", "parent"])
def test_a_header_of_ten_megabytes_is_not_even_hashed(part: str) -> None:
    session = make_session()
    huge = b'{"msg_id":"a","msg_type":"b","x":"' + bytes(10_000_000) + b'"}'
    header, parent = (huge, None) if part == "header" else (None, huge)
    frames = [b"ident", *sealed(session, header, parent)]
    tracemalloc.start()
    try:
        assert kind_of(frames, session) == "too_large"
        assert tracemalloc.get_traced_memory()[1] < 100_000, "nor copied"
    finally:
        tracemalloc.stop()
    assert len(session.replays) == 0


def test_a_header_may_have_as_many_bytes_as_it_says() -> None:
    session = make_session()
    start, end = b'{"msg_id":"a","msg_type":"b","x":"', b'"}'
    text = start + b"x" * (MAX_HEADER - len(start) - len(end)) + end
    assert session.read_untrusted(sealed(session, header=text)).header.msg_id == "a"
    assert kind_of(sealed(session, header=text + b" "), session) == "too_large"


def test_metadata_that_is_too_large() -> None:
    class Huge(bytes):
        def __len__(self) -> int:
            return MAX_METADATA + 1

    session = make_session()
    frames = sealed(session)
    frames[4] = Huge()
    assert kind_of(frames, session) == "too_large"


@pytest.mark.parametrize("packer", PACKERS)
def test_deep_nesting(packer: str) -> None:
    session = make_session(packer=packer)
    opening = b"\x81\xa1a" if packer == "msgpack" else b'{"a":'
    for depth in (5_000, 200_000):
        assert kind_of(sealed(session, header=opening * depth), session) in ("malformed", "too_large")
        message = session.read_untrusted(sealed(session, content=opening * depth))
        with pytest.raises(WireError):
            session.content(message)


def test_a_large_frame_of_a_message_is_not_copied() -> None:
    session = make_session()
    content = memoryview(b'{"a":"' + b"x" * 5_000_000 + b'"}')
    frames = session.sign([b'{"msg_id":"a","msg_type":"b"}', b"{}", b"{}", content], [memoryview(bytes(5_000_000))])
    tracemalloc.start()
    try:
        message = session.read_untrusted(frames)
        assert tracemalloc.get_traced_memory()[1] < 100_000
    finally:
        tracemalloc.stop()
    assert message.frames[5] is content


# Writing


@pytest.mark.parametrize("packer", PACKERS)
def test_what_is_empty_is_written_as_an_empty_dict(packer: str) -> None:
    session = make_session(packer=packer)
    empty = session.packer.pack({})
    for frames in (session.write("x", {}), session.write("x", {}, metadata={}, parent=memoryview(b"{}"))):
        assert frames[0] == DELIMITER
        assert frames[3:] == [empty] * 3


def test_message_ids_are_never_the_same() -> None:
    session = make_session()
    assert [session.new_msg_id() for _ in range(3)] == ["s_1", "s_2", "s_3"]
    first, second = (session.new_header("x")["msg_id"] for _ in range(2))
    assert first != second


def test_a_header_of_the_callers_own() -> None:
    session = make_session()
    header = session.new_header("apply_request") | {"msg_id": "mine", "extra": 1}
    frames = session.write("ignored", {}, header=header)
    assert json.loads(bytes(frames[2])) == header
    assert make_session().read_untrusted(frames).header.msg_id == "mine"


# Dates


@pytest.mark.parametrize(
    "text",
    [
        "2026-05-01T12:00:00Z",
        "2026-05-01T12:00:00+00:00",
        "2026-05-01T12:00:00",
        "2026-05-01 12:00:00.000000",
        "2026-05-01T14:30:00+02:30",
        "2026-04-30T23:00:00-13:00",
    ],
)
def test_dates_are_aware_and_in_utc(text: str) -> None:
    date = parse_date(text)
    assert date == NOON
    assert date is not None
    assert date.tzinfo is UTC


@pytest.mark.parametrize(
    "text",
    [None, "", "now", "2026-13-01", "\ud800", "0001-01-01T00:00:00+23:00", "9999-12-31T23:59:59-23:59", "1777636800"],
)
def test_what_is_not_a_date_is_none(text: str | None) -> None:
    assert parse_date(text) is None


offsets = st.integers(-1439, 1439).map(lambda minutes: timezone(timedelta(minutes=minutes)))


@given(st.datetimes(timezones=st.none() | st.just(UTC) | offsets))
@pytest.mark.property
def test_every_date_keeps_its_moment(date: datetime) -> None:
    parsed = parse_date(date.isoformat())
    if parsed is not None:
        assert parsed.tzinfo is UTC
        assert parsed == (date.replace(tzinfo=UTC) if date.tzinfo is None else date)
    else:
        assert date.year in (1, 9999)


@given(st.text(alphabet=st.sampled_from("0123456789-:.,TZW+ \ud800é"), max_size=30) | st.text())
@pytest.mark.property
def test_no_text_is_too_strange_for_a_date(text: str) -> None:
    date = parse_date(text)
    assert date is None or date.tzinfo is UTC


# Errors


def test_the_content_of_an_error() -> None:
    assert error_content("EngineError", "gone") == {
        "status": "error",
        "ename": "EngineError",
        "evalue": "gone",
        "traceback": ["EngineError: gone"],
        "engine_info": {},
    }
    content = error_content("E", "v", traceback=("one", "two"), engine_info={"engine_id": 1})
    assert content["traceback"] == ["one", "two"]
    assert content["engine_info"] == {"engine_id": 1}


def test_a_wire_error_has_one_of_the_known_kinds() -> None:
    assert len(set(WireError.KINDS)) == len(WireError.KINDS)
    error = WireError("malformed", "what was wrong")
    assert (error.kind, str(error)) == ("malformed", "what was wrong")


def test_headers_are_small() -> None:
    """A header is made for every message, so the garbage collector must not track headers."""
    for struct in (Header, ParentHeader, ResultMetadata):
        assert not struct.__struct_config__.gc
