"""A cache of functions: it knows them by their bytes, so that they need not be unpickled for each call."""

from __future__ import annotations

import opcode
import sys
from collections import OrderedDict
from types import BuiltinFunctionType, CodeType, FunctionType, ModuleType
from typing import Any

from .canned import Canned, CannedFunction, Namespace

__all__ = ["FunctionCache"]

MAX_FUNCTIONS = 256
MAX_BYTES = 64 * 1024
"""Bytes. Longer packed functions are not kept."""
_ATOMS = (type(None), bool, int, float, complex, str, bytes, BuiltinFunctionType, ModuleType)
_STORES_GLOBALS = frozenset((opcode.opmap["STORE_GLOBAL"], opcode.opmap["DELETE_GLOBAL"]))
_MAX_DEPTH = 5


class FunctionCache:
    """Keeps the functions that were unpickled last, by their bytes.

    A function is kept only if a new copy of it could not be told from the last one. If its defaults, its closure or its
    own globals can change, the function is not kept: a call would see what the last call has changed.

    Args:
        namespace: the user's namespace. It is shared by all calls in any case, so functions may change it.
    """

    def __init__(self, namespace: Namespace) -> None:
        self._namespace = namespace
        self._known: OrderedDict[bytes, Any] = OrderedDict()

    def get(self, packed: bytes) -> Any:
        """Return the function with these bytes, or None."""
        function = self._known.get(packed)
        if function is not None:
            self._known.move_to_end(packed)
        return function

    def add(self, packed: bytes, loaded: Any, function: Any) -> None:
        """Keep a function, if that makes no difference to its calls.

        Args:
            packed: its pickle.
            loaded: what the pickle contained: the function, or its canned form.
            function: the function itself.
        """
        if len(packed) > MAX_BYTES or not self._is_repeatable(loaded, function):
            return
        self._known[packed] = function
        if len(self._known) > MAX_FUNCTIONS:
            self._known.popitem(last=False)

    def _is_repeatable(self, loaded: Any, function: Any) -> bool:
        if isinstance(loaded, Canned) and not isinstance(loaded, CannedFunction):
            return False  # a reference, for instance, whose value may change
        if type(function) is not FunctionType or (isinstance(loaded, FunctionType) and _is_found_by_name(loaded)):
            return False  # looking a function up by name is quick, and also works after a module was loaded again
        return self._is_fixed(function, _MAX_DEPTH)

    def _is_fixed(self, value: Any, depth: int) -> bool:
        """Return whether a value is the same whenever its pickle is loaded, whatever calls have done with it."""
        if isinstance(value, _ATOMS):
            return True
        if depth == 0:
            return False
        if type(value) is tuple:
            return all(self._is_fixed(item, depth - 1) for item in value)
        if isinstance(value, type):
            return _is_found_by_name(value)
        if type(value) is not FunctionType:
            return False
        if value.__module__ != "__main__" and _is_found_by_name(value):
            return True
        if value.__dict__ or (value.__annotations__ and not all(map(_is_name, value.__annotations__.values()))):
            return False
        try:
            cells = [cell.cell_contents for cell in value.__closure__ or ()]
        except ValueError:  # a cell that is empty so far
            return False
        held = [*cells, *(value.__defaults__ or ()), *(value.__kwdefaults__ or {}).values()]
        if any(cell is value for cell in cells) or not all(self._is_fixed(item, depth - 1) for item in held):
            return False
        if value.__closure__ and _stores_cells(value.__code__):
            return False
        if value.__globals__ is self._namespace or value.__globals__ is _globals_of(value.__module__):
            return True
        if _stores_globals(value.__code__):
            return False
        used = [value.__globals__[name] for name in _names(value.__code__) if name in value.__globals__]
        return all(self._is_fixed(item, depth - 1) for item in used if item is not value)


def _is_name(value: Any) -> bool:
    return isinstance(value, str | type) or value is None


def _globals_of(module: str | None) -> dict[str, Any] | None:
    loaded = sys.modules.get(module or "")
    return None if loaded is None else loaded.__dict__


def _is_found_by_name(value: Any) -> bool:
    """Return whether pickle would look this function or class up by its name."""
    found: Any = sys.modules.get(value.__module__)
    for name in value.__qualname__.split("."):
        found = getattr(found, name, None)
    return found is value and value.__module__ != "__main__"


def _codes(code: CodeType) -> list[CodeType]:
    """Return a function's code and the codes of the functions inside it."""
    found = [code]
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            found += _codes(constant)
    return found


def _names(code: CodeType) -> set[str]:
    return {name for inner in _codes(code) for name in inner.co_names}


def _stores_globals(code: CodeType) -> bool:
    return any(not _STORES_GLOBALS.isdisjoint(inner.co_code[::2]) for inner in _codes(code))


def _stores_cells(code: CodeType) -> bool:
    """Return whether a function or one inside it may store to a variable of the function around it."""
    stores = opcode.opmap["STORE_DEREF"]
    return any(inner.co_freevars and stores in inner.co_code[::2] for inner in _codes(code))
