"""Packers: how the dicts of a message become bytes, by the names that connection files give them.

What a packer writes of odd values, and which values it refuses, is the rule in `trio_hub.wire.plain`.
Typed decoding goes through msgspec; what it refuses and the standard library accepts (NaN, lone surrogates,
a byte-order mark) is read by the standard library instead, so that no message is lost to a stricter reader.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, TypeVar

import msgspec

from ..errors import ConfigError, WireError
from .plain import json_text, standard

__all__ = ["Packer", "packer_named"]

T = TypeVar("T")

# Bytes nobody controls can make a decoder raise these; each of them means "malformed".
_MALFORMED = (ValueError, RecursionError, TypeError, OverflowError, MemoryError)
# What an encoder raises for values of types it knows: lone surrogates, numbers too large, nesting too deep.
_UNPACKABLE = (ValueError, RecursionError, OverflowError)


def _refused(value: Any, why: str) -> str | int:
    """An `Instead` for `trio_hub.wire.plain.plain` that refuses what msgspec does not know. Raises `TypeError`."""
    found = standard(value)
    if found is None:
        raise TypeError(why)
    return found


def _encode_msgpack(value: Any) -> bytes:
    # Stock sessions send dates as text. msgspec would make timestamps of them, unless it is made to see text.
    return msgspec.msgpack.encode(msgspec.to_builtins(value, builtin_types=(bytes, bytearray, memoryview)))


class Packer:
    """One serialisation of dicts: ``json`` (also as ``orjson``, the same bytes) or ``msgpack``."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.is_json = name != "msgpack"
        self._encode: Callable[[Any], bytes]
        self._encode = msgspec.json.Encoder().encode if self.is_json else _encode_msgpack
        self._encode_raw: Callable[[dict[Any, msgspec.Raw]], bytes]
        self._decode_raw: Callable[[bytes], dict[Any, msgspec.Raw]]
        if self.is_json:
            self._encode_raw = msgspec.json.Encoder().encode
            self._decode_raw = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
        else:  # in MessagePack, a key need not be a text
            self._encode_raw = msgspec.msgpack.Encoder().encode
            self._decode_raw = msgspec.msgpack.Decoder(dict[Any, msgspec.Raw]).decode

    def pack(self, value: Any) -> bytes:
        """The value as bytes. Dates become ISO 8601 text; in JSON, bytes become base64, NaN and infinities null.

        Raises:
            TypeError: and nothing else, for what cannot be packed (which may well have come from a message).
        """
        try:
            try:
                return self._encode(value)
            except UnicodeEncodeError:  # a lone surrogate: escape it, as the standard library does
                if not self.is_json:
                    raise
                return json_text(value, _refused).encode("ascii")
        except _UNPACKABLE as error:
            raise TypeError(f"cannot be packed as {self.name}: {str(error)[:200]}") from None

    def repacked(self, data: bytes, changes: dict[str, Any]) -> bytes:
        """Return a packed dict with some keys changed or added. All other values stay the bytes that they are.

        So values that could not be unpacked and packed again, which somebody may have sent, do no harm.

        Raises:
            TypeError: a value in `changes` cannot be packed.
            WireError: (``malformed``) the bytes are no dict.
        """
        packed = {key: msgspec.Raw(self.pack(value)) for key, value in changes.items()}
        try:
            return self._encode_raw(self._decode_raw(data) | packed)
        except _MALFORMED as error:
            if self.is_json:
                return _with_members(data, packed)
            raise WireError("malformed", f"not a dict in {self.name}: {str(error)[:200]}") from None

    def packed_part(self, value: Any) -> Any:
        """What takes the place of a value in a larger one, so that packing that one is quick. Raises `TypeError`.

        Only JSON can be put together so; else it is the value itself.
        """
        return msgspec.Raw(self.pack(value)) if self.is_json else value

    def unpack_untrusted(self, data: bytes) -> Any:
        """The plain value in the bytes. Raises `WireError` (``malformed``)."""
        return self.decoder(Any)(data)

    def decoder(self, wanted: type[T]) -> Callable[[bytes], T]:
        """A function from bytes to `wanted`, which raises `WireError` (``malformed``, ``wrong_type``) only."""
        decode = msgspec.json.Decoder(wanted).decode if self.is_json else msgspec.msgpack.Decoder(wanted).decode

        def decode_untrusted(data: bytes) -> T:
            try:
                return decode(data)
            except _MALFORMED:
                return self._decode_slowly(data, wanted)

        return decode_untrusted

    def _decode_slowly(self, data: bytes, wanted: type[T]) -> T:
        try:
            value = json.loads(data.decode("utf-8-sig", "replace")) if self.is_json else msgspec.msgpack.decode(data)
        except _MALFORMED as error:
            raise WireError("malformed", f"not {self.name}: {str(error)[:200]}") from None
        try:
            return msgspec.convert(value, wanted)
        except _MALFORMED as error:
            raise WireError("wrong_type", f"unexpected contents: {str(error)[:200]}") from None

    def to_json(self, data: bytes) -> bytes:
        """The packed dict as JSON text, which is how records keep it. Raises `WireError`."""
        if self.is_json:
            return data
        try:
            return msgspec.json.encode(self.unpack_untrusted(data))
        except _MALFORMED as error:
            raise WireError("malformed", f"cannot be recorded as JSON: {str(error)[:200]}") from None

    def from_json(self, data: bytes) -> bytes:
        """The inverse of `to_json`."""
        return data if self.is_json else self.pack(json.loads(data))


def _with_members(data: bytes, members: dict[str, msgspec.Raw]) -> bytes:
    """Return JSON text of an object, which msgspec does not read, with members added at its end.

    If the object has a member of the same name already, then all readers that clients and engines use take the last.
    """
    text = data.rstrip(b" \t\r\n")
    begin = text.removeprefix(b"\xef\xbb\xbf").lstrip(b" \t\r\n")
    if not (begin.startswith(b"{") and begin.endswith(b"}") and len(begin) > 1):
        raise WireError("malformed", "not a dict in json")
    if not members:
        return data
    inside = text[:-1].rstrip(b" \t\r\n")
    added = msgspec.json.encode(members)[1:]
    return inside + (b"" if inside.endswith(b"{") and len(begin[1:-1].strip()) == 0 else b",") + added


def packer_named(name: str) -> Packer:
    """The packer that a connection file names.

    Raises:
        ConfigError: for a packer that is unknown, or unsafe.
    """
    if name in ("json", "orjson", "msgpack"):
        return Packer(name)
    if name == "pickle":
        raise ConfigError(
            "packer 'pickle' is refused: unpickling a header runs whatever code the sender put into it, before "
            "anything about the message is known. Use json, orjson or msgpack."
        )
    raise ConfigError(f"packer {name!r} is not known: use json, orjson or msgpack")
