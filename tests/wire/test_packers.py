"""Packers: values that they read although stricter readers refuse them, and values that they refuse."""

from __future__ import annotations

import contextlib
import json
import math
from base64 import b64encode
from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trio_hub.errors import ConfigError, WireError
from trio_hub.wire.messages import Header, TaskMetadata
from trio_hub.wire.packers import Packer, packer_named

from .making import NOON, PACKERS
from .odd import HUGE, odd_json_values, odd_values

JSON = packer_named("json")
MSGPACK = packer_named("msgpack")

texts = st.text(st.characters(codec="utf-8"))
scalars = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | texts
)
values = st.recursive(scalars, lambda inner: st.lists(inner) | st.dictionaries(texts, inner), max_leaves=20)


# Names


def test_pickle_is_refused_with_the_reason() -> None:
    with pytest.raises(ConfigError, match="'pickle' is refused: unpickling a header runs any code"):
        packer_named("pickle")


@pytest.mark.parametrize("name", ["", "JSON", "yaml", "msgpack.packb", "ipykernel.jsonutil.json"])
def test_an_unknown_packer_is_refused_by_name(name: str) -> None:
    with pytest.raises(ConfigError, match=f"{name!r} is not known: use json, orjson or msgpack"):
        packer_named(name)


# There and back


@given(value=values)
@pytest.mark.parametrize("name", PACKERS)
@pytest.mark.property
def test_what_is_packed_is_unpacked(name: str, value: Any) -> None:
    packer = packer_named(name)
    data = packer.pack(value)
    assert packer.unpack_untrusted(data) == value
    assert packer.unpack_untrusted(packer.from_json(packer.to_json(data))) == value
    assert json.loads(packer.to_json(data)) == value


@pytest.mark.parametrize("name", PACKERS)
def test_dates_travel_as_text_in_utc(name: str) -> None:
    packer = packer_named(name)
    value = {"date": NOON, "dates": [NOON.replace(tzinfo=None), NOON.replace(microsecond=1)]}
    assert packer.unpack_untrusted(packer.pack(value)) == {
        "date": "2026-05-01T12:00:00Z",
        "dates": ["2026-05-01T12:00:00", "2026-05-01T12:00:00.000001Z"],
    }


@pytest.mark.parametrize("name", PACKERS)
def test_tuples_and_sets_travel_as_lists(name: str) -> None:
    packer = packer_named(name)
    assert packer.unpack_untrusted(packer.pack([(1, 2), {3}, frozenset((4,))])) == [[1, 2], [3], [4]]


def test_bytes_are_base64_in_json_and_bytes_in_msgpack() -> None:
    for data in (b"\x00\xff", bytearray(b"\x00\xff"), memoryview(b"\x00\xff")):
        assert JSON.unpack_untrusted(JSON.pack([data])) == [b64encode(data).decode()]
        assert MSGPACK.unpack_untrusted(MSGPACK.pack([data])) == [b"\x00\xff"]


def test_numbers_that_json_does_not_have_are_null() -> None:
    assert JSON.pack([math.nan, math.inf, -math.inf]) == b"[null,null,null]"


def test_a_lone_surrogate_is_escaped_and_nothing_else_changes() -> None:
    value: dict[Any, Any] = {1: "\ud800", "date": NOON, "set": {1}, "data": b"\xff"}
    packed = JSON.unpack_untrusted(JSON.pack(value))
    assert packed.pop("1") == "\ud800"
    del value[1]
    assert packed == JSON.unpack_untrusted(JSON.pack(value))


def test_a_lone_surrogate_changes_nothing_about_nan_or_parts() -> None:
    value = {"a": [math.nan, "\ud800"], "b": JSON.packed_part({"c": [1.5, "\udfff"]})}
    assert JSON.pack(value) == b'{"a": [null, "\\ud800"], "b": {"c": [1.5, "\\udfff"]}}'


@given(value=odd_values)
@pytest.mark.parametrize("name", PACKERS)
@pytest.mark.property
def test_whatever_it_is_it_is_packed_or_a_type_error(name: str, value: Any) -> None:
    packer = packer_named(name)
    try:
        data = packer.pack({"value": value})
    except TypeError:
        return
    unpacked = packer.unpack_untrusted(data)
    assert repr(packer.unpack_untrusted(packer.pack(unpacked))) == repr(unpacked)
    with contextlib.suppress(WireError):  # extension types are refused
        json.loads(packer.to_json(data), parse_constant=pytest.fail)


class Unknown:
    pass


def nested(depth: int) -> list[Any]:
    value: list[Any] = []
    for _ in range(depth):
        value = [value]
    return value


UNPACKABLE = {
    "json": {
        "class": Unknown(),
        "tuple as key": {(1, 2): 3},
        "None as key": {None: 1},
        "surrogate, class": ["\ud800", Unknown()],
        "surrogate, tuple as key": ["\ud800", {(1, 2): 3}],
    },
    "msgpack": {"class": Unknown(), "surrogate": "\ud800", "large": 2**64, "small": -(2**63) - 1},
}


@pytest.mark.parametrize(("name", "what"), [(name, what) for name, cases in UNPACKABLE.items() for what in cases])
def test_what_cannot_be_packed_is_a_type_error(name: str, what: str) -> None:
    with pytest.raises(TypeError):
        packer_named(name).pack(UNPACKABLE[name][what])


@pytest.mark.parametrize("name", PACKERS)
@pytest.mark.parametrize("surrogate", [False, True])
def test_what_is_nested_too_deep_is_a_type_error(name: str, surrogate: bool) -> None:
    with pytest.raises(TypeError):
        packer_named(name).pack(["\ud800" if surrogate else "", nested(100_000)])


# Changing some keys


CHANGES = {"retries": 2, "attempt": "s_1"}


@pytest.mark.parametrize(
    "text",
    [
        b"{}",
        b" { } ",
        b'{"retries":1}',
        b'{"x": 1e999, "retries": 1}',
        b'{"x":NaN , "y":[-Infinity]}\n',
        b'{"x":["\\udcff",{"\\ud800":1}]}',
        b'{"x":"\xff","retries":1}',
        b'\xef\xbb\xbf {"x":1}',
        b"\xef\xbb\xbf{}",
        b'{"x":"}{"}',
        b'{"x":' + b"[" * 900 + b"]" * 900 + b"}",
    ],
)
def test_some_keys_of_json_are_changed(text: bytes) -> None:
    changed = JSON.repacked(text, CHANGES)
    assert repr(JSON.unpack_untrusted(changed)) == repr(JSON.unpack_untrusted(text) | CHANGES)
    assert JSON.decoder(TaskMetadata)(changed).retries == 2
    again = JSON.repacked(changed, {"retries": 1})
    assert JSON.decoder(TaskMetadata)(again).retries == 1


def test_what_cannot_be_read_is_kept_when_other_keys_are_changed() -> None:
    huge = b"1" * 5000
    deep = b"[" * 100_000 + b"]" * 100_000
    for value in (huge, b"[NaN," + huge + b"]", deep):
        changed = JSON.repacked(b'{"retries": 1, "x": ' + value + b"}", CHANGES)
        assert value in changed
        assert b'"retries":2' in changed
        assert changed.endswith((b"}", b"]}"))
    assert JSON.decoder(TaskMetadata)(JSON.repacked(b'{"retries": 1, "x": ' + huge + b"}", CHANGES)).retries == 2


@given(value=st.dictionaries(st.sampled_from(["retries", "x", ""]), odd_json_values, max_size=3))
@pytest.mark.property
def test_whatever_the_others_are_some_keys_are_changed(value: dict[str, Any]) -> None:
    data = json.dumps(value).encode()
    assert repr(JSON.unpack_untrusted(JSON.repacked(data, CHANGES))) == repr(JSON.unpack_untrusted(data) | CHANGES)
    assert repr(JSON.unpack_untrusted(JSON.repacked(data, {}))) == repr(JSON.unpack_untrusted(data))


def test_some_keys_of_msgpack_are_changed_and_extensions_stay() -> None:
    value = {"retries": 1, "ext": msgspec.msgpack.Ext(5, b"x"), 3: NOON, b"key": b"value", (1, 2): 2**64 - 1}
    changed = msgspec.msgpack.decode(MSGPACK.repacked(msgspec.msgpack.encode(value), CHANGES))
    assert changed.pop("ext") == value.pop("ext")
    assert changed == value | CHANGES


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("json", b""),
        ("json", b"[]"),
        ("json", b"{"),
        ("json", b"}"),
        ("json", b"NaN"),
        ("msgpack", b""),
        ("msgpack", b"\x90"),
        ("msgpack", b"\x81\xa1a"),
        ("msgpack", b"\x81\x81\x01\x01\x01"),
    ],
)
def test_only_keys_of_a_dict_can_be_changed(name: str, data: bytes) -> None:
    with pytest.raises(WireError) as caught:
        packer_named(name).repacked(data, CHANGES)
    assert caught.value.kind == "malformed"


def test_a_change_that_cannot_be_packed_is_a_type_error() -> None:
    for packer in (JSON, MSGPACK):
        with pytest.raises(TypeError):
            packer.repacked(packer.pack({}), {"retries": HUGE})


def test_retries_have_64_bits() -> None:
    assert JSON.decoder(TaskMetadata)(b'{"retries":9223372036854775807}').retries == 2**63 - 1
    with pytest.raises(WireError) as caught:
        JSON.decoder(TaskMetadata)(b'{"retries":9223372036854775808}')
    assert caught.value.kind == "wrong_type"


# Reading what stricter readers refuse


@pytest.mark.parametrize(
    ("text", "label"),
    [
        (b'{"label":"plain"}', "plain"),
        (b'{"label":Infinity}', math.inf),
        (b'{"label":-Infinity}', -math.inf),
        (b'{"label":"\\ud800"}', "\ud800"),
        (b'{"label":"\\udc00\\ud800"}', "\udc00\ud800"),
        (b'{"label":"\xff"}', "\ufffd"),
        (b'{"label":"\xed\xa0\x80"}', "\ufffd\ufffd\ufffd"),
        (b'\xef\xbb\xbf{"label":1}', 1),
        (b'{"label":1e999}', math.inf),
        (b'{"label":' + b"1" * 4000 + b"}", int("1" * 4000)),
        (b'{"label":-18446744073709551617}', -18446744073709551617),
        (b' {"label" :\t1,\n"label":2}\r\n', 2),
        (b'{"\xff":NaN, "label": [NaN]}', None),
    ],
)
def test_json_that_the_standard_library_reads_is_read(text: bytes, label: Any) -> None:
    metadata = JSON.decoder(TaskMetadata)(text)
    if label is None:
        assert math.isnan(metadata.label[0])
    else:
        assert metadata.label == label
    assert JSON.decoder(dict[str, Any])(text).keys() >= {"label"}


def test_fields_that_nobody_asks_for_may_be_anything() -> None:
    text = b'{"x":' + b"9" * 5000 + b',"y":NaN,"retries":3}'
    with pytest.raises(WireError):
        JSON.unpack_untrusted(text)
    assert JSON.decoder(TaskMetadata)(text.replace(b"NaN", b"1")).retries == 3


pieces = [b"{", b"}", b"[", b"]", b":", b",", b'"', b'"a"', b"\\", b"\\u", b"d800", b"dc00", b"0", b"-", b"."]
pieces += [b"e", b"9" * 30, b"NaN", b"Infinity", b"true", b"null", b" ", b"\xc3\xa9", b"\xff", b"\xef\xbb\xbf"]
json_texts = st.lists(st.sampled_from(pieces), max_size=12).map(b"".join)
strings = json_texts.map(lambda text: b'{"a":"' + text.replace(b'"', b"") + b'"}')


@given(json_texts | strings)
@pytest.mark.property
def test_json_is_read_as_the_standard_library_reads_it(text: bytes) -> None:
    try:
        wanted = json.loads(text.decode("utf-8-sig", "replace"))
    except ValueError:
        with pytest.raises(WireError) as caught:
            JSON.unpack_untrusted(text)
        assert caught.value.kind == "malformed"
    else:
        assert repr(JSON.unpack_untrusted(text)) == repr(wanted)  # the repr, for NaN and -0.0


# Reading what nobody can


@pytest.mark.parametrize(
    "text",
    [b"", b"{", b"{}}", b"\x80", b"nonsense", b"[" * 100_000, b'{"a":' * 100_000, b"\xff\xfe{\x00}\x00"],
)
def test_malformed_json(text: bytes) -> None:
    for decode in (JSON.unpack_untrusted, JSON.decoder(dict[str, Any])):
        with pytest.raises(WireError) as caught:
            decode(text)
        assert caught.value.kind == "malformed"
        assert len(str(caught.value)) < 300


@pytest.mark.parametrize(
    "data",
    [b"", b"\xc1", b"\x80\x80", b"\xa1\xff", b"\xdd\xff\xff\xff\xff", b"\xdf\xff\xff\xff\xff\xa1a", b"\x91" * 100_000],
)
def test_malformed_msgpack(data: bytes) -> None:
    with pytest.raises(WireError) as caught:
        MSGPACK.unpack_untrusted(data)
    assert caught.value.kind == "malformed"


@pytest.mark.parametrize("name", PACKERS)
@pytest.mark.parametrize(
    "value",
    [None, [], 1, "text", {}, {"msg_id": "x"}, {"msg_id": 1, "msg_type": "y"}, {"msg_id": "x", "msg_type": None}],
)
def test_wrong_types(name: str, value: Any) -> None:
    packer = packer_named(name)
    with pytest.raises(WireError) as caught:
        packer.decoder(Header)(packer.pack(value))
    assert caught.value.kind == "wrong_type"


@pytest.mark.parametrize(
    "text", [b'{"x":NaN,"retries":1.5}', b'{"x":NaN,"targets":"ab"}', b'{"x":NaN,"timeout":' + b"9" * 400 + b"}"]
)
def test_wrong_types_are_seen_by_the_slow_way_as_well(text: bytes) -> None:
    with pytest.raises(WireError) as caught:
        JSON.decoder(TaskMetadata)(text)
    assert caught.value.kind == "wrong_type"


def test_msgpack_keys_that_are_not_text() -> None:
    for value in ({1: 2}, {b"a": 1}):
        with pytest.raises(WireError) as caught:
            MSGPACK.decoder(dict[str, Any])(msgspec.msgpack.encode(value))
        assert caught.value.kind == "wrong_type"


# JSON for the records


def test_json_is_recorded_as_it_came() -> None:
    data = b' {"a" : NaN}'
    assert JSON.to_json(data) is data
    assert JSON.from_json(data) is data


@pytest.mark.parametrize(
    "data",
    [b"\xc1", msgspec.msgpack.encode({"a": msgspec.msgpack.Ext(5, b"x")}), msgspec.msgpack.encode({(1, 2): 3})],
)
def test_msgpack_that_cannot_be_recorded(data: bytes) -> None:
    with pytest.raises(WireError) as caught:
        MSGPACK.to_json(data)
    assert caught.value.kind == "malformed"


def test_msgpack_is_recorded_as_json() -> None:
    data = msgspec.msgpack.encode({"date": datetime(2026, 1, 1, tzinfo=UTC), "data": b"\xff", 1: math.nan})
    assert json.loads(MSGPACK.to_json(data)) == {"date": "2026-01-01T00:00:00Z", "data": "/w==", "1": None}


def test_packers_name_themselves() -> None:
    assert [Packer(name).name for name in PACKERS] == PACKERS
    assert [Packer(name).is_json for name in PACKERS] == [True, True, False]
