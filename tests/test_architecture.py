"""The rules of the house, checked by the import statements and calls of every module."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

# The imports that each part of the package may make from the others, from the bottom to the top. A part is a top-level
# package or module of trio_hub; "__init__" stands for the public names in trio_hub/__init__.py.
MAY_IMPORT: dict[str, set[str]] = {
    "errors": set(),
    "logs": set(),
    "memory": set(),
    "wire": {"errors"},
    "records": {"errors", "wire"},
    "schedulers": {"errors", "wire"},
    "pools": {"errors", "wire", "schedulers"},
    "hub": {"errors", "logs", "wire", "records", "schedulers", "pools"},
    "config": {"errors", "wire", "schedulers", "pools"},  # the value types of rules, policies and pools
    "services": {"logs"},
    "launching": {"errors", "logs", "pools", "config", "services"},
    "transport": {"errors", "logs", "wire", "services"},
    "databases": {"errors", "logs", "wire", "records", "config", "services"},
    "runtime": {
        *("errors", "logs", "wire", "records", "schedulers", "pools", "hub", "config"),
        *("services", "transport", "databases", "launching"),
    },
    "client": {"errors", "logs", "wire", "config", "transport"},
    # Former names of modules, for programs that import them. Nothing of ours does.
    "store": {"records", "databases"},
    "engine": {"errors", "logs", "memory", "wire", "transport", "services", "__init__"},
    "__init__": {"errors", "config", "runtime", "client"},
    "joblib": {"client"},
}
# The parts that need no event loop, no socket and no clock.
PURE = {"errors", "logs", "wire", "records", "schedulers", "pools", "hub", "config"}
ABOVE_RUNTIME = {"testing", "dashboard", "cli"}
MAY_IMPORT |= {part: set(MAY_IMPORT) for part in ABOVE_RUNTIME}
MAY_IMPORT["jupyter"] = {"errors", "logs", "config", "dashboard"}  # a proxy of the dashboard in a process of its own
MAY_IMPORT["cli"].add("dashboard")  # the command serves the dashboard beside the hub
MAY_IMPORT["__main__"] = {"cli", "engine"}
# ipyparallel loads it, by its entry points, and nothing of ours does: it has to do without the rest of the house.
MAY_IMPORT["launchers"] = set()

# Not in what is pure. `random` is looked at more closely: the type is welcome.
IMPURE = {"trio", "anyio", "zmq", "time", "asyncio", "socket", "select", "secrets"}
# The core waits for no disk and no thread either, and messages and records are bytes in memory.
NOT_IN_THE_CORE = {"threading", "fcntl", "sqlite3", "psycopg", "os", "pathlib", "io", "mmap", "tempfile", "shutil"}
CORE = {"wire", "records", "hub", "schedulers", "pools"}
# ZeroMQ is at home in the transport, and where its sockets are made and its addresses are read.
NO_ZEROMQ = {"databases", "services"}
MAX_CLASS, MAX_MODULE = 250, 400
"""Lines that a class of the hub or of the schedulers, and a module, may have."""
CLOCKS = {"now", "utcnow", "monotonic", "monotonic_ns", "perf_counter", "time", "time_ns"}
# The stock implementation is not needed to run ours: only a command that starts it, or reads its files, may load it,
# and late. What ipyparallel itself loads may take for granted that it is there, and traitlets with it.
STOCK = {"ipyparallel", "ipykernel", "IPython", "jupyter_client", "tornado", "traitlets"}
LOADED_BY_STOCK = {"trio_hub.launchers": {"ipyparallel", "traitlets"}}
# The part of the engine that uses IPython. It is loaded when IPython is first needed.
LOADED_BY_STOCK["trio_hub.engine.ipython"] = {"IPython", "ipykernel", "ipyparallel", "jupyter_client", "traitlets"}
# The part of the launching agent, a process of its own, that runs ipyparallel's launchers. The hub does not load it.
LOADED_BY_STOCK |= {
    f"trio_hub.launching.{name}": {"ipyparallel", "traitlets"}
    for name in ("batch", "stock", "stockclasses", "stockpreview")
}
# The stock engine as an engine of a pool, in a process of its own.
LOADED_BY_STOCK["trio_hub.engine.stock"] = {"ipyparallel", "traitlets"}


@dataclass(frozen=True)
class Import:
    target: str  # "trio_hub.wire.frames", "zmq.error.Again": as deep as the statement says
    line: int
    lazy: bool  # within a function
    typing: bool  # within "if TYPE_CHECKING:"


@dataclass(frozen=True)
class Module:
    path: str
    tree: ast.Module

    @property
    def name(self) -> str:
        return self.path.removesuffix(".py").removesuffix("/__init__").replace("/", ".")

    @property
    def part(self) -> str:
        return part_of(self.name)

    def imports(self) -> Iterator[Import]:
        yield from self._imports(self.tree, lazy=False, typing=False)

    def _imports(self, node: ast.AST, *, lazy: bool, typing: bool) -> Iterator[Import]:
        match node:
            case ast.Import(names=names):
                for alias in names:
                    yield Import(alias.name, node.lineno, lazy, typing)
            case ast.ImportFrom(names=names):
                for alias in names:
                    yield Import(f"{self._origin(node)}.{alias.name}", node.lineno, lazy, typing)
            case ast.If(test=ast.Name("TYPE_CHECKING") | ast.Attribute(attr="TYPE_CHECKING")):
                for statement in node.body:
                    yield from self._imports(statement, lazy=lazy, typing=True)
                for statement in node.orelse:
                    yield from self._imports(statement, lazy=lazy, typing=typing)
            case _:
                lazy = lazy or isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
                for child in ast.iter_child_nodes(node):
                    yield from self._imports(child, lazy=lazy, typing=typing)

    def _origin(self, node: ast.ImportFrom) -> str:
        if node.level == 0:
            return node.module or ""
        package = self.name.split(".") if self.path.endswith("/__init__.py") else self.name.split(".")[:-1]
        return ".".join([*package[: len(package) - node.level + 1], *filter(None, [node.module])])


def part_of(module_name: str) -> str:
    """Return the part of the package that contains a module of ours."""
    return [*module_name.split("."), "__init__"][1]


def resolve(target: str, names: set[str]) -> str | None:
    """Return the module of ours that an import loads: ``trio_hub.errors.WireError`` is in ``trio_hub.errors``."""
    while target:
        if target in names:
            return target
        target = target.rpartition(".")[0]
    return None


def violations(sources: Mapping[str, str]) -> list[str]:
    """Return the violations in ``{"trio_hub/wire/frames.py": source}``, each as "path:line: what"."""
    modules = [Module(path, ast.parse(source, path)) for path, source in sources.items()]
    names = {module.name for module in modules}
    found = []
    graph: dict[str, set[str]] = {}
    for module in modules:
        if module.part not in MAY_IMPORT:
            found.append(f"{module.path}:1: {module.part} has no place in MAY_IMPORT")
            continue
        for imported in module.imports():
            place = f"{module.path}:{imported.line}"
            if imported.target.split(".")[0] != "trio_hub":
                found += [f"{place}: {fault}" for fault in foreign_faults(module, imported)]
                continue
            target = resolve(imported.target, names) or imported.target
            if part_of(target) not in MAY_IMPORT[module.part] | {module.part}:
                found.append(f"{place}: {module.part} imports {target}")
            if not imported.typing:
                graph.setdefault(module.name, set()).add(target)
        if module.part in CORE:
            found += [f"{module.path}:{line}: opens a file" for line in opened(module.tree)]
        if module.part in PURE:
            found += [f"{module.path}:{line}: {fault}" for line, fault in impurities(module.tree)]
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        found.append("circle: " + " → ".join(reversed(error.args[1])))
    return found


def foreign_faults(module: Module, imported: Import) -> Iterator[str]:
    part = module.part
    package = imported.target.split(".")[0]
    if part in PURE and package in IMPURE:
        yield f"{part} imports {package}"
    if part in NO_ZEROMQ and package == "zmq":
        yield f"{part} imports {package}"
    if part in CORE and package in NOT_IN_THE_CORE:
        yield f"{part} imports {package}"
    if part in PURE and package == "random" and imported.target not in {"random", "random.Random"}:
        yield f"{part} imports {imported.target}"
    if package in STOCK - LOADED_BY_STOCK.get(module.name, set()) and not (part == "cli" and imported.lazy):
        yield f"{part} imports {package}" + (" when it is loaded" if part == "cli" else "")


def opened(tree: ast.Module) -> Iterator[int]:
    """Return the lines in which a file is opened."""
    for node in ast.walk(tree):
        match node:
            case ast.Call(func=ast.Name("open")):
                yield node.lineno


def impurities(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """Return the calls that read a clock or draw a random number."""
    for node in ast.walk(tree):
        match node:
            case ast.Call(func=ast.Attribute(value=ast.Name("self"))):
                pass  # self.now() is a clock that was handed in
            case ast.Call(func=ast.Attribute(attr=name)) if name in CLOCKS:
                yield node.lineno, f"reads a clock: .{name}()"
            case ast.Call(func=ast.Name("Random") | ast.Attribute(ast.Name("random"), "Random")):
                yield node.lineno, "makes its own random.Random"
            case ast.Attribute(ast.Name("random"), name) if name != "Random":
                yield node.lineno, f"uses random.{name}"


def test_the_package_keeps_the_rules() -> None:
    paths = sorted((ROOT / "trio_hub").rglob("*.py"))
    assert paths
    found = violations({path.relative_to(ROOT).as_posix(): path.read_text("utf-8") for path in paths})
    assert not found, "\n".join(found)


def house_faults(sources: Mapping[str, str]) -> list[str]:
    """Return the violations of the rules for the parts of the hub in ``{"trio_hub/hub/tasks.py": source}``.

    A part is a class of the hub. None inherits from another, none uses another's private names or sets its attributes,
    and none is too long to be read in one sitting.
    """
    trees = {path: ast.parse(source, path) for path, source in sources.items()}
    classes = [(path, node) for path, tree in trees.items() for node in tree.body if isinstance(node, ast.ClassDef)]
    ours = {node.name for _, node in classes}
    found: list[str] = []
    for path, source in sources.items():
        found += too_long(path, source)
    for path, node in classes:
        found += [
            f"{path}:{node.lineno}: {node.name} inherits from {base.id}"
            for base in node.bases
            if isinstance(base, ast.Name) and base.id in ours
        ]
        for inner in ast.walk(node):
            match inner:
                case ast.Attribute(value=value, attr=name) if is_private(name) and not is_self(value):
                    found.append(f"{path}:{inner.lineno}: {node.name} uses the private name {name}")
                case ast.Attribute(value=ast.Attribute(value=owner, attr=part), ctx=ast.Store()) if is_self(owner):
                    found.append(f"{path}:{inner.lineno}: {node.name} sets an attribute of {part}")
    return found


def too_long(path: str, source: str) -> Iterator[str]:
    """Yield the module, and each of its classes, if they are too long to be read in one sitting."""
    if len(source.splitlines()) > MAX_MODULE:
        yield f"{path}:1: {len(source.splitlines())} lines"
    for node in ast.parse(source, path).body:
        if isinstance(node, ast.ClassDef) and (length := (node.end_lineno or 0) - node.lineno + 1) > MAX_CLASS:
            yield f"{path}:{node.lineno}: {node.name} has {length} lines"


def is_private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__")


def is_self(node: ast.expr) -> bool:
    return isinstance(node, ast.Name) and node.id in ("self", "cls")


def test_the_hub_is_a_house_and_no_tower() -> None:
    paths = sorted((ROOT / "trio_hub" / "hub").glob("*.py"))
    assert paths
    found = house_faults({path.relative_to(ROOT).as_posix(): path.read_text("utf-8") for path in paths})
    assert not found, "\n".join(found)


@pytest.mark.parametrize("part", ["schedulers", "pools"])
def test_the_other_rules_are_no_towers_either(part: str) -> None:
    paths = sorted((ROOT / "trio_hub" / part).glob("*.py"))
    assert paths
    found = [fault for path in paths for fault in too_long(f"{part}/{path.name}", path.read_text("utf-8"))]
    assert not found, "\n".join(found)


@pytest.mark.parametrize(
    ("source", "fault"),
    [
        ("class A: pass\nclass B(A): pass", "2: B inherits from A"),
        ("class A:\n  def f(self): self.b._c()", "2: A uses the private name _c"),
        ("class A:\n  def f(self, b): return b._c", "2: A uses the private name _c"),
        ("class A:\n  def f(self): self.b.c = 1", "2: A sets an attribute of b"),
        ("class A:\n" + "  x = 1\n" * 250, "1: A has 251 lines"),
        ("x = 1\n" * 401, "1: 401 lines"),
    ],
)
def test_a_tower_is_found(source: str, fault: str) -> None:
    assert house_faults({"trio_hub/hub/a.py": source}) == [f"trio_hub/hub/a.py:{fault}"]


def test_a_house_is_not_taken_for_a_tower() -> None:
    source = "class A:\n  def f(self, b):\n    self._c = 1\n    b.d = self._c\n    self.e.f()\nclass P(Protocol): pass"
    assert house_faults({"trio_hub/hub/a.py": source}) == []


def test_the_table_itself_points_downwards() -> None:
    TopologicalSorter(MAY_IMPORT).prepare()


@pytest.mark.parametrize(
    ("path", "source", "fault"),
    [
        ("wire/frames.py", "from ..hub import Hub", "1: wire imports trio_hub.hub"),
        ("wire/frames.py", "import trio_hub.runtime.serve", "1: wire imports trio_hub.runtime.serve"),
        ("wire/frames.py", "def f():\n  from trio_hub import runtime", "2: wire imports trio_hub.runtime"),
        ("records/memory.py", "from ..schedulers import x", "1: records imports trio_hub.schedulers"),
        ("hub/__init__.py", "from .. import config", "1: hub imports trio_hub.config"),
        ("config.py", "from .hub import Hub", "1: config imports trio_hub.hub"),
        ("runtime/serve.py", "from .. import __version__", "1: runtime imports trio_hub"),
        ("runtime/serve.py", "from ..cli import main", "1: runtime imports trio_hub.cli"),
        ("testing/engine.py", "from ..cli import main", "1: testing imports trio_hub.cli"),
        ("dashboard/app.py", "from ..cli import main", "1: dashboard imports trio_hub.cli"),
        ("runtime/serve.py", "def f():\n  from ..dashboard import x", "2: runtime imports trio_hub.dashboard"),
        (
            "hub/hub.py",
            "if TYPE_CHECKING:\n  from ..runtime import serve",
            "2: hub imports trio_hub.runtime.serve",
        ),
        ("hub/hub.py", "import os", "1: hub imports os"),
        ("wire/frames.py", "from pathlib import Path", "1: wire imports pathlib"),
        ("wire/frames.py", "def f(p):\n  return open(p)", "2: opens a file"),
        ("records/memory.py", "import sqlite3", "1: records imports sqlite3"),
        ("transport/tcp.py", "from ..hub import Hub", "1: transport imports trio_hub.hub"),
        ("databases/batches.py", "import zmq", "1: databases imports zmq"),
        ("client/link.py", "from ..runtime import serve", "1: client imports trio_hub.runtime.serve"),
        ("hub/hub.py", "import sqlite3", "1: hub imports sqlite3"),
        ("schedulers/task.py", "import threading", "1: schedulers imports threading"),
        ("pools/sizing.py", "import time", "1: pools imports time"),
        ("pools/sizing.py", "from ..hub import Hub", "1: pools imports trio_hub.hub"),
        ("attic/old.py", "", "1: attic has no place in MAY_IMPORT"),
        ("hub/hub.py", "import trio", "1: hub imports trio"),
        ("wire/frames.py", "from zmq.error import Again", "1: wire imports zmq"),
        ("hub/hub.py", "def f():\n  import time", "2: hub imports time"),
        ("hub/hub.py", "datetime.datetime.now(UTC)", "1: reads a clock: .now()"),
        ("records/memory.py", "clock.monotonic()", "1: reads a clock: .monotonic()"),
        ("schedulers/schemes.py", "import random\nrandom.choice([])", "2: uses random.choice"),
        ("schedulers/schemes.py", "import random\nrandom.Random(1)", "2: makes its own random.Random"),
        ("schedulers/schemes.py", "from random import choice", "1: schedulers imports random.choice"),
        ("runtime/serve.py", "def f():\n  import ipyparallel", "2: runtime imports ipyparallel"),
        ("cli/demo.py", "import ipyparallel as ipp", "1: cli imports ipyparallel when it is loaded"),
        ("launchers.py", "from jupyter_client import x", "1: launchers imports jupyter_client"),
        ("launchers.py", "from .cli import main", "1: launchers imports trio_hub.cli"),
        ("cli/demo.py", "def f():\n  from .. import launchers", "2: cli imports trio_hub.launchers"),
    ],
)
def test_a_broken_rule_is_found(path: str, source: str, fault: str) -> None:
    others = {
        "__init__.py",
        "hub/__init__.py",
        "schedulers/__init__.py",
        "runtime/__init__.py",
        "runtime/serve.py",
        "config.py",
        "dashboard/__init__.py",
        "cli/__init__.py",
        "launchers.py",
    }
    sources = {f"trio_hub/{other}": "" for other in others} | {f"trio_hub/{path}": source}
    assert violations(sources) == [f"trio_hub/{path}:{fault}"]


@pytest.mark.parametrize(
    "late", ["from .b import x", "def f():\n  from . import b", "class C:\n  import trio_hub.hub.b"]
)
def test_a_circle_is_found(late: str) -> None:
    (found,) = violations({"trio_hub/hub/a.py": late, "trio_hub/hub/b.py": "from .a import y"})
    assert found.startswith("circle: ")
    assert {"trio_hub.hub.a", "trio_hub.hub.b"} <= set(found.removeprefix("circle: ").split(" → "))


def test_what_the_rules_allow_is_not_found() -> None:
    sources = {
        "trio_hub/__init__.py": "from .runtime.serve import serve_hub",
        "trio_hub/__main__.py": "from .cli import main",
        "trio_hub/errors.py": "",
        "trio_hub/wire/__init__.py": "from .frames import split",
        "trio_hub/wire/frames.py": "if TYPE_CHECKING:\n  from . import split\nfrom ..errors import WireError",
        "trio_hub/schedulers/schemes.py": "import random\ndef pick(rng: random.Random): rng.choice([1])",
        "trio_hub/hub/hub.py": "class Hub:\n  def f(self): return self.now()",
        "trio_hub/runtime/serve.py": "import time, trio, random\ntime.monotonic(), random.random()",
        "trio_hub/cli/__init__.py": "from .. import __version__\ndef demo():\n  import ipyparallel",
        "trio_hub/launchers.py": "import ipyparallel.cluster.launcher, traitlets",
    }
    assert violations(sources) == []
