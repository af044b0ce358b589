"""Signatures, and the replay window, which accepts no message twice."""

from __future__ import annotations

import hashlib
import hmac
from array import array
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trio_hub.errors import ConfigError, WireError
from trio_hub.wire import signing
from trio_hub.wire.frames import Buffer
from trio_hub.wire.signing import REPLAY_WINDOW, ReplayWindow, Signer

from .making import make_session, sealed

HASHES = sorted(name for name in hashlib.algorithms_guaranteed if not name.startswith("shake"))
PARTS: list[Buffer] = [b'{"msg_id": "1"}', memoryview(b"{}"), b"{}", b""]


# Signatures


@pytest.mark.parametrize("name", HASHES)
@pytest.mark.parametrize("length", [1, 36, 63, 64, 65, 128, 129, 144, 145, 1000])
def test_signatures_are_those_of_the_standard_library(name: str, length: int) -> None:
    key = bytes(range(1, 251)) * 4
    reference = hmac.new(key[:length], b"".join(PARTS), name)
    assert Signer(key[:length], f"hmac-{name}").sign(PARTS) == reference.hexdigest().encode()


@given(st.binary(min_size=1, max_size=200), st.lists(st.binary(), min_size=4, max_size=4))
@pytest.mark.property
def test_any_key_and_any_parts(key: bytes, parts: list[Buffer]) -> None:
    signer = Signer(key)
    signature = signer.sign(parts)
    assert signature == hmac.new(key, b"".join(parts), "sha256").hexdigest().encode()
    assert signer.sign(parts) == signature, "signing leaves the prepared hashes as they were"
    signer.verify_untrusted(signature, parts)


def test_an_empty_key_means_no_signatures() -> None:
    signer = Signer(b"")
    assert signer.sign(PARTS) == b""
    signer.verify_untrusted(b"anything", PARTS)


GOOD = Signer(b"key").sign(PARTS)


@pytest.mark.parametrize(
    "signature",
    [b"", GOOD[:-1], GOOD + b"0", GOOD.upper(), b"0" * 64, GOOD[:32], b"\xff" * 64, Signer(b"Key").sign(PARTS)],
)
def test_a_signature_that_is_not_exactly_right_is_bad(signature: bytes) -> None:
    with pytest.raises(WireError) as caught:
        Signer(b"key").verify_untrusted(signature, PARTS)
    assert caught.value.kind == "bad_signature"


@pytest.mark.parametrize("index", range(4))
def test_each_of_the_four_parts_is_signed(index: int) -> None:
    changed = [*PARTS]
    changed[index] = b"other"
    with pytest.raises(WireError):
        Signer(b"key").verify_untrusted(GOOD, changed)


def test_signatures_are_compared_in_constant_time(monkeypatch: pytest.MonkeyPatch) -> None:
    compared = []

    def compare(one: bytes, other: bytes) -> bool:
        compared.append({one, other})
        return hmac.compare_digest(one, other)

    monkeypatch.setattr(signing, "compare_digest", compare)
    with pytest.raises(WireError):
        Signer(b"key").verify_untrusted(b"forged", PARTS)
    Signer(b"key").verify_untrusted(GOOD, PARTS)
    assert compared == [{GOOD, b"forged"}, {GOOD}]


@pytest.mark.parametrize(
    "scheme", ["", "sha256", "hmac", "hmac-", "hmac-sha257", "hmac-shake_128", "hmac-SHA256", "cmac-sha256"]
)
def test_an_unknown_scheme_is_refused_by_name(scheme: str) -> None:
    with pytest.raises(ConfigError, match=repr(scheme)):
        Signer(b"key", scheme)


# The replay window


def numbered(number: int) -> bytes:
    return hashlib.sha256(b"%d" % number).hexdigest().encode()


def is_known(window: ReplayWindow, number: int) -> bool:
    known = window.recent.find(int(numbered(number)[:16], 16)) is not None
    if known:
        with pytest.raises(WireError) as caught:
            window.remember(numbered(number))
        assert caught.value.kind == "replayed"
    else:
        window.remember(numbered(number))
    return known


def test_a_signature_is_believed_once() -> None:
    window = ReplayWindow()
    assert not is_known(window, 1)
    assert is_known(window, 1)
    assert is_known(window, 1)
    assert not is_known(window, 2)
    assert len(window) == 2


def test_at_least_size_and_at_most_twice_as_many_are_remembered() -> None:
    window = ReplayWindow(size=10)
    for number in range(95):
        assert not is_known(window, number)
        assert min(number + 1, 10) <= len(window) <= 20
    for number in range(85, 95):
        assert is_known(window, number), "one of the latest ten"
    assert not is_known(window, 74), "forgotten, with its generation"


def test_a_repetition_makes_nothing_young_again() -> None:
    window = ReplayWindow(size=2)
    for number in (1, 2, 3):
        assert not is_known(window, number)
    for _ in range(5):
        assert is_known(window, 1)
    assert len(window) == 3


def test_memory_is_bounded_at_the_size_stock_sessions_have() -> None:
    assert REPLAY_WINDOW == ReplayWindow().size == 2**16
    window = ReplayWindow(size=100)
    for number in range(1000):
        window.remember(numbered(number))
    assert len(window) <= 200


@given(st.lists(st.integers(0, 12)), st.integers(1, 4))
@pytest.mark.property
def test_what_is_among_the_latest_is_always_known(numbers: list[int], size: int) -> None:
    window = ReplayWindow(size)
    believed: list[int] = []  # in the order in which they came
    for number in numbers:
        if is_known(window, number):
            assert number in believed[-2 * size :]
        else:
            assert number not in believed[-size:]
            believed.append(number)
        assert len(window) <= 2 * size


# The window in a ring, which outlives it


def is_remembered(window: ReplayWindow, number: int) -> bool:
    return window.recent.find(int(numbered(number)[:16], 16)) is not None


@given(st.lists(st.one_of(st.integers(0, 12), st.just("restart"))), st.integers(1, 4))
@pytest.mark.property
def test_what_is_among_the_latest_is_known_across_restarts(steps: list[int | str], size: int) -> None:
    ring = array("Q", bytes(8 * (size + 1)))
    window = ReplayWindow(size)
    window.keep_in(ring)
    believed: list[int] = []
    for step in steps:
        if isinstance(step, str):
            window = ReplayWindow(size)
            window.keep_in(ring)
            assert all(is_remembered(window, number) for number in believed[-size:])
        elif is_known(window, step):
            assert step in believed[-2 * size :]
        else:
            assert step not in believed[-size:]
            believed.append(step)
        assert sum(mark != 0 for mark in ring) <= size


@given(st.integers(0, 12), st.integers(1, 6), st.booleans())
@pytest.mark.property
def test_a_process_may_be_killed_between_two_writes(before: int, after: int, first_only: bool) -> None:
    class Killed(BaseException):
        pass

    class Ring(array):  # type: ignore[type-arg]
        writes = 0

        def __setitem__(self, place: Any, mark: Any) -> None:
            if Ring.writes == 0:
                raise Killed
            Ring.writes -= 1
            super().__setitem__(place, mark)

    ring = Ring("Q", bytes(8 * 6))
    window = ReplayWindow(5)
    window.keep_in(ring)
    Ring.writes = 2 * before + first_only
    with suppress(Killed):
        for number in range(before + 1):
            window.remember(numbered(number))
    assert Ring.writes == 0
    Ring.writes = -1
    window = ReplayWindow(5)
    window.keep_in(ring)
    assert all(is_remembered(window, number) for number in range(max(0, before - 4), before))
    for number in range(100, 100 + after):
        window.remember(numbered(number))
    window = ReplayWindow(5)
    window.keep_in(ring)
    assert all(is_remembered(window, number) for number in range(100 + after - min(after, 5), 100 + after))


@given(st.lists(st.integers(0, 2**64 - 1), min_size=6, max_size=6))
@pytest.mark.property
def test_whatever_is_in_a_ring_is_taken_for_marks(content: list[int]) -> None:
    ring = array("Q", content)
    window = ReplayWindow(5)
    window.keep_in(ring)
    assert all(window.recent.find(mark) for mark in content if mark)
    for number in range(20):
        is_known(window, number)
    window = ReplayWindow(5)
    window.keep_in(ring)
    assert all(is_known(window, number) for number in range(15, 20))


def test_a_ring_that_is_left_is_written_no_more() -> None:
    ring = array("Q", bytes(8 * 6))
    window = ReplayWindow(5)
    window.keep_in(ring)
    window.remember(numbered(1))
    window.leave_ring()
    window.remember(numbered(2))
    assert sum(mark != 0 for mark in ring) == 1
    assert is_known(window, 1)


# Both together: verified first, then remembered


@pytest.mark.parametrize("how", ["write", "seal"])
def test_what_a_session_has_made_is_no_message_of_a_peers(how: str) -> None:
    session = make_session()
    if how == "write":
        frames = session.write("apply_request", {}, buffers=[b"x"])
    else:
        frames = session.seal([b'{"msg_id": "1", "msg_type": "x"}', b"{}", b"{}", b"{}"])
        assert session.seal(frames[2:6]) == frames, "as often as the session likes"
    for _ in range(2):
        with pytest.raises(WireError) as caught:
            session.read_untrusted([b"stranger", *frames[:6], b"other"])
        assert caught.value.kind == "replayed"
    assert make_session().read_untrusted(frames).frames == frames


def test_what_is_only_signed_is_not_noted() -> None:
    session = make_session()
    parts: list[Buffer] = [b'{"msg_id": "1", "msg_type": "x"}', b"{}", b"{}", b"{}"]
    assert session.sign(parts) == make_session().seal(parts)
    assert session.write("x", {}, noted=False)
    assert len(session.replays) == 0


def test_some_messages_are_remembered_longer_than_others() -> None:
    session = make_session()
    session.replays = ReplayWindow(1)
    query, noted, kept = sealed(session), sealed(session), sealed(session)
    session.read_untrusted(query, lasting=True)
    session.note(noted, lasting=True)
    session.remember_lasting(session.read_untrusted(kept))
    for _ in range(5):
        session.read_untrusted(sealed(session))
    for frames in (query, noted, kept):
        with pytest.raises(WireError) as caught:
            session.read_untrusted(frames, lasting=True)
        assert caught.value.kind == "replayed"
    session.read_untrusted(sealed(session), lasting=True)


def test_a_replayed_message_is_refused() -> None:
    session = make_session()
    frames = sealed(session)
    session.read_untrusted(frames)
    with pytest.raises(WireError) as caught:
        session.read_untrusted([b"another identity", *frames])
    assert caught.value.kind == "replayed"


@pytest.mark.parametrize("replace", [(2, b'{"msg_id":"x","msg_type":"y"}'), (3, b"[]"), (4, b"[]"), (5, b"[]")])
def test_a_forged_message_does_not_block_the_genuine_one(replace: tuple[int, bytes]) -> None:
    session = make_session()
    genuine = sealed(session)
    index, part = replace
    forged: list[Any] = [*genuine]  # the forged messages have the genuine signature
    forged[index] = part
    for _ in range(2):
        with pytest.raises(WireError) as caught:
            session.read_untrusted(forged)
        assert caught.value.kind == "bad_signature"
    assert len(session.replays) == 0, "nor does it fill the window"
    assert session.read_untrusted(genuine).header.msg_type == "apply_request"
    assert len(session.replays) == 1


def test_without_a_key_nothing_is_a_replay() -> None:
    session = make_session(key=b"")
    frames = sealed(session)
    assert session.read_untrusted(frames).header == session.read_untrusted(frames).header
    assert len(session.replays) == 0
