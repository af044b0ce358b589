"""Calls and results as engines write and read them: pickles, with large buffers in frames of their own behind them.

An engine pickles a container's items one by one, as far as they are large, into objects of its own classes, whose
buffers it sends apart. Those classes have stand-ins here, under the engine's names, so that no engine code is needed
to write a call or to read a result.
"""

from __future__ import annotations

import io
import pickle  # noqa: TID251 - a client trusts its engines, with whose results it is signed up to work
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
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
"""Bytes above which a buffer travels in a frame of its own; engines send theirs from the same size on."""
_MAX_ITEMS = 64
"""Items from which on an engine does not look into a container."""
_STOCK = "ipyparallel.serialize.canning"
_PROTOCOL = pickle.DEFAULT_PROTOCOL  # an engine's Python may be older than this one
_PLAIN = frozenset((int, float, str, bool, bytes, type(None)))
"""Types whose values every pickler writes in the same way."""

PackedFunction = Frames


class _Canned:
    """An object in the form in which engines exchange it: ``buffers`` are its data, None where they travel apart."""

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
    """A numpy array; what is read shares the memory in which it was received, and cannot be written to."""

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
    """Any object, which the engine takes as it is, and does not look into."""

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
    """The engine's module, where it is loaded: here it need not even be installed."""

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
    """A function, in the form that `pack_call` takes: what is called often is to be packed once.

    Raises:
        SerializationError: it cannot be pickled.
    """
    name = getattr(function, "__qualname__", repr(function))
    if not _BY_VALUE and getattr(function, "__module__", None) == "__main__":
        raise SerializationError(
            f"function {name} is defined in __main__, where engines do not find it: put it into a module that they can "
            "import, or install cloudpickle here and there"
        )
    remedy = (
        "what it refers to has to be something that can be sent"
        if _BY_VALUE
        else "put it at the top of a module that engines can import, or install cloudpickle here and there"
    )
    return [_pickled(function, f"function {name}", remedy)]


def pack_call(function: PackedFunction, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Frames:
    """The buffers of an ``apply_request``.

    Raises:
        SerializationError: an argument cannot be pickled; it is named.
    """
    arg_buffers = [buffer for place, arg in enumerate(args) for buffer in _pack_value(arg, f"argument {place}")]
    names = sorted(kwargs)
    kwarg_buffers = [buffer for name in names for buffer in _pack_value(kwargs[name], f"argument {name!r}")]
    info = {"nargs": len(args), "narg_bufs": len(arg_buffers), "kw_keys": names}
    return [*function, pickle.dumps(info, _PROTOCOL), *arg_buffers, *kwarg_buffers]


def _pack_value(value: Any, what: str) -> Frames:
    buffers: Frames = []
    packed: Any
    if type(value) in (list, tuple) and len(value) < _MAX_ITEMS:
        packed = type(value)(_take_out(item, buffers) for item in value)
    elif type(value) is dict and len(value) < _MAX_ITEMS:
        try:
            packed = {key: _take_out(value[key], buffers) for key in sorted(value)}
        except TypeError:  # an engine would have to sort the keys, too, which have no order
            packed, buffers = CannedObject(value), []
    else:
        packed = _take_out(value, buffers)
    return [_pickled(packed, what, "pass something that can be sent"), *buffers]


def _take_out(value: Any, buffers: Frames) -> Any:
    """The value, or what stands for it when its buffer, which is appended, travels apart."""
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
    except (BufferError, ValueError):  # dates, say, which have no buffer: they are pickled as a whole
        return None


def _pickled(value: Any, what: str, remedy: str) -> bytes:
    if type(value) in _PLAIN:  # a pickler of our own costs ten times as much as this
        return pickle.dumps(value, _PROTOCOL)
    into = io.BytesIO()
    try:
        _CallPickler(into, _PROTOCOL).dump(value)
    except Exception as error:  # the value's own methods may raise whatever they like
        raise SerializationError(f"{what} cannot be pickled ({type(error).__name__}: {error}): {remedy}") from error
    return into.getvalue()


# Reading


def unpack_value_untrusted(buffers: Sequence[Buffer]) -> Any:
    """The value in the buffers of a reply. It unpickles: what is in them has to come from an engine of ours.

    Raises:
        SerializationError: and nothing else, for what cannot be read here.
    """
    try:
        pickled, *rest = buffers
        left = iter(rest)
        canned = _ResultUnpickler(io.BytesIO(memoryview(pickled))).load()
        if type(canned) in (list, tuple, set) and len(canned) < _MAX_ITEMS:
            return type(canned)([_restored(item, left) for item in canned])
        if type(canned) is dict and len(canned) < _MAX_ITEMS:
            return {key: _restored(canned[key], left) for key in sorted(canned)}
        return _restored(canned, left)
    except Exception as error:  # unpickling runs code that may raise anything
        raise SerializationError(
            f"the result cannot be read here ({type(error).__name__}: {error}): what it consists of has to be "
            "importable here as well"
        ) from error


def unpack_values_untrusted(buffers: Sequence[Buffer], counts: Sequence[int]) -> list[Any]:
    """Return the values of a gathered broadcast, which have so many buffers each. A value without buffers is left out.

    Raises:
        SerializationError: and nothing else, for what cannot be read here.
    """
    if any(type(count) is not int or count < 0 for count in counts) or sum(counts) != len(buffers):
        raise SerializationError(f"the result has {len(buffers)} buffers, and says that they are {counts!r}"[:200])
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
