"""A cache of functions: it knows them by their bytes, so that they need not be unpickled for each call."""

from __future__ import annotations

import opcode
import operator
import pickle  # noqa: TID251 - only written here, never read
import sys
from collections import OrderedDict
from types import BuiltinFunctionType, CodeType, FunctionType, ModuleType
from typing import Any, NamedTuple, TypeAlias

from .canned import Canned, CannedFunction, Namespace

__all__ = ["FunctionCache"]

MAX_FUNCTIONS = 256
MAX_BYTES = 64 * 1024
"""Bytes. Longer packed functions are not kept."""
_ATOMS = frozenset((type(None), bool, int, float, complex, str, bytes))
_NAMED = frozenset((type, FunctionType, BuiltinFunctionType))
"""Types of functions and classes that a pickle can name."""
_STORES_GLOBALS = frozenset((opcode.opmap["STORE_GLOBAL"], opcode.opmap["DELETE_GLOBAL"]))
_STORES_CELLS = frozenset((opcode.opmap["STORE_DEREF"], opcode.opmap["DELETE_DEREF"]))
_MAX_DEPTH = 5

State: TypeAlias = tuple[Any, ...] | None
"""What a call can change of a function, as objects to be compared by identity; None for a value found by its name."""


class Known(NamedTuple):
    """A function that is kept.

    - ``held``: the values that a call could change or replace, the function included, with the state of each.
    """

    function: Any
    held: list[tuple[Any, State]]


class FunctionCache:
    """Keeps the functions that were unpickled last, by their bytes.

    A function that its pickle only names is kept as long as it is still found by that name.

    Any other function is kept only if a new copy of it could not be told from the last one. If its defaults, its
    closure or its own globals can change, the function is not kept: a call would see what the last call has changed. A
    call can also set attributes of the function, or replace its parts, which its code does not tell. So before a
    function is used again, its state is compared with its state when it was unpickled.

    Args:
        namespace: the user's namespace. It is shared by all calls in any case, so functions may change it.
    """

    def __init__(self, namespace: Namespace) -> None:
        self._namespace = namespace
        self._known: OrderedDict[bytes, Known] = OrderedDict()

    def get(self, packed: bytes) -> Any:
        """Return the function with these bytes, or None. A function that a call has changed is forgotten."""
        known = self._known.get(packed)
        if known is None:
            return None
        if not all(self._is_same(value, state) for value, state in known.held):
            del self._known[packed]
            return None
        self._known.move_to_end(packed)
        return known.function

    def add(self, packed: bytes, loaded: Any, function: Any) -> None:
        """Keep a function, if that makes no difference to its calls.

        Args:
            packed: its pickle.
            loaded: what the pickle contained: the function, or its canned form.
            function: the function itself.
        """
        held: list[tuple[Any, State]] = []
        if len(packed) > MAX_BYTES or not self._is_repeatable(packed, loaded, function, held):
            return
        self._known[packed] = Known(function, held)
        if len(self._known) > MAX_FUNCTIONS:
            self._known.popitem(last=False)

    def _is_repeatable(self, packed: bytes, loaded: Any, function: Any, held: list[tuple[Any, State]]) -> bool:
        if isinstance(loaded, Canned) and not isinstance(loaded, CannedFunction):
            return False  # a reference, for instance, whose value may change
        if type(function) in _NAMED and _is_found_by_name(function):
            if packed != pickle.dumps(function, pickle.DEFAULT_PROTOCOL):
                return False  # the pickle has more than the name, and might yield something else next time
            held.append((function, None))
            return True
        if type(function) is not FunctionType:
            return False
        return self._is_fixed(function, _MAX_DEPTH, held)

    def _is_fixed(self, value: Any, depth: int, held: list[tuple[Any, State]]) -> bool:
        """Return whether a value is the same whenever its pickle is loaded, while what is added to ``held`` stays."""
        if type(value) in _ATOMS:
            return True
        if depth == 0:
            return False
        if type(value) is tuple:
            return all(self._is_fixed(item, depth - 1, held) for item in value)
        if isinstance(value, type | FunctionType | BuiltinFunctionType | ModuleType) and _is_found_by_name(value):
            held.append((value, None))
            return True
        if type(value) is not FunctionType:
            return False
        if value.__dict__ or (value.__annotations__ and not all(map(_is_name, value.__annotations__.values()))):
            return False
        try:
            cells = [cell.cell_contents for cell in value.__closure__ or ()]
        except ValueError:  # a cell that is empty so far
            return False
        held.append((value, self._state(value)))
        inside = [*cells, *(value.__defaults__ or ()), *(value.__kwdefaults__ or {}).values()]
        if any(cell is value for cell in cells) or not all(self._is_fixed(item, depth - 1, held) for item in inside):
            return False
        if value.__closure__ and _stores_cells(value.__code__):
            return False
        if self._shares_globals(value):
            return True
        if _stores_globals(value.__code__):
            return False
        used = [value.__globals__[name] for name in _names(value.__code__) if name in value.__globals__]
        return all(self._is_fixed(item, depth - 1, held) for item in used if item is not value)

    def _is_same(self, value: Any, state: State) -> bool:
        if state is None:
            return _is_found_by_name(value)
        try:
            now = self._state(value)
        except ValueError:  # a cell that was emptied
            return False
        return len(now) == len(state) and all(map(operator.is_, now, state))

    def _state(self, function: FunctionType) -> tuple[Any, ...]:
        parts: list[Any] = [function.__code__, function.__defaults__, function.__kwdefaults__, function.__annotations__]
        parts += (function.__name__, function.__qualname__, function.__module__, function.__doc__)
        parts += (cell.cell_contents for cell in function.__closure__ or ())
        shared = self._shares_globals(function)
        changeable = (function.__dict__, function.__kwdefaults__, function.__annotations__)
        for changed in changeable if shared else (*changeable, function.__globals__):
            for item in (changed or {}).items():
                parts += item
        return tuple(parts)

    def _shares_globals(self, function: FunctionType) -> bool:
        """Return whether each copy of a function has the same globals: the user's namespace, or a module's."""
        return function.__globals__ is self._namespace or function.__globals__ is _globals_of(function.__module__)


def _is_name(value: Any) -> bool:
    return isinstance(value, str | type) or value is None


def _globals_of(module: str | None) -> dict[str, Any] | None:
    loaded = sys.modules.get(module or "")
    return None if loaded is None else loaded.__dict__


def _is_found_by_name(value: Any) -> bool:
    """Return whether pickle would look this module, function or class up by its name."""
    if isinstance(value, ModuleType):
        return sys.modules.get(value.__name__) is value
    found: Any = sys.modules.get(value.__module__)
    for name in value.__qualname__.split("."):
        found = getattr(found, name, None)
    return found is value


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
    """Return whether a function or one inside it may set or delete a variable of the function around it."""
    return any(inner.co_freevars and not _STORES_CELLS.isdisjoint(inner.co_code[::2]) for inner in _codes(code))
