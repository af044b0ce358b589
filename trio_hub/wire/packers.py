"""Packers: how the dicts of a message become bytes. Connection files name the packer.

`trio_hub.wire.plain` says how values without a form in JSON are packed, and which values a packer refuses.
msgspec decodes the dicts. JSON that msgspec refuses and the standard library accepts (NaN, lone surrogates, a
byte-order mark) is decoded by the standard library, so that the hub reads each message that stock sessions read.
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

# The exceptions that a decoder can raise for arbitrary bytes. Each of them means "malformed".
_MALFORMED = (ValueError, RecursionError, TypeError, OverflowError, MemoryError)
# The exceptions that an encoder raises for values of known types: lone surrogates, large numbers, deep nesting.
_UNPACKABLE = (ValueError, RecursionError, OverflowError)


def _refused(value: Any, why: str) -> str | int:
    """Return the value to write instead of one that msgspec refuses. Raises `TypeError` for unknown types."""
    found = standard(value)
    if found is None:
        raise TypeError(why)
    return found


def _encode_msgpack(value: Any) -> bytes:
    # Stock sessions send dates as text. msgspec would encode them as timestamps, so they are converted to text first.
    return msgspec.msgpack.encode(msgspec.to_builtins(value, builtin_types=(bytes, bytearray, memoryview)))


class Packer:
    """One serialisation of dicts: ``json``, ``orjson`` (which writes the same bytes as ``json``), or ``msgpack``."""

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
        else:  # in MessagePack, a key can be any value
            self._encode_raw = msgspec.msgpack.Encoder().encode
            self._decode_raw = msgspec.msgpack.Decoder(dict[Any, msgspec.Raw]).decode

    def pack(self, value: Any) -> bytes:
        """Pack a value. Dates become ISO 8601 text. In JSON, bytes become base64, and NaN and infinities become null.

        Raises:
            TypeError: The value cannot be packed. No other exception is raised, since the value may be a peer's.
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
        """Return a packed dict with some keys changed or added. The bytes of all other values stay as they are.

        So the dict may contain values that could not be packed again.

        Raises:
            TypeError: A value in `changes` cannot be packed.
            WireError: The bytes are not a dict (``malformed``).
        """
        packed = {key: msgspec.Raw(self.pack(value)) for key, value in changes.items()}
        try:
            return self._encode_raw(self._decode_raw(data) | packed)
        except _MALFORMED as error:
            if self.is_json:
                return _with_members(data, packed)
            raise WireError("malformed", f"not a dict in {self.name}: {str(error)[:200]}") from None

    def packed_part(self, value: Any) -> Any:
        """Pack a value once, so that larger values that contain it are packed quickly. Raises `TypeError`.

        Returns:
            An object to use in place of the value: the packed JSON, or for other packers the value itself.
        """
        return msgspec.Raw(self.pack(value)) if self.is_json else value

    def unpack_untrusted(self, data: bytes) -> Any:
        """Unpack bytes into lists, dicts and plain values. Raises `WireError` (``malformed``)."""
        return self.decoder(Any)(data)

    def decoder(self, wanted: type[T]) -> Callable[[bytes], T]:
        """Return a function that unpacks bytes into `wanted`, or raises `WireError` (``malformed``, ``wrong_type``)."""
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
        """Return a packed dict as JSON text, the form that records store. Raises `WireError`."""
        if self.is_json:
            return data
        try:
            return msgspec.json.encode(self.unpack_untrusted(data))
        except _MALFORMED as error:
            raise WireError("malformed", f"cannot be recorded as JSON: {str(error)[:200]}") from None

    def from_json(self, data: bytes) -> bytes:
        """Return JSON text as a packed dict: the inverse of `to_json`."""
        return data if self.is_json else self.pack(json.loads(data))


def _with_members(data: bytes, members: dict[str, msgspec.Raw]) -> bytes:
    """Return the JSON text of an object with members added at its end. For text that msgspec cannot decode.

    If the object has two members of one name, then all JSON readers that clients and engines use take the last one.
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
    """Return the packer of that name: ``json``, ``orjson`` or ``msgpack``.

    Raises:
        ConfigError: The packer is unknown or unsafe.
    """
    if name in ("json", "orjson", "msgpack"):
        return Packer(name)
    if name == "pickle":
        raise ConfigError(
            "packer 'pickle' is refused: unpickling a header runs any code that the sender has put into it, before "
            "the hub has verified the message. Use json, orjson or msgpack."
        )
    raise ConfigError(f"packer {name!r} is not known: use json, orjson or msgpack")
