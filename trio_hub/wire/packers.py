"""Packers: how the dicts of a message become bytes, by the names that connection files give them.

Typed decoding goes through msgspec; what it refuses and the standard library accepts (NaN, lone surrogates,
a byte-order mark) is read by the standard library instead, so that no message is lost to a stricter reader.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import datetime
from typing import Any, TypeVar

import msgspec

from ..errors import ConfigError, WireError

__all__ = ["Packer", "packer_named"]

T = TypeVar("T")

# Bytes nobody controls can make a decoder raise these; each of them means "malformed".
_MALFORMED = (ValueError, RecursionError, TypeError, OverflowError, MemoryError)


def _encode_extra(value: Any) -> Any:
    if isinstance(value, (bytes, memoryview)):
        raise TypeError("bytes do not belong into JSON; send them as buffers")
    if isinstance(value, (set, frozenset, tuple)):
        return list(value)
    raise TypeError(f"{type(value).__name__} cannot be packed")


def _stdlib_default(value: Any) -> Any:
    return value.isoformat() if isinstance(value, datetime) else _encode_extra(value)


class Packer:
    """One serialisation of dicts: ``json`` (also as ``orjson``, the same bytes) or ``msgpack``."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.is_json = name != "msgpack"
        self._encode: Callable[[Any], bytes]
        if self.is_json:
            self._encode = msgspec.json.Encoder(enc_hook=_encode_extra).encode
        else:
            self._encode = msgspec.msgpack.Encoder(enc_hook=_encode_extra).encode

    def pack(self, value: Any) -> bytes:
        """The value as bytes. Dates become ISO 8601 text. Raises `TypeError` for what cannot be packed."""
        try:
            return self._encode(value)
        except UnicodeEncodeError:  # a lone surrogate: escape it, as the standard library does
            if not self.is_json:
                raise
            return json.dumps(value, default=_stdlib_default).encode("ascii")

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
            if self.is_json:
                value = json.loads(data.decode("utf-8-sig", "replace"))
            else:
                value = msgspec.msgpack.decode(data)
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
