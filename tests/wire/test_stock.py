"""Stock sessions read what ours write, and the other way round, byte for byte."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from ipyparallel.error import RemoteError, unwrap_exception
from jupyter_client.session import Session as StockSession

from trio_hub.errors import WireError
from trio_hub.wire.messages import Session, error_content, parse_date

from .making import KEY, NOON, PACKERS, make_session

SCHEMES = ["hmac-sha256", "hmac-md5", "hmac-sha512"]


def make_stock(packer: str, key: bytes = KEY, scheme: str = "hmac-sha256") -> StockSession:
    if packer == "msgpack":
        pytest.importorskip("msgpack")
    return StockSession(key=key, packer=packer, unpacker=packer, signature_scheme=scheme, username="user")


each_packer = pytest.mark.parametrize("packer", PACKERS)
keys = pytest.mark.parametrize("key", [KEY, b"", b"k" * 64, b"k" * 65, b"k" * 200], ids=[6, 0, 64, 65, 200])


class Both:
    def __init__(self, packer: str, key: bytes = KEY, scheme: str = "hmac-sha256") -> None:
        self.stock = make_stock(packer, key, scheme)
        self.ours: Session = make_session(key, packer, scheme)

    def from_stock(self, msg_type: str, **parts: Any) -> list[bytes]:
        message = self.stock.msg(msg_type, **parts)
        frames: list[bytes] = self.stock.serialize(message, ident=[b"one", b"two"])
        return frames

    def to_stock(self, frames: list[Any]) -> dict[str, Any]:
        _, body = self.stock.feed_identities(frames)
        message: dict[str, Any] = self.stock.deserialize(body)
        return message


@pytest.mark.parametrize("scheme", SCHEMES)
@keys
@each_packer
def test_ours_reads_stock(packer: str, key: bytes, scheme: str) -> None:
    both = Both(packer, key, scheme)
    parent = both.stock.msg_header("connection_request")
    frames = both.from_stock(
        "apply_request", content={"a": "ü"}, parent=parent, metadata={"targets": ["x"], "retries": 1}
    )
    message = both.ours.read_untrusted([*frames, b"buffer"])
    header = both.stock.unpack(frames[4])
    assert message.idents == [b"one", b"two"]
    assert message.header.msg_id == header["msg_id"]
    assert message.header.session == both.stock.session
    assert message.header.username == "user"
    assert message.parent.msg_id == parent["msg_id"]
    assert both.ours.task_metadata(message).targets == ["x"]
    assert both.ours.content(message) == {"a": "ü"}
    assert message.buffers == [b"buffer"]
    date = parse_date(message.header.date)
    assert date is not None
    assert abs((date - datetime.now(UTC)).total_seconds()) < 60


@pytest.mark.parametrize("scheme", SCHEMES)
@keys
@each_packer
def test_stock_reads_ours(packer: str, key: bytes, scheme: str) -> None:
    both = Both(packer, key, scheme)
    [*_, parent, _, _, _] = request = both.from_stock("apply_request")
    assert both.ours.read_untrusted(request).raw_header == parent
    frames = both.ours.write(
        "apply_reply", {"date": NOON, "x": [1, "ü"]}, parent=parent, metadata={"status": "ok"}, buffers=[b"buffer"]
    )
    message = both.to_stock([b"one", *frames])
    assert message["header"]["msg_type"] == "apply_reply"
    assert parse_date(message["header"]["date"]) == NOON
    assert message["header"]["version"].startswith("5."), "or stock sessions would try to translate it"
    assert message["parent_header"]["msg_id"] == both.stock.unpack(parent)["msg_id"]
    assert message["metadata"] == {"status": "ok"}
    assert message["content"] == {"date": "2026-05-01T12:00:00Z", "x": [1, "ü"]}
    assert bytes(message["buffers"][0]) == b"buffer"


@each_packer
def test_the_same_parts_have_the_same_signature(packer: str) -> None:
    both = Both(packer)
    frames = both.from_stock("apply_request", content={"x": 1.5}, metadata={"y": None})
    assert both.ours.seal(frames[4:]) == frames[2:]


def test_the_same_dicts_have_the_same_bytes() -> None:
    pytest.importorskip("msgpack")
    both = Both("msgpack")
    for value in ({"a": [1, -1, 2**40, 1.5, None, True, "ü" * 40]}, both.ours.new_header("x"), {}):
        assert both.ours.packer.pack(value) == both.stock.pack(value)


@each_packer
def test_both_refuse_the_forged_and_the_replayed(packer: str) -> None:
    both = Both(packer)
    frames = both.from_stock("apply_request")
    other = make_session(b"another key", packer)
    with pytest.raises(WireError, match="signature"):
        other.read_untrusted(frames)
    with pytest.raises(ValueError, match="Invalid Signature"):
        both.to_stock(other.write("apply_request", {}))
    both.ours.read_untrusted(frames)
    with pytest.raises(WireError, match="received before"):
        both.ours.read_untrusted(frames)


texts = st.text(st.characters(codec="utf-8"))
numbers = st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False, allow_infinity=False)
plain = st.recursive(
    st.none() | st.booleans() | numbers | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=5,
)
contents = st.dictionaries(texts, plain, max_size=4)


@given(content=contents)
@each_packer
@pytest.mark.property
def test_any_content_in_both_directions(packer: str, content: dict[str, Any]) -> None:
    both = Both(packer)
    message = both.ours.read_untrusted(both.from_stock("x_request", content=content, metadata=content))
    assert both.ours.content(message) == content
    assert both.to_stock(both.ours.write("x_reply", content))["content"] == content


@pytest.mark.parametrize("packer", ["json", "orjson"])
@pytest.mark.parametrize("text", ["\ud800", "lone \udfff among others"])
def test_lone_surrogates_in_both_directions(packer: str, text: str) -> None:
    """Lone surrogates occur in output, for example in file names that are not UTF-8."""
    both = Both(packer)
    assert both.to_stock(both.ours.write("x_reply", {"text": text}))["content"] == {"text": text}
    header = both.stock.msg_header("stream")
    raw = b'{"text":"' + text.encode("utf-8", "surrogatepass") + b'"}'  # the bytes of the message
    frames = [b"<IDS|MSG>", b"", both.stock.pack(header), b"{}", b"{}", raw]
    frames[1] = both.stock.sign(frames[2:])
    assert both.ours.content(both.ours.read_untrusted(frames)) == both.to_stock(frames)["content"]


@each_packer
def test_errors_are_unwrapped(packer: str) -> None:
    both = Both(packer)
    frames = both.ours.write("apply_reply", error_content("EngineError", "engine 3 died"))
    error = unwrap_exception(both.to_stock(frames)["content"])
    assert isinstance(error, RemoteError)
    assert (error.ename, error.evalue, error.traceback) == (
        "EngineError",
        "engine 3 died",
        "EngineError: engine 3 died",
    )
    assert error.engine_info == {}
    assert "EngineError: engine 3 died" in str(error)
