"""The forms in which clients and engines exchange functions, arrays, buffers and the like: *canned* objects.

Stock clients and engines pickle instances of ipyparallel's own classes, under the names of ipyparallel's modules. The
classes here take their place, with the same attributes, so that the engine need not import ipyparallel, which takes a
second and 25 MB. `trio_hub.engine.pickling` maps the names.
"""

from __future__ import annotations

import functools
import pickle  # noqa: TID251 - clients are trusted to run any code here
import sys
from collections.abc import Callable
from importlib import import_module
from types import CellType, CodeType, FunctionType
from typing import Any, TypeAlias

__all__ = [
    "CANNED",
    "SEQUENCES",
    "STOCK",
    "Canned",
    "CannedFunction",
    "Dependent",
    "Namespace",
    "can",
    "can_sequence",
    "is_canned",
    "uncan",
]

STOCK = "ipyparallel.serialize.canning"
SEQUENCES = (list, tuple, set)

Namespace: TypeAlias = dict[str, Any]


class Canned:
    """An object in the form in which it travels. ``buffers`` has its data; an item is None if it travels as a frame."""

    buffers: list[Any]

    def get_object(self, namespace: Namespace | None = None) -> Any:
        """Return the object. Functions and references use the namespace as their globals."""
        raise NotImplementedError


class CannedObject(Canned):
    """An object of any type. Its attributes that ``keys`` names are canned."""

    obj: Any
    keys: list[str]
    hook: Any

    def get_object(self, namespace: Namespace | None = None) -> Any:
        for key in self.keys:
            setattr(self.obj, key, uncan(getattr(self.obj, key), namespace))
        if self.hook:
            # Stock clients send one hook only: it checks the dependency of a function decorated with @depend.
            if isinstance(self.hook, CannedFunction) and self.hook.code.co_name == "_uncan_dependent_hook":
                self.obj.check_dependency()
            else:
                uncan(self.hook, namespace)(self.obj, namespace)
        return self.obj


class Reference(Canned):
    """A name or expression, which stands for its value in the engine's namespace."""

    name: str

    def get_object(self, namespace: Namespace | None = None) -> Any:
        return eval(self.name, {} if namespace is None else namespace)


class CannedCell(Canned):
    """A cell of a closure."""

    buffers: list[Any] = []  # noqa: RUF012 - a cell has none, and stock clients send none

    def __init__(self, cell: CellType) -> None:
        self.cell_contents = can(cell.cell_contents)

    def get_object(self, namespace: Namespace | None = None) -> Any:
        return CellType(uncan(self.cell_contents, namespace))


class CannedFunction(Canned):
    """A function by value: its code, defaults, and closure."""

    code: CodeType

    def __init__(self, function: FunctionType) -> None:
        self.code = function.__code__
        self.defaults = [can(value) for value in function.__defaults__] if function.__defaults__ else None
        self.kwdefaults = _can_dict(function.__kwdefaults__) if function.__kwdefaults__ else None
        self.annotations = _can_dict(function.__annotations__) if function.__annotations__ else None
        self.closure = tuple(can(cell) for cell in function.__closure__) if function.__closure__ else None
        self.module = function.__module__ or "__main__"
        self.__name__ = function.__name__
        self.buffers = []

    def get_object(self, namespace: Namespace | None = None) -> Any:
        if native := self._native():
            return native
        if not self.module.startswith("__"):
            namespace = import_module(self.module).__dict__
        elif namespace is None:
            namespace = {}
        defaults = tuple(uncan(value, namespace) for value in self.defaults) if self.defaults else None
        closure = tuple(uncan(cell, namespace) for cell in self.closure) if self.closure else None
        function = FunctionType(self.code, namespace, self.__name__, defaults, closure)
        if self.kwdefaults:
            function.__kwdefaults__ = uncan(self.kwdefaults)
        if getattr(self, "annotations", None):  # older clients send none
            function.__annotations__ = uncan(self.annotations)
        return function

    def _native(self) -> Callable[..., Any] | None:
        """Return the engine's own form of a helper of stock clients, if this function is one."""
        if self.code.co_name == "_require" and {"UnmetDependency", "uncan"} <= {*self.code.co_names}:
            return _require  # the only helper that is marked as defined in __main__
        return _NATIVE.get((self.module, self.code.co_name))


class CannedPartial(Canned):
    """A `functools.partial`, whose function and arguments are canned."""

    def __init__(self, partial: functools.partial[Any]) -> None:
        self.func = can(partial.func)
        self.args = [can(arg) for arg in partial.args]
        self.keywords = {key: can(value) for key, value in partial.keywords.items()}
        self.buffers = []
        self.arg_buffer_counts = [self._gather(arg) for arg in self.args]
        self.keyword_buffer_counts = {
            key: self._gather(self.keywords[key]) for key in sorted(self.keywords) if is_canned(self.keywords[key])
        }

    def _gather(self, item: Any) -> int:
        """Move the buffers of an argument to the buffers of the partial. Return the number of moved buffers."""
        if not is_canned(item):
            return 0
        moved, item.buffers = item.buffers, []
        self.buffers.extend(moved)
        return len(moved)

    def get_object(self, namespace: Namespace | None = None) -> Any:
        left = iter(self.buffers)
        counts = [*zip(self.args, self.arg_buffer_counts, strict=True)]
        counts += [(self.keywords[key], self.keyword_buffer_counts[key]) for key in sorted(self.keyword_buffer_counts)]
        for item, count in counts:
            if count:
                item.buffers = [next(left) for _ in range(count)]
        args = [uncan(arg, namespace) for arg in self.args]
        keywords = {key: uncan(value, namespace) for key, value in self.keywords.items()}
        return functools.partial(uncan(self.func, namespace), *args, **keywords)


class CannedClass(Canned):
    """A class by value. Only classes that are defined in ``__main__`` travel like this."""

    def __init__(self, cls: type) -> None:
        self.name = cls.__name__
        self.old_style = False
        self._canned_dict = {
            key: can(value) for key, value in cls.__dict__.items() if key not in ("__weakref__", "__dict__")
        }
        self.parents = [can(parent) for parent in cls.mro()[1:]]
        self.buffers = []

    def get_object(self, namespace: Namespace | None = None) -> Any:
        parents = tuple(uncan(parent, namespace) for parent in self.parents)
        return type(self.name, parents, uncan(self._canned_dict, namespace))


class CannedArray(Canned):
    """A numpy array. An array that comes in shares the memory in which ZeroMQ received it, and is read-only."""

    def __init__(self, array: Any) -> None:
        numpy: Any = sys.modules["numpy"]
        self.shape = array.shape
        self.dtype = array.dtype.descr if array.dtype.fields else array.dtype.str
        self.pickled = sum(array.shape) == 0 or array.dtype.hasobject
        if self.pickled:
            self.buffers = [pickle.dumps(array, pickle.DEFAULT_PROTOCOL)]
        else:
            contiguous = numpy.ascontiguousarray(array)
            try:
                self.buffers = [memoryview(contiguous)]
            except ValueError:  # dates, say, have no buffer of their own
                self.buffers = [memoryview(contiguous.view("u1"))]

    def get_object(self, namespace: Namespace | None = None) -> Any:
        data = self.buffers[0]
        if self.pickled:
            return pickle.loads(data)
        numpy: Any = import_module("numpy")
        return numpy.frombuffer(data, dtype=self.dtype).reshape(self.shape)


class CannedBytes(Canned):
    def __init__(self, data: bytes | memoryview) -> None:
        self.buffers = [data]

    def get_object(self, namespace: Namespace | None = None) -> Any:
        data = self.buffers[0]
        return data if isinstance(data, bytes) else bytes(data)


class CannedMemoryView(CannedBytes):
    def get_object(self, namespace: Namespace | None = None) -> Any:
        return memoryview(self.buffers[0])


class Dependent:
    """A function decorated with ``@depend``: ``df`` decides whether it may run on this engine."""

    f: Callable[..., Any]
    df: Callable[..., Any]
    dargs: tuple[Any, ...]
    dkwargs: dict[str, Any]

    def check_dependency(self) -> None:
        """Raise `UnmetDependency` if the dependency says no."""
        if self.df(*self.dargs, **self.dkwargs) is False:
            raise UnmetDependency

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.f(*args, **kwargs)


class UnmetDependency(Exception):
    """The dependency of a function is not met here: the hub tries another engine. Hubs know the error by its name."""


_CLASSES: list[type[Canned]] = [CannedObject, Reference, CannedCell, CannedFunction, CannedPartial]
_CLASSES += [CannedClass, CannedArray, CannedBytes, CannedMemoryView]
CANNED = {cls.__name__: cls for cls in _CLASSES} | {"CannedBuffer": CannedMemoryView}
"""The classes by their names in ipyparallel's module."""


def is_canned(obj: Any) -> bool:
    """Return whether an object is canned, by a class here or, where ipyparallel is loaded, by one of its own."""
    if isinstance(obj, Canned):
        return True
    stock = sys.modules.get(STOCK)
    return stock is not None and isinstance(obj, stock.CannedObject)


def uncan(obj: Any, namespace: Namespace | None = None) -> Any:
    """Return the object that a canned object stands for; look into dicts, as stock engines do."""
    if type(obj) is dict:
        return {key: uncan(value, namespace) for key, value in obj.items()}
    return obj.get_object(namespace) if is_canned(obj) else obj


def can(obj: Any) -> Any:
    """Return the canned form of an object, or the object itself if pickle takes it as it is."""
    canner = _CANNERS.get(type(obj))
    if canner is not None:
        return canner(obj)
    numpy = sys.modules.get("numpy")
    if numpy is not None and type(obj) is getattr(numpy, "ndarray", None):
        return CannedArray(obj)
    return obj


def can_sequence(sequence: Any) -> Any:
    """Return a list, tuple or set with each of its items canned."""
    return type(sequence)([can(item) for item in sequence])


def _can_dict(items: dict[str, Any]) -> dict[str, Any]:
    return {key: can(value) for key, value in items.items()}


def _can_type(cls: type) -> Any:
    return CannedClass(cls) if cls.__module__ == "__main__" else cls


_CANNERS: dict[type, Callable[[Any], Any]] = {
    FunctionType: CannedFunction,
    functools.partial: CannedPartial,
    bytes: CannedBytes,
    memoryview: CannedMemoryView,
    CellType: CannedCell,
    type: _can_type,
}


# Helpers of stock clients, which they send as functions of modules of ipyparallel. The engine has them already, so it
# need not import these modules.


def _main() -> Namespace:
    return sys.modules["__main__"].__dict__


def _push(**names: Any) -> None:
    namespace, key = _main(), "_IP_PUSH_TMP_"
    while key in namespace:
        key += "_"
    try:
        for name, value in names.items():
            namespace[key] = value
            exec(f"{name} = {key}", namespace)  # a name may have dots or an index
    finally:
        namespace.pop(key, None)


def _pull(keys: Any) -> Any:
    if isinstance(keys, SEQUENCES):
        return [eval(key, _main()) for key in keys]
    return eval(keys, _main())


def _execute(code: str) -> None:
    exec(code, _main())


def _map(function: Callable[..., Any], *sequences: Any) -> list[Any]:
    return list(map(function, *sequences))


def _require(*modules: str, **names: Any) -> bool:
    namespace = _main()
    for name in modules:
        try:
            exec(f"import {name}", namespace)
        except ImportError:
            raise UnmetDependency(name) from None
    for name, value in names.items():
        namespace[name] = uncan(value, namespace)
    return True


def _become_dask_worker(address: str, nanny: bool = False, **kwargs: Any) -> None:
    from .dask import become_worker

    become_worker(address, nanny, **kwargs)


def _stop_distributed_worker() -> None:
    from .dask import stop_worker

    stop_worker()


_NATIVE: dict[tuple[str, str], Callable[..., Any]] = {
    ("ipyparallel.util", "_push"): _push,
    ("ipyparallel.util", "_pull"): _pull,
    ("ipyparallel.util", "_execute"): _execute,
    ("ipyparallel.util", "become_dask_worker"): _become_dask_worker,
    ("ipyparallel.util", "stop_distributed_worker"): _stop_distributed_worker,
    ("ipyparallel.client.remotefunction", "_map"): _map,
}
