"""Multipart messages are divided into their named parts."""

from __future__ import annotations

import pytest

from trio_hub.errors import WireError
from trio_hub.wire.frames import DELIMITER, split_untrusted, to_bytes

BODY = [b"signature", b"header", b"parent", b"metadata", b"content"]


@pytest.mark.parametrize("idents", [[], [b"one"], [b"one", b"", b"\x00three"]])
@pytest.mark.parametrize("buffers", [[], [b""], [b"one", memoryview(b"two")]])
def test_a_message_divides_into_identities_and_body(idents: list[bytes], buffers: list[bytes]) -> None:
    assert split_untrusted([*idents, DELIMITER, *BODY, *buffers]) == (idents, [DELIMITER, *BODY, *buffers])


def test_the_first_delimiter_counts() -> None:
    idents, frames = split_untrusted([b"one", DELIMITER, *BODY, DELIMITER])
    assert idents == [b"one"]
    assert frames == [DELIMITER, *BODY, DELIMITER]


def test_a_delimiter_where_it_lies_in_memory_is_one_too() -> None:
    frames = [memoryview(frame) for frame in (b"one", DELIMITER, *BODY)]
    idents, rest = split_untrusted(frames)
    assert idents == [b"one"]
    assert type(idents[0]) is bytes, "identities are kept, and compared with those of engines"
    assert [to_bytes(frame) for frame in rest] == [DELIMITER, *BODY]


@pytest.mark.parametrize("frames", [[], [b""], BODY, [b"<ids|msg>", *BODY], [DELIMITER + b" ", *BODY]])
def test_no_delimiter(frames: list[bytes]) -> None:
    with pytest.raises(WireError) as caught:
        split_untrusted(frames)
    assert caught.value.kind == "no_delimiter"


@pytest.mark.parametrize("count", range(5))
def test_too_few_frames(count: int) -> None:
    with pytest.raises(WireError, match=f"^{count} frames after the delimiter") as caught:
        split_untrusted([b"many", b"identities", b"are", b"no", b"help", DELIMITER, *BODY[:count]])
    assert caught.value.kind == "too_few_frames"


def test_bytes_are_not_copied() -> None:
    frame = bytes(range(100))
    assert to_bytes(frame) is frame
    assert to_bytes(memoryview(frame)) == frame
