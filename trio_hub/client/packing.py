"""Packs calls and unpacks results as engines do: a pickle, followed by frames with large buffers.

An engine replaces large items of a container by objects of its own classes, and sends their buffers in separate frames.
This module has classes with the same names, so that no engine code is needed to pack a call or to unpack a result.
"""

from __future__ import annotations

import io
import pickle  # noqa: TID251 - a client trusts the results of its engines
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import lru_cache
from importlib import import_module
from itertools import accumulate
from typing import Any

from ..errors import SerializationError
from ..wire.frames import Buffer, Frames

_Pickler: type[pickle.Pickler]
try:
    _Pickler = import_module("cloudpickle").Pickler  # not an import statement: it has no types, and may be absent
except ImportError:
    _Pickler = pickle.Pickler
    _BY_VALUE = False
else:
    _BY_VALUE = True

__all__ = [
    "LARGE_BUFFER",
    "PackedFunction",
    "pack_call",
    "pack_function",
    "unpack_value_untrusted",
    "unpack_values_untrusted",
]

LARGE_BUFFER = 1024
"""Buffers of more bytes than this are sent in separate frames. Engines use the same size."""
_MAX_ITEMS = 64
"""An engine does not look into a container of this many items or more."""
_STOCK = "ipyparallel.serialize.canning"
_PROTOCOL = pickle.DEFAULT_PROTOCOL  # an engine's Python may be older than this one
_PLAIN = frozenset((int, float, str, bool, bytes, type(None)))
"""Types whose values every pickler writes in the same way."""

PackedFunction = Frames


class _Canned:
    """An object in the form in which engines exchange it. ``buffers`` are its data; None for a buffer in a frame."""

    buffers: list[Any]

    def get_object(self) -> Any:
        raise NotImplementedError


class CannedBytes(_Canned):
    def __init__(self, data: bytes) -> None:
        self.buffers = [data]

    def get_object(self) -> bytes:
        return bytes(self.buffers[0])


class CannedMemoryView(_Canned):
    def __init__(self, data: memoryview) -> None:
        self.buffers = [pickle.PickleBuffer(data).raw() if data.c_contiguous else memoryview(data.tobytes())]

    def get_object(self) -> memoryview:
        return memoryview(self.buffers[0])


class CannedArray(_Canned):
    """A numpy array. An unpacked array shares the memory in which it was received, and is read-only."""

    def __init__(self, array: Any, data: memoryview) -> None:
        self.shape = array.shape
        self.dtype = array.dtype.descr if array.dtype.fields else array.dtype.str
        self.pickled = False
        self.buffers = [data]

    def get_object(self) -> Any:
        data = self.buffers[0]
        if self.pickled:
            return pickle.loads(data)
        numpy: Any = import_module("numpy")
        return numpy.frombuffer(data, dtype=self.dtype).reshape(self.shape)


class CannedObject(_Canned):
    """Any object. The engine uses it as it is, and does not look into it."""

    def __init__(self, obj: Any) -> None:
        self.keys: list[str] = []
        self.obj = obj
        self.hook = None
        self.buffers = []

    def get_object(self) -> Any:
        return self.obj


_STAND_INS: dict[str, type[_Canned]] = {
    cls.__name__: cls for cls in (CannedArray, CannedBytes, CannedMemoryView, CannedObject)
}


class _StockModule:
    """A reference to the engine's module, for the pickle. The module need not be installed here."""

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[str]]:
        return import_module, (_STOCK,)


class _CallPickler(_Pickler):  # type: ignore[misc,valid-type,unused-ignore]
    def reducer_override(self, obj: Any) -> Any:
        if isinstance(obj, type) and obj in _STAND_INS.values():
            return getattr, (_StockModule(), obj.__name__)
        if _BY_VALUE:
            return super().reducer_override(obj)
        return NotImplemented


class _ResultUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if module == _STOCK and name in _STAND_INS:
            return _STAND_INS[name]
        return super().find_class(module, name)


# Writing


def pack_function(function: Callable[..., Any]) -> PackedFunction:
    """Return a function in packed form, for `pack_call`. A function that is called often need be packed only once.

    Raises:
        SerializationError: The function cannot be pickled.
    """
    name = getattr(function, "__qualname__", repr(function))
    if not _BY_VALUE and getattr(function, "__module__", None) == "__main__":
        raise SerializationError(
            f"function {name} is defined in __main__, where engines do not find it: put it into a module that engines "
            "can import, or install cloudpickle on clients and engines"
        )
    remedy = (
        "everything that the function refers to must be picklable"
        if _BY_VALUE
        else "put it at the top of a module that engines can import, or install cloudpickle on clients and engines"
    )
    return [_pickled(function, f"function {name}", remedy)]


def pack_call(function: PackedFunction, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Frames:
    """Return the buffers of an ``apply_request``.

    Raises:
        SerializationError: An argument cannot be pickled. The text names the argument.
    """
    buffers: Frames = []
    for place, arg in enumerate(args):
        buffers += _pack_value(arg, place)
    arg_bufs = len(buffers)
    names = sorted(kwargs)
    for name in names:
        buffers += _pack_value(kwargs[name], name)
    return [*function, _call_info(len(args), arg_bufs, tuple(names)), *buffers]


@lru_cache
def _call_info(nargs: int, narg_bufs: int, names: tuple[str, ...]) -> bytes:
    """Return the part of a call that says how many arguments and buffers follow: mostly the same for many calls."""
    return pickle.dumps({"nargs": nargs, "narg_bufs": narg_bufs, "kw_keys": [*names]}, _PROTOCOL)


def _pack_value(value: Any, which: int | str) -> Frames:
    """Return the buffers of an argument. Errors name the argument by its place or its name, which is `which`."""
    kind = type(value)
    if kind in _PLAIN and kind is not bytes:
        return [pickle.dumps(value, _PROTOCOL)]
    buffers: Frames = []
    packed: Any
    if kind in (list, tuple) and len(value) < _MAX_ITEMS:
        packed = kind(_take_out(item, buffers) for item in value)
    elif kind is dict and len(value) < _MAX_ITEMS:
        try:
            packed = {key: _take_out(value[key], buffers) for key in sorted(value)}
        except TypeError:  # the keys cannot be sorted, as an engine would do
            packed, buffers = CannedObject(value), []
    else:
        packed = _take_out(value, buffers)
    return [_pickled(packed, f"argument {which!r}", "pass a picklable object"), *buffers]


def _take_out(value: Any, buffers: Frames) -> Any:
    """Return the value, or an object in its place whose buffer is appended to ``buffers``."""
    canned = _canned(value)
    if canned is None:
        return value
    data = canned.buffers[0]
    if len(data) > LARGE_BUFFER:
        buffers.append(data)
        canned.buffers[0] = None
    else:
        canned.buffers[0] = bytes(data)
    return canned


def _canned(value: Any) -> _Canned | None:
    kind = type(value)
    if kind is bytes:
        return CannedBytes(value) if len(value) > LARGE_BUFFER else None
    if kind is memoryview:
        return CannedMemoryView(value)
    numpy: Any = sys.modules.get("numpy")
    if numpy is None or kind is not numpy.ndarray or value.nbytes <= LARGE_BUFFER or value.dtype.hasobject:
        return None
    try:
        return CannedArray(value, pickle.PickleBuffer(numpy.ascontiguousarray(value)).raw())
    except (BufferError, ValueError):  # such as an array of dates, which has no buffer: it is pickled as a whole
        return None


def _pickled(value: Any, what: str, remedy: str) -> bytes:
    if type(value) in _PLAIN:  # our own pickler costs ten times as much
        return pickle.dumps(value, _PROTOCOL)
    into = io.BytesIO()
    try:
        _CallPickler(into, _PROTOCOL).dump(value)
    except Exception as error:  # the value's own methods may raise anything
        raise SerializationError(f"{what} cannot be pickled ({type(error).__name__}: {error}): {remedy}") from error
    return into.getvalue()


# Reading


def unpack_value_untrusted(buffers: Sequence[Buffer]) -> Any:
    """Return the value in the buffers of a reply. This unpickles, so the buffers must come from a trusted engine.

    Raises:
        SerializationError: The value cannot be unpickled here. No other error is raised.
    """
    try:
        pickled, *rest = buffers
        left = iter(rest)
        if type(pickled) is bytes and b"ipyparallel" not in pickled:
            canned = pickle.loads(pickled)  # it names no class that `_ResultUnpickler` would have to find
            if type(canned) in _PLAIN:
                return canned
        else:
            canned = _ResultUnpickler(io.BytesIO(memoryview(pickled))).load()
        if type(canned) in (list, tuple, set) and len(canned) < _MAX_ITEMS:
            return type(canned)([_restored(item, left) for item in canned])
        if type(canned) is dict and len(canned) < _MAX_ITEMS:
            return {key: _restored(canned[key], left) for key in sorted(canned)}
        return _restored(canned, left)
    except Exception as error:  # unpickling runs code that may raise anything
        raise SerializationError(
            f"the result cannot be read here ({type(error).__name__}: {error}): its classes must be importable here, "
            "too"
        ) from error


def unpack_values_untrusted(buffers: Sequence[Buffer], counts: Sequence[int]) -> list[Any]:
    """Return the values of a gathered broadcast, with so many buffers each. A value without buffers is left out.

    Raises:
        SerializationError: A value cannot be unpickled here. No other error is raised.
    """
    if any(type(count) is not int or count < 0 for count in counts) or sum(counts) != len(buffers):
        raise SerializationError(f"the result has {len(buffers)} buffers, but its metadata has {counts!r}"[:200])
    ends = accumulate(counts)
    return [
        unpack_value_untrusted(buffers[end - count : end]) for count, end in zip(counts, ends, strict=True) if count
    ]


def _restored(value: Any, left: Iterator[Buffer]) -> Any:
    if type(value) is dict:
        return {key: _restored(item, left) for key, item in value.items()}
    if not isinstance(value, _Canned) and not type(value).__module__.startswith("ipyparallel.serialize."):
        return value
    buffers = getattr(value, "buffers", [])
    for place, data in enumerate(buffers):
        if data is None:
            buffers[place] = next(left)
    return value.get_object()
