"""The notes of a record suffice to send the request and the reply once more with the same bytes."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trio_hub.errors import WireError
from trio_hub.hub.custody import (
    AWAY,
    Custody,
    custody_of,
    custody_of_request,
    identities,
    reply_frames,
    request_frames,
)
from trio_hub.hub.records import init_record, record_of_result
from trio_hub.records.record import TaskRecord

from .world import Clock, Peer, World

PACKERS = ("json", "msgpack")
JSON_VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**60), 2**60)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=5),
    lambda values: st.lists(values, max_size=3) | st.dictionaries(st.text(max_size=5), values, max_size=3),
    max_leaves=6,
)
DICTS = st.dictionaries(st.text(max_size=5), JSON_VALUES, max_size=4)
READER = {packer: World(packer=packer) for packer in PACKERS}


def same(ours: Any, theirs: Any) -> bool:
    return [bytes(frame) for frame in ours] == [bytes(frame) for frame in theirs]


@given(
    packer=st.sampled_from(PACKERS),
    content=DICTS,
    metadata=DICTS,
    parent=st.none() | DICTS,
    buffers=st.lists(st.binary(max_size=9), max_size=3),
    idents=st.lists(st.binary(max_size=9), max_size=3),
)
def test_a_request_is_sent_again_as_it_came(
    packer: str, content: Any, metadata: Any, parent: Any, buffers: list[bytes], idents: list[bytes]
) -> None:
    world = READER[packer]
    peer = Peer("client", packer=packer)
    packed = b"{}"
    if parent is not None:
        packed = peer.session.packer.pack(parent | {"msg_id": "p", "msg_type": "t", "session": "s"})
    came = peer.session.write("apply_request", content, metadata=metadata, parent=packed, buffers=buffers)
    msg = world.read(came)
    record = init_record(msg, peer.session.packer, queue="task", now=Clock())
    record.custody = custody_of_request(idents, msg, is_json=packer == "json").pack()
    assert same(request_frames(record, peer.session), came)
    assert custody_of(record).idents == idents
    world.read(request_frames(record, peer.session))  # reading verifies the signature


@given(packer=st.sampled_from(PACKERS), content=DICTS, buffers=st.lists(st.binary(max_size=9), max_size=3))
def test_a_reply_is_sent_again_with_the_same_words(packer: str, content: Any, buffers: list[bytes]) -> None:
    world = READER[packer]
    client, engine = Peer("client", packer=packer), Peer("engine", packer=packer)
    request = world.read(client.session.write("apply_request", {}))
    came = engine.session.write("apply_reply", content, parent=request.frames[2], buffers=buffers)
    reply = world.read(came)
    record = init_record(request, client.session.packer, queue="task", now=Clock())
    record.update(record_of_result(reply, client.session.packer, engine_uuid="e", started=None, now=Clock()()))
    record.custody = Custody(parent=bytes(reply.frames[3])).pack()
    again = reply_frames(record, client.session)
    if packer == "json":
        assert same(again, came), "so a client that has had it drops it"
    read = world.read(again)
    assert (read.parent.msg_id, read.header) == (request.header.msg_id, reply.header)
    assert world.content(read) == world.content(reply)
    assert same(read.buffers, buffers)


def test_a_reply_without_a_note_answers_the_request() -> None:
    world = READER["json"]
    request = world.read(world.client.session.write("apply_request", {}))
    record = init_record(request, world.client.session.packer, queue="task", now=Clock())
    record.result_header = b'{"msg_id": "r", "msg_type": "apply_reply"}'
    assert world.read(reply_frames(record, world.client.session)).parent.msg_id == request.header.msg_id


@given(
    st.builds(
        Custody,
        st.lists(st.binary(max_size=5), max_size=3),
        st.binary(max_size=5),
        st.none() | st.tuples(st.binary(max_size=5), st.binary(max_size=5), st.binary(max_size=5)),
        st.none() | st.integers(0, 9),
        st.lists(st.binary(max_size=5), max_size=3),
        st.lists(st.binary(max_size=5), max_size=3),
    )
)
def test_what_is_noted_is_read(custody: Custody) -> None:
    assert custody_of(TaskRecord("x", custody=custody.pack())) == custody


@given(st.binary(max_size=60))
def test_damaged_notes_are_notes_or_a_client_that_is_away(damaged: bytes) -> None:
    """Nothing else, ever."""
    custody = custody_of(TaskRecord("x", custody=damaged))
    assert isinstance(custody, Custody)
    assert all(isinstance(ident, bytes) for ident in identities(custody))


def test_damaged_notes_lead_to_whoever_has_the_session() -> None:
    assert identities(custody_of(TaskRecord("x", custody=b"\xff"))) == [AWAY]
    assert identities(custody_of(TaskRecord("x"))) == []


def test_an_identity_that_zeromq_has_made_up_is_nobodys_after_a_restart() -> None:
    assert identities(Custody([b"\0\1\2", b"rest"])) == [AWAY, b"rest"]
    assert identities(Custody([b"mine", b"rest"])) == [b"mine", b"rest"]
    assert identities(Custody([AWAY])) == [AWAY]
    assert identities(Custody()) == []


@given(packer=st.sampled_from(PACKERS), damaged=st.binary(max_size=20), key=st.sampled_from(["header", "content"]))
def test_a_damaged_record_gives_frames_or_a_wire_error(packer: str, damaged: bytes, key: str) -> None:
    """Nothing else, ever."""
    record = TaskRecord("x")
    record.update({key: damaged, f"result_{key}": damaged})
    for frames_of in (request_frames, reply_frames):
        try:
            frames = frames_of(record, READER[packer].client.session)
        except WireError:
            assert packer == "msgpack"
        else:
            assert len(frames) == 6


@pytest.mark.parametrize("depth", [100, 200_000])
def test_a_record_nested_too_deep(depth: int) -> None:
    record = TaskRecord("x", content=b"[" * depth + b"]" * depth)
    if depth == 100:
        assert request_frames(record, READER["msgpack"].client.session)
    else:
        with pytest.raises(WireError):
            request_frames(record, READER["msgpack"].client.session)
