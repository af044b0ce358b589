"""Replaces every ipcontroller process by our controller, and notes it.

Python imports this module when it starts, in each process that has this directory on PYTHONPATH: the tests, and all
that they start, directly or not (`ipcluster`, launchers, mpiexec). A process whose command line says that it is to be
ipyparallel's controller is replaced, by exec, with ``python -m trio_hub ipcontroller`` and the same arguments: same
pid, descriptors, directory and environment, as if the other command had been installed in its place. Should
a controller of theirs come about in any other way, it is noted and refused.

It runs at the start of hundreds of processes, so it imports little.
"""

from __future__ import annotations

import os
import sys

LOG = "STOCK_SUITE_LOG"
"""The environment variable that names the file to which each process adds one line: whose, its pid, whether it is told
to encrypt, its arguments."""
ENGINES = "STOCK_SUITE_ENGINES"
"""The environment variable that says whose engines a run has: ``trio-hub`` for ours, by default the stock ones."""
CURVE = "IPP_ENABLE_CURVE"
"""The environment variable by which a run tells every controller to encrypt."""

MODULES = ("ipyparallel.controller", "ipyparallel.controller.__main__", "ipyparallel.controller.app")
SCRIPTS = ("/ipcontroller", "/ipyparallel/controller/__main__.py", "/ipyparallel/controller/app.py")
OURS = ("-m", "trio_hub", "ipcontroller")
ENGINE_MODULES = ("ipyparallel.engine", "ipyparallel.engine.__main__", "ipyparallel.engine.app")
ENGINE_SCRIPTS = ("/ipengine", "/ipyparallel/engine/__main__.py", "/ipyparallel/engine/app.py")
OUR_ENGINE = ("-m", "trio_hub", "engine")


def controller_arguments(argv: list[str]) -> list[str] | None:
    """Return the arguments of an ipcontroller from its command line; None if the process is no ipcontroller."""
    return arguments_of(argv, MODULES, SCRIPTS)


def engine_arguments(argv: list[str]) -> list[str] | None:
    """Return the arguments of an ipengine from its command line; None if the process is no ipengine."""
    return arguments_of(argv, ENGINE_MODULES, ENGINE_SCRIPTS)


def arguments_of(argv: list[str], modules: tuple[str, ...], scripts: tuple[str, ...]) -> list[str] | None:
    rest = iter(argv[1:])
    for argument in rest:
        if argument == "-m":
            return list(rest) if next(rest, "") in modules else None
        if argument in ("-X", "-W"):
            next(rest, "")
        elif argument == "-c" or argument == "-":
            return None
        elif not argument.startswith("-"):
            return list(rest) if f"/{argument}".endswith(scripts) else None
    return None


def note(whose: str) -> None:
    with open(os.environ[LOG], "a") as log:
        curve = "curve" if os.environ.get(CURVE) else "plain"
        log.write(f"{whose} {os.getpid()} {curve} {' '.join(sys.orig_argv)!r}\n")


class Tripwire:
    """Keeps applications of ipyparallel from being initialized. ``classes``: their classes, by their modules."""

    def __init__(self, classes: dict[str, str]) -> None:
        self.classes = classes

    def find_spec(self, name, path=None, target=None):  # type: ignore[no-untyped-def]
        refused = self.classes.pop(name, None)
        if refused is None:
            return None
        from importlib.util import find_spec

        spec = find_spec(name)
        assert spec is not None
        assert spec.loader is not None
        load = spec.loader.exec_module

        def exec_module(module):  # type: ignore[no-untyped-def]
            load(module)
            getattr(module, refused).initialize = refuse

        spec.loader.exec_module = exec_module  # type: ignore[method-assign]
        return spec


def refuse(*args: object, **kwargs: object) -> None:
    note("theirs")
    raise SystemExit("a stock controller or engine was to be started, in a way that was not redirected")


APPLICATIONS = {"ipyparallel.controller.app": "IPController"}
"""The applications that are refused; the stock engine, too, if a run has ours."""

if LOG in os.environ:
    arguments = controller_arguments(sys.orig_argv)
    if arguments is not None:
        note("ours")
        os.execv(sys.executable, [sys.executable, *OURS, *arguments])
    arguments = None
    if os.environ.get(ENGINES) == "trio-hub":
        APPLICATIONS["ipyparallel.engine.app"] = "IPEngine"
        arguments = engine_arguments(sys.orig_argv)
    if arguments is not None:
        note("engine")
        os.execv(sys.executable, [sys.executable, *OUR_ENGINE, *arguments])
    sys.meta_path.insert(0, Tripwire(APPLICATIONS))
