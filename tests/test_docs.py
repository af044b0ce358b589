"""The documentation is right: commands, settings, names and snippets are checked against the code."""

from __future__ import annotations

import ast
import doctest
import inspect
import json
import os
import re
import runpy
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from copy import copy
from dataclasses import fields
from datetime import datetime
from importlib import import_module
from pathlib import Path

import click
import pytest

import trio_hub
import trio_hub.dashboard
import trio_hub.testing
from trio_hub import HubConfig, errors
from trio_hub.cli import main
from trio_hub.config import Pool, load_config
from trio_hub.config.pools import POOL_KEYS
from trio_hub.hub import events
from trio_hub.pools.settings import PoolSettings
from trio_hub.pools.sizing import Reason
from trio_hub.records import RECORD_KEYS, MemoryStore, parse_query
from trio_hub.records.matching import OPERATORS
from trio_hub.records.record import DATE_KEYS, PACKED_KEYS, TaskRecord

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
PAGES = sorted(DOCS.rglob("*.md"))
EMBEDDING = DOCS / "how-to" / "embed.md"
FROM_TRIO = DOCS / "tutorial" / "from-trio.md"
FROM_FUTURES = DOCS / "tutorial" / "from-concurrent-futures.md"
SCRIPTED = DOCS / "how-to" / "test-with-scripted-engines.md"
RECORDS = DOCS / "reference" / "records.md"
TUTORIAL = DOCS / "tutorial" / "first-cluster.md"
# Names of the old hub's reference page (IPython.parallel.controller.hub).
OLD_NAMES = {
    "EngineConnector": "id uuid pending stallback",
    "HubFactory": "client_url engine_url init_hub",
    "Hub": "loop session context queue query heartbeat notifier db engine_info client_info connection_request "
    "db_query dispatch_monitor_traffic dispatch_query finish_registration get_history get_results "
    "handle_heart_failure handle_new_heart purge_results queue_status register_engine resubmit_task "
    "save_iopub_message save_task_request save_task_result shutdown_request unregister_engine",
}
OLD_FUNCTIONS = ("empty_record", "init_record")


def section(text: str, title: str) -> str:
    """Return the text of the section with this title, without its heading."""
    found = re.search(rf"^(#+) {re.escape(title)}\n(.*?)(?=^#{{1,2}} |\Z)", text, re.DOTALL | re.MULTILINE)
    assert found is not None, f"no section {title!r}"
    return found[2]


def code_blocks(path: Path, *languages: str) -> list[tuple[str, str]]:
    """Return the language and text of each fenced block in these languages, in order."""
    found = re.findall(r"^```(\w+)\n(.*?)^```$", path.read_text(), re.DOTALL | re.MULTILINE)
    return [(language, text) for language, text in found if language in languages]


# Commands and settings


PAGE_OF_COMMANDS = DOCS / "reference" / "command.md"
REFERENCE = runpy.run_path(str(DOCS / "command_reference.py"))
COMMANDS: dict[str, click.Command] = dict(REFERENCE["commands"](main, "trio-hub"))


def test_what_the_code_says_of_commands_is_in_the_reference() -> None:
    text = PAGE_OF_COMMANDS.read_text()
    assert REFERENCE["renewed"](text) == text, "run `python docs/command_reference.py`"


@pytest.mark.parametrize("name", COMMANDS)
def test_every_option_of_a_command_is_in_the_reference_and_no_other(name: str) -> None:
    text = section(PAGE_OF_COMMANDS.read_text(), name)
    told = {
        option for row in re.findall(r"^\| (`-.*?) \|", text, re.MULTILINE) for option in re.findall(r"`(-.*?)`", row)
    }
    command = copy(COMMANDS[name])
    command._help_option = None  # click remembers what an earlier test had it called
    context = click.Context(command, help_option_names=["-h", "--help"])
    params = [param for param in command.get_params(context) if isinstance(param, click.Option)]
    assert told == {option for param in params for option in (*param.opts, *param.secondary_opts)}


def test_every_setting_is_in_the_reference_and_no_other() -> None:
    text = (DOCS / "reference" / "configuration.md").read_text()
    told_names = re.findall(r"^`(\w+)`\n: ", text, re.MULTILINE)
    assert sorted(told_names) == sorted(entry.name for entry in fields(HubConfig))
    for entry in fields(HubConfig):
        told = re.search(rf"^`{entry.name}`\n: (.*?)(?=^`|^#|\Z)", text, re.DOTALL | re.MULTILINE)
        assert told is not None
        default = re.search(r"\*\*Default:\*\* (\S+?)[.,;]?(\s|$)", told[1])
        assert default is not None, entry.name
        assert default[1].strip("`").replace(",", "") == default_in_words(entry.default), entry.name


PAGE_OF_POOLS = DOCS / "reference" / "pools.md"


def test_every_key_of_a_pool_is_in_the_reference_with_its_default() -> None:
    rows = re.findall(r"^\| `(\w+)` \| [^|]* \| ([^|]*) \|", section(PAGE_OF_POOLS.read_text(), "Keys"), re.MULTILINE)
    assert [key for key, _ in rows] == list(POOL_KEYS)
    defaults = {entry.name: entry.default for entry in (*fields(PoolSettings), *fields(Pool))}
    for key, told in rows:
        default, words = defaults[key], told.strip("`").partition(": ")[0]
        if isinstance(default, bool):
            assert words == str(default).lower(), key
        elif isinstance(default, int | float) and key != "max":
            assert words == f"{default:g}", key
        elif key in ("launcher", "engine"):
            assert words == default, key
        else:
            assert words in ("none", "the hub's Python"), key


def test_every_reason_of_a_pool_is_in_the_reference() -> None:
    told = re.findall(
        r"^\| `(\w+)` \|", section(PAGE_OF_POOLS.read_text(), "Why a pool does not grow or shrink"), re.MULTILINE
    )
    words = re.findall(r"``(\w+)``", (Reason.__doc__ or "").partition("- ``word``:")[2].partition("- ``text``")[0])
    assert len(words) == 15
    assert sorted(told) == sorted(words)


def test_the_pools_of_the_reference(tmp_path: Path) -> None:
    blocks = code_blocks(PAGE_OF_POOLS, "toml", "bash")
    assert {language for language, _ in blocks} == {"toml", "bash"}
    file = tmp_path / "hub.toml"
    for language, text in blocks:
        if language == "toml":
            file.write_text(text)
            assert [pool.name for pool in load_config({}, {}, file).pools] == ["short", "local"]
            continue
        for line in text.splitlines():
            (pool,) = load_config({"pools": (shlex.split(line)[-1],)}, {}, None).pools
            assert pool.settings.max in (8, 64)


def default_in_words(value: object) -> str:
    if value in ("", ()):
        return "none" if value == () else "empty"
    return f"{value:.0f}" if isinstance(value, float) else str(value)


def test_every_exit_code_is_in_the_reference() -> None:
    from trio_hub.cli import codes

    both = {codes.OK, codes.FAILED, codes.BAD_USAGE, codes.after_signal(signal.SIGINT)}
    for title, more in (
        ("Exit codes", {codes.after_signal(signal.SIGTERM)}),
        ("Exit codes of commands that ask", {codes.NO_HUB, codes.TIMED_OUT}),
    ):
        text = section(PAGE_OF_COMMANDS.read_text(), title)
        assert {int(code) for code in re.findall(r"^\| (\d+) \|", text, re.MULTILINE)} == both | more


# Records and messages


def test_every_record_key_and_operator_is_in_the_reference() -> None:
    text = (DOCS / "reference" / "records.md").read_text()
    keys = re.findall(r"^\| `(\w+)` \|", section(text, "Keys"), re.MULTILINE)
    assert keys == list(RECORD_KEYS)
    operators = re.findall(r"^\| `(\$\w+)` \|", section(text, "Operators"), re.MULTILINE)
    assert sorted(operators) == sorted(OPERATORS)


class RecordsOfThePage:
    """The `db_query` of a client, asked of the records that a page shows."""

    def __init__(self, shown: str) -> None:
        self.store = MemoryStore()
        for values in json.loads(shown):
            record = TaskRecord(values.pop("msg_id"))
            for key, value in values.items():
                if key in DATE_KEYS:
                    value = datetime.fromisoformat(value)
                setattr(record, key, json.dumps(value).encode() if key in PACKED_KEYS else value)
            self.store.add(record)

    def db_query(self, query: object, keys: list[str] | None = None) -> list[dict[str, object]]:
        found: list[list[dict[str, object]]] = []

        async def ask() -> None:
            found.append(await self.store.find(parse_query(query), keys))

        with suppress(StopIteration):
            ask().send(None)  # in memory nothing is waited for
        return found[0]


@pytest.fixture
def names_of_the_examples() -> dict[str, object]:
    blocks = code_blocks(RECORDS, "json", "python")
    (shown,) = (text for language, text in blocks if language == "json")
    (helper,) = (text for language, text in blocks if language == "python" and "def matching" in text)
    names: dict[str, object] = {"rc": RecordsOfThePage(shown)}
    exec(helper, names)
    return names


EXAMPLES = [text for _, text in code_blocks(RECORDS, "pycon")]


@pytest.mark.parametrize("number", range(len(EXAMPLES)))
def test_the_examples_of_queries(number: int, names_of_the_examples: dict[str, object]) -> None:
    test = doctest.DocTestParser().get_doctest(EXAMPLES[number], names_of_the_examples, f"example {number}", None, None)
    assert test.examples
    told: list[str] = []
    result = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS).run(test, out=told.append)
    assert result.failed == 0, "".join(told)


def test_the_first_queries_of_the_page_are_in_the_language(names_of_the_examples: dict[str, object]) -> None:
    (_, first), *_ = code_blocks(RECORDS, "python")
    assert first.count("rc.db_query") >= 5
    exec(first, names_of_the_examples)


def test_the_examples_show_every_operator() -> None:
    assert {found for text in EXAMPLES for found in re.findall(r'"(\$\w+)"', text)} == set(OPERATORS)


def test_every_kind_of_unreadable_message_is_in_the_reference() -> None:
    text = section((DOCS / "reference" / "protocol.md").read_text(), "Unreadable messages")
    assert re.findall(r"^\| `(\w+)` \|", text, re.MULTILINE) == list(errors.WireError.KINDS)


def test_each_line_about_an_attacker_names_the_tests_that_show_it() -> None:
    text = section((DOCS / "explanation" / "security.md").read_text(), "What each attacker can do")
    sources = "".join(path.read_text() for path in Path(__file__).parent.rglob("test_*.py"))
    rows = [line.split(" | ") for line in text.splitlines() if line.startswith("|")][2:]
    assert len(rows) > 10
    for row in rows:
        names = re.findall(r"`(test_\w+)`", row[-1])
        assert names, row
        for name in names:
            assert f"def {name}(" in sources, name


# Names


def has(owner: object, name: str) -> bool:
    """Return whether an object has an attribute, or whether the methods of a class set it on instances."""
    if hasattr(owner, name):
        return True
    if not inspect.isclass(owner):
        return False
    sources = [inspect.getsource(base) for base in owner.__mro__ if base.__module__.startswith("trio_hub")]
    return any(re.search(rf"\bself\.{name}(: [^=\n]+)? = ", source) for source in sources)


def resolves(dotted: str) -> bool:
    """Return whether a dotted name such as ``trio_hub.x.y.Z.w`` names an object."""
    parts = dotted.split(".")
    for depth in range(len(parts), 0, -1):
        try:
            found: object = import_module(".".join(parts[:depth]))
        except ModuleNotFoundError:
            continue
        for index, name in enumerate(parts[depth:], depth):
            if not has(found, name):
                return False
            if not hasattr(found, name):
                return index == len(parts) - 1
            found = getattr(found, name)
        return True
    return False


@pytest.mark.parametrize(
    ("dotted", "there"),
    [
        ("trio_hub.hub.hub", True),
        ("trio_hub.hub.queries.Queries.queue_status", True),
        ("trio_hub.hub.hub.Hub.session", True),
        ("trio_hub.hub.hub.Hub.nonsense", False),
        ("trio_hub.hub.nonsense", False),
        ("nonsense.hub", False),
    ],
)
def test_resolves(dotted: str, there: bool) -> None:
    assert resolves(dotted) is there


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(DOCS).as_posix())
def test_names_in_the_pages_are_where_the_pages_say(page: Path) -> None:
    text = re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.DOTALL | re.MULTILINE)
    names = set(re.findall(r"`(trio_hub(?:\.\w+)+)`", text))
    assert not [name for name in sorted(names) if not resolves(name)]


def test_every_name_of_the_old_hub_is_mapped() -> None:
    text = (DOCS / "reference" / "names.md").read_text()
    rows = dict(re.findall(r"^\| `([\w.]+)`[^|]*\| (.*?) \|", text, re.MULTILINE))
    wanted = {f"{owner}.{name}" for owner, names in OLD_NAMES.items() for name in names.split()}
    wanted |= {*OLD_NAMES, *OLD_FUNCTIONS, "IPython.parallel.controller.hub"}
    assert rows.keys() == wanted
    assert not [name for name, here in rows.items() if "`trio_hub." not in here]


def test_every_public_name_is_in_the_reference() -> None:
    text = (DOCS / "reference" / "api.md").read_text()
    told = set(re.findall(r"^\.\. auto\w+:: ([\w.]+)", text, re.MULTILINE))
    for name in trio_hub.__all__:
        assert f"trio_hub.{name}" in told or name in errors.__all__, name
    for module in (trio_hub.testing, trio_hub.dashboard):
        for name in module.__all__:
            assert f"{module.__name__}.{name}" in told, name
    assert {"trio_hub.errors", "trio_hub.hub.events"} <= told
    assert not [name for name in told if not resolves(name)]


def test_every_public_name_says_what_it_is() -> None:
    for module in (trio_hub, trio_hub.dashboard, trio_hub.testing, errors, events):
        for name in module.__all__:
            found = getattr(module, name)
            assert not callable(found) or inspect.getdoc(found), name


# Snippets


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(DOCS).as_posix())
def test_python_blocks_are_python(page: Path) -> None:
    for _, text in code_blocks(page, "python"):
        ast.parse(text)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(DOCS).as_posix())
def test_commands_in_the_pages_exist(page: Path) -> None:
    for _, text in code_blocks(page, "bash"):
        for line in text.splitlines():
            words = shlex.split(line, comments=True)
            if "trio-hub" not in words[:1] and not line.startswith(".venv/bin/trio-hub"):
                continue
            command = COMMANDS[f"trio-hub {words[1]}"]
            command.make_parser(click.Context(command)).parse_args(words[2:])


SCRIPTED_TESTS = "\n".join(text for _, text in code_blocks(SCRIPTED, "python"))


@pytest.mark.parametrize("name", re.findall(r"^async def (test_\w+)", SCRIPTED_TESTS, re.MULTILINE))
async def test_the_examples_with_scripted_engines(name: str) -> None:
    namespace: dict[str, object] = {}
    exec(compile(SCRIPTED_TESTS, SCRIPTED, "exec"), namespace)
    test = namespace[name]
    assert callable(test)
    await test()


def examples(page: Path) -> list[tuple[str, str | None]]:
    """Return each Python block with its output: the text block between this Python block and the next one."""
    found: list[tuple[str, str | None]] = []
    for language, text in code_blocks(page, "python", "text"):
        if language == "python":
            found.append((text, None))
        elif found and found[-1][1] is None:
            found[-1] = (found[-1][0], text)
    return found


def check_output(expected: str | None, printed: str) -> None:
    """Check that the output is what the page shows. An ellipsis on the page stands for any text."""
    same = doctest.OutputChecker().check_output(expected or "", printed, doctest.ELLIPSIS)
    assert same, f"expected:\n{expected}\nprinted:\n{printed}"


def quiet_environment(directory: Path) -> dict[str, str]:
    """Return variables that keep a program out of the user's profiles and settings, and in those of this directory."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("TRIO_HUB_", "IPP_"))}
    return inherited | {"IPYTHONDIR": f"{directory}/ipython", "JUPYTER_RUNTIME_DIR": f"{directory}/runtime"}


@contextmanager
def quiet_process(directory: Path, *command: str | Path, **variables: str) -> Iterator[subprocess.Popen[str]]:
    """Run a process in a directory, without the user's profiles and settings, and stop it after the block.

    Args:
        directory: The working directory. A file there, such as ``program.log`` for ``python program.py``, gets stderr.
        command: The command line.
        variables: Further environment variables.
    """
    environment = quiet_environment(directory) | variables
    with (
        (directory / f"{Path(command[1]).stem}.log").open("w") as log,
        subprocess.Popen(
            [*command], cwd=directory, stdout=subprocess.PIPE, stderr=log, text=True, env=environment
        ) as process,
    ):
        try:
            yield process
        finally:
            if process.poll() is None:
                process.terminate()  # not kill: a hub stops its engines, too
                try:
                    process.wait(timeout=60)
                except subprocess.TimeoutExpired:
                    process.kill()


@pytest.mark.interop
@pytest.mark.parametrize(
    ("page", "number"),
    [(page, number) for page in (EMBEDDING, FROM_TRIO) for number in range(len(examples(page)))],
    ids=lambda value: value.stem if isinstance(value, Path) else None,
)
def test_the_examples_that_are_programs(page: Path, number: int, tmp_path: Path) -> None:
    program, expected = examples(page)[number]
    script = tmp_path / "program.py"
    script.write_text(program)
    with quiet_process(tmp_path, sys.executable, script) as process:
        printed, _ = process.communicate(timeout=120)
    assert process.returncode == 0, (tmp_path / "program.log").read_text()
    check_output(expected, printed)
    assert not list(tmp_path.rglob("ipcontroller*.json")), "connection files are left"


@pytest.mark.interop
def test_the_tutorial_of_the_executor(tmp_path: Path) -> None:
    """The command and the programs of the page, one after the other, print the output that the page shows."""
    (command,) = (text for _, text in code_blocks(FROM_FUTURES, "bash") if "trio-hub serve" in text)
    program, *options = shlex.split(command)
    assert program == ".venv/bin/trio-hub"
    with quiet_process(tmp_path, sys.executable, "-m", "trio_hub", *options) as hub:
        assert hub.stdout is not None
        assert hub.stdout.readline().startswith("trio-hub ready")
        for number, (block, expected) in enumerate(examples(FROM_FUTURES)):
            script = tmp_path / f"program{number}.py"
            script.write_text(block)
            with quiet_process(tmp_path, sys.executable, script) as client:
                printed, _ = client.communicate(timeout=120)
            assert client.returncode == 0, (tmp_path / f"program{number}.log").read_text()
            check_output(expected, printed)


RUNNER = """
import contextlib, io, json, pathlib
namespace = {"__name__": "__main__"}
for block in json.loads(pathlib.Path("blocks.json").read_text()):
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        exec(block, namespace)
    print(json.dumps(printed.getvalue()), flush=True)
"""


@pytest.mark.interop
def test_the_tutorial(tmp_path: Path) -> None:
    """The command and each Python block of the page print the output that the page shows."""
    (command,) = (text for _, text in code_blocks(TUTORIAL, "bash") if "trio-hub serve" in text)
    program, *options = shlex.split(command)
    assert program == ".venv/bin/trio-hub"
    blocks = examples(TUTORIAL)
    (tmp_path / "blocks.json").write_text(json.dumps([program for program, _ in blocks]))
    (tmp_path / "client.py").write_text(RUNNER)
    with quiet_process(tmp_path, sys.executable, "-m", "trio_hub", *options) as hub:
        assert hub.stdout is not None
        assert hub.stdout.readline().startswith("trio-hub ready: connect with ipp.Client(profile_dir=")
        with quiet_process(tmp_path, sys.executable, "client.py") as client:
            printed, _ = client.communicate(timeout=240)
        complaints = (tmp_path / "client.log").read_text()
        outputs = [json.loads(line) for line in printed.splitlines()]
        for (_, expected), output in zip(blocks, outputs, strict=False):
            check_output(expected, output)
        assert len(outputs) == len(blocks), complaints
        assert client.returncode == 0, complaints
        assert hub.wait(timeout=60) == 0
    assert not list(tmp_path.rglob("ipcontroller*.json")), "connection files are left"
