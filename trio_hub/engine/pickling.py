"""Unpickle calls in the format in which clients send them, and pickle results in the format that clients read.

A call is ``[function, info, argument…]``. Each argument is a pickle, and the buffers that were taken out of it. Large
buffers have frames of their own.
"""

from __future__ import annotations

import io
import pickle  # noqa: TID251 - clients are trusted to run any code here
import sys
from collections.abc import Callable, Iterator, Sequence
from importlib import import_module
from types import CodeType, FunctionType
from typing import Any, NamedTuple

from ..wire.frames import Buffer, Frames
from .canned import CANNED, SEQUENCES, STOCK, Canned, Dependent, Namespace, can, can_sequence, is_canned, uncan
from .functions import FunctionCache

__all__ = ["LARGE_BUFFER", "MAX_ITEMS", "Call", "Pickling"]

LARGE_BUFFER = 1024
"""Bytes above which a buffer travels in a frame of its own."""
MAX_ITEMS = 64
"""A container of fewer items has its items canned. Larger containers are pickled as they are."""
PROTOCOL = pickle.DEFAULT_PROTOCOL  # a client's Python may be older than this one
_PLAIN = frozenset((type(None), bool, int, float, complex, str))
"""Types that pickle takes as they are: most results are of one of them."""
_STOCK_KEYS = {
    *("numpy.ndarray", "builtins.function", "functools.partial", "builtins.bytes", "builtins.memoryview"),
    *("builtins.cell", "builtins.type", "ipyparallel.dependent", "ipyparallel.controller.dependency.dependent"),
}
"""The types that ipyparallel cans when nobody has added one."""


class Call(NamedTuple):
    """A function and its arguments, as `Pickling.unpack_call` returns them."""

    function: Callable[..., Any]
    args: tuple[Any, ...]
    kwargs: dict[str, Any]


class Pickling:
    """Reads calls and writes results.

    Args:
        namespace: the user's namespace, in which functions and references find their globals.
    """

    def __init__(self, namespace: Namespace) -> None:
        self._namespace = namespace
        self._functions = FunctionCache(namespace)

    def unpack_call(self, buffers: Sequence[Buffer]) -> Call:
        """Return the call in the buffers of a request. It may raise anything: it runs code of the client's."""
        if stock := _customised():
            frames = [frame if isinstance(frame, bytes) else memoryview(frame) for frame in buffers]
            return Call(*stock.unpack_apply_message(frames, self._namespace, copy=False))
        left = iter(buffers)
        function = self._function(left)
        info = pickle.loads(bytes(next(left)))
        args = tuple([self._value(left) for _ in range(info["nargs"])])
        return Call(function, args, {key: self._value(left) for key in info["kw_keys"]})

    def _function(self, left: Iterator[Buffer]) -> Any:
        packed = next(left)
        if type(packed) is bytes:
            known = self._functions.get(packed)
            if known is not None:
                return known
        loaded = _load(packed)
        function = self._restored(loaded, left)
        if type(packed) is bytes:
            self._functions.add(packed, loaded, function)
        return function

    def _value(self, left: Iterator[Buffer]) -> Any:
        return self._restored(_load(next(left)), left)

    def _restored(self, loaded: Any, left: Iterator[Buffer]) -> Any:
        """Return what was packed: put back the buffers of canned objects, and uncan them, one level deep."""
        kind = type(loaded)
        if kind in _PLAIN:
            return loaded
        namespace = self._namespace
        if kind in SEQUENCES and len(loaded) < MAX_ITEMS:
            for item in loaded:
                _put_back(item, left)
            return kind([uncan(item, namespace) for item in loaded])
        if kind is dict and len(loaded) < MAX_ITEMS:
            restored = {}
            for key in sorted(loaded):
                _put_back(loaded[key], left)
                restored[key] = uncan(loaded[key], namespace)
            return restored
        _put_back(loaded, left)
        return uncan(loaded, namespace)

    def pack_result(self, result: Any) -> Frames:
        """Return the buffers of a reply. It may raise anything: a result's own methods are called."""
        kind = type(result)
        if kind in _PLAIN:
            return [pickle.dumps(result, PROTOCOL)]
        if stock := _customised():
            return list(stock.serialize_object(result, buffer_threshold=LARGE_BUFFER, item_threshold=MAX_ITEMS))
        buffers: Frames = []
        if kind in SEQUENCES and len(result) < MAX_ITEMS:
            packed = can_sequence(result)
            canned = [item for item in packed if _take_out(item, buffers)]
        elif kind is dict and len(result) < MAX_ITEMS:
            packed = {key: can(result[key]) for key in sorted(result)}
            canned = [item for item in packed.values() if _take_out(item, buffers)]
        else:
            packed = can(result)
            canned = [packed] if _take_out(packed, buffers) else []
        return [_dump(packed) if canned else pickle.dumps(packed, PROTOCOL), *buffers]


def _customised() -> Any:
    """Return ipyparallel's own serialisation if somebody has changed how it works in this process, else None."""
    canning = sys.modules.get(STOCK)
    serialize = sys.modules.get("ipyparallel.serialize.serialize")
    if canning is None or serialize is None or not hasattr(serialize, "serialize_object"):
        return None  # also while it is being imported
    kept = FunctionType in canning.can_map and serialize.pickle is pickle
    names = {key if isinstance(key, str) else f"{key.__module__}.{key.__qualname__}" for key in canning.can_map}
    added = {*canning.uncan_map} - {canning.CannedObject, dict, Canned}
    return None if kept and names <= _STOCK_KEYS and not added else serialize


def _load(data: Buffer) -> Any:
    if type(data) is bytes and b"ipyparallel" not in data:
        return pickle.loads(data)  # it names no class that `_Unpickler` would have to find, and costs a third
    return _Unpickler(io.BytesIO(data if type(data) is bytes else memoryview(data))).load()


def _dump(value: Any) -> bytes:
    into = io.BytesIO()
    _Pickler(into, PROTOCOL).dump(value)
    return into.getvalue()


def _take_out(item: Any, buffers: Frames) -> bool:
    """Move the large buffers of a canned object to the list. Return whether it is one."""
    if not is_canned(item):
        return False
    for place, data in enumerate(item.buffers):
        size = data.nbytes if isinstance(data, memoryview) else len(data)
        if size > LARGE_BUFFER:
            item.buffers[place] = None
            buffers.append(data)
        elif isinstance(data, memoryview):
            item.buffers[place] = data.tobytes()
    return True


def _put_back(item: Any, left: Iterator[Buffer]) -> None:
    if is_canned(item) and item.buffers:
        for place, data in enumerate(item.buffers):
            if data is None:
                frame = next(left)
                item.buffers[place] = frame if isinstance(frame, bytes) else memoryview(frame)


class _Unpickler(pickle.Unpickler):
    """Finds the classes of this engine where a pickle names classes of ipyparallel."""

    def find_class(self, module: str, name: str) -> Any:
        if module.startswith("ipyparallel."):
            if module == STOCK and name in CANNED:
                return CANNED[name]
            if module == "ipyparallel.serialize.codeutil" and name == "code_ctor":
                return _code
            if module == "ipyparallel.controller.dependency" and name == "dependent":
                return Dependent
        return super().find_class(module, name)


def _code(*parts: Any) -> CodeType:
    return CodeType(*parts)


_CODE_PARTS = (
    *("argcount", "posonlyargcount", "kwonlyargcount", "nlocals", "stacksize", "flags", "code", "consts", "names"),
    *("varnames", "filename", "name", "qualname", "firstlineno", "linetable", "exceptiontable", "freevars", "cellvars"),
)
"""The arguments of `CodeType`, in order, for Python 3.11 to 3.13."""


class _StockModule:
    """A module of ipyparallel, as a pickle names it: it need not be installed here."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[str]]:
        return import_module, (self._name,)


_STOCK_NAMES = {cls: name for name, cls in CANNED.items()}


class _Pickler(pickle.Pickler):
    """Names classes of ipyparallel where a result has classes of this engine."""

    def reducer_override(self, obj: Any) -> Any:
        if isinstance(obj, type):
            if issubclass(obj, Canned) and obj in _STOCK_NAMES:
                return getattr, (_StockModule(STOCK), _STOCK_NAMES[obj])
        elif type(obj) is CodeType:
            return _code, tuple(getattr(obj, f"co_{name}") for name in _CODE_PARTS)
        elif obj is _code:
            return getattr, (_StockModule("ipyparallel.serialize.codeutil"), "code_ctor")
        return NotImplemented
