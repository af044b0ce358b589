"""Prepares IPython and ipyparallel when user code imports them in an engine that has not loaded them.

Both must work as in a stock engine: IPython has a shell, and ipyparallel can uncan the objects that this engine has
unpickled.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from types import ModuleType
from typing import Any

from .canned import STOCK, Canned

__all__ = ["install"]


class AfterImport:
    """A finder that calls a function with a module when the module has been loaded.

    Args:
        calls: the functions by the modules' names.
    """

    def __init__(self, calls: dict[str, Callable[[ModuleType], None]]) -> None:
        self._calls = calls

    def find_spec(self, name: str, path: Sequence[str] | None = None, target: Any = None) -> ModuleSpec | None:
        call = self._calls.pop(name, None)
        if call is None:
            return None
        spec = find_spec(name)
        if spec is None or spec.loader is None:
            return None
        load = spec.loader.exec_module

        def exec_module(module: ModuleType) -> None:
            load(module)
            call(module)

        spec.loader.exec_module = exec_module  # type: ignore[method-assign]
        return spec


def install(get_shell: Callable[[], Any]) -> None:
    """Prepare IPython and ipyparallel as soon as they are imported.

    Args:
        get_shell: returns the shell, and makes it before if there is none; returns None while the shell is being made.
    """

    def give_shell(module: Any) -> None:
        """Make the shell when code asks IPython for its shell, or whether there is one."""
        shell_class = module.InteractiveShell
        initialized, instance = shell_class.initialized.__func__, shell_class.instance.__func__

        def is_initialized(cls: Any) -> bool:
            get_shell()
            return bool(initialized(cls))

        def the_instance(cls: Any, *args: Any, **kwargs: Any) -> Any:
            get_shell()
            return instance(cls, *args, **kwargs)

        shell_class.initialized = classmethod(is_initialized)
        shell_class.instance = classmethod(the_instance)

    def teach(module: Any) -> None:
        module.uncan_map[Canned] = lambda obj, namespace: obj.get_object(namespace)

    sys.meta_path.insert(0, AfterImport({"IPython.core.interactiveshell": give_shell, STOCK: teach}))
