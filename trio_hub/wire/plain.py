r"""Plain values: one rule for writing any value as JSON, in the whole hub.

Clients and engines may send any value. Some values have no form in JSON, or none that every reader accepts. The hub,
its records, its dashboard and its command write these values as follows:

===============================  ======================================================================================
value                            what is written
===============================  ======================================================================================
a lone surrogate                 its escape, ``\udcff``, which JSON readers read as the same lone surrogate;
                                 two that follow each other are read as the character they make
NaN and infinities               ``null``
an integer of > 4,300 digits     for people: a text that says so; in a message: the value is refused
a MessagePack extension          for people: a text with its type and size; in a message: the value is refused
nesting beyond `MAX_DEPTH`       for people: a text that says so; in a message: the value is refused
another object                   for people: a text that names its class; in a message: the value is refused
===============================  ======================================================================================

"For people" means on the dashboard and in the command's output, which are written with `json_bytes` and `json_text`;
these functions never fail. Messages are packed by `trio_hub.wire.packers.Packer.pack`, which refuses such a value with
a `TypeError`. MessagePack has no form for lone surrogates and for integers beyond 64 bits, so `Packer.pack` refuses
these too. The hub relays and records bytes without decoding them, so it never replaces a value in them.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import fields, is_dataclass
from typing import Any, TypeAlias

import msgspec

__all__ = ["MAX_DEPTH", "described", "json_bytes", "json_text", "plain", "printable", "standard"]

MAX_DEPTH = 200
"""The number of levels of nested lists and dicts that `plain` writes."""

Instead: TypeAlias = Callable[[Any, str], Any]
"""A function that is given a value without a form in JSON, and the reason. It returns a plain value to write instead,
or raises an exception."""

_encode = msgspec.json.Encoder().encode


def json_bytes(value: Any) -> bytes:
    """Return a value as JSON for people to read. Never fails: see the rule in this module's docstring."""
    try:
        return _encode(value)  # works for nearly all values, and is many times faster
    except Exception:
        return json_text(value).encode("ascii")


def json_text(value: Any, instead: Instead | None = None) -> str:
    """Return a value as JSON text in ASCII. Fails only if `instead` does; by default that is `described`."""
    return json.dumps(plain(value, instead or described), allow_nan=False)


def printable(text: str) -> str:
    """Return a text with each lone surrogate as its escape, so that the text can be written as UTF-8."""
    return text if text.isascii() else text.encode("utf-8", "backslashreplace").decode()


def plain(value: Any, instead: Instead, depth: int = 0) -> Any:
    """Return a value as None, bool, int, finite float, str, list and dict with texts as keys, which JSON can hold.

    Args:
        value: Anything.
        instead: Called for each value within `value` that has no form in JSON.
        depth: The levels of lists and dicts around the value.
    """
    match value:
        case None | bool():
            return value
        case str():
            return str.__str__(value)
        case int():
            return int(value) if _is_writable(value) else instead(value, "an integer of too many digits")
        case float():
            return float(value) if math.isfinite(value) else None
        case _ if depth > MAX_DEPTH:
            return instead(value, "nested too deep")
        case msgspec.Raw():
            return plain(json.loads(bytes(value)), instead, depth)
        case msgspec.Struct():
            value = msgspec.structs.asdict(value)
        case _ if is_dataclass(value) and not isinstance(value, type):
            value = {field.name: getattr(value, field.name) for field in fields(value)}
    if isinstance(value, dict):
        return {_key(key, instead): plain(item, instead, depth + 1) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(item, instead, depth + 1) for item in value]
    return instead(value, f"a value of type {type(value).__name__}")


def described(value: Any, why: str) -> str | int:
    """Return the form that `standard` gives a value; if there is none, a text that describes it. An `Instead`."""
    found = standard(value)
    if found is not None:
        return found
    if isinstance(value, msgspec.msgpack.Ext):
        return f"<MessagePack extension {value.code} of {memoryview(value.data).nbytes} bytes>"
    return f"<{why}>"


def standard(value: Any) -> str | int | None:
    """Return a date, UUID, enum, bytes or similar value as msgspec writes it; None for a type unknown to msgspec."""
    if isinstance(value, int | dict | list | tuple | set | frozenset):
        return None
    try:
        found = msgspec.to_builtins(value, str_keys=True)
    except (TypeError, ValueError, RecursionError, OverflowError):
        return None
    return found if isinstance(found, str | int) else None


def _is_writable(number: int) -> bool:
    try:
        str(int(number))
    except ValueError:  # Python limits the digits, see sys.set_int_max_str_digits
        return False
    return True


def _key(key: Any, instead: Instead) -> str:
    match key:
        case str():
            return str.__str__(key)
        case float():
            return str(key)
        case int() if not isinstance(key, bool) and _is_writable(key):
            return str(int(key))
    return str(instead(key, f"a key of type {type(key).__name__}"))
