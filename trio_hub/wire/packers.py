"""Packers: how the dicts of a message become bytes, by the names that connection files give them.

Typed decoding goes through msgspec; what it refuses and the standard library accepts (NaN, lone surrogates,
a byte-order mark) is read by the standard library instead, so that no message is lost to a stricter reader.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, TypeVar

import msgspec

from ..errors import ConfigError, WireError

__all__ = ["Packer", "packer_named"]

T = TypeVar("T")

# Bytes nobody controls can make a decoder raise these; each of them means "malformed".
_MALFORMED = (ValueError, RecursionError, TypeError, OverflowError, MemoryError)
# What an encoder raises for values of types it knows: lone surrogates, numbers too large, nesting too deep.
_UNPACKABLE = (ValueError, RecursionError, OverflowError)


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
                plain = msgspec.to_builtins(value, str_keys=True)
                return json.dumps(plain).encode("ascii")
        except _UNPACKABLE as error:
            raise TypeError(f"cannot be packed as {self.name}: {str(error)[:200]}") from None

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
