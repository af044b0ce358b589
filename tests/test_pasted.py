"""The tutorials and the README do what they say when their Python blocks are pasted into a shell."""

from __future__ import annotations

import shlex
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from itertools import pairwise
from pathlib import Path
from subprocess import Popen

import pytest

from .shells import open_shell
from .test_docs import (
    DOCS,
    FROM_FUTURES,
    FROM_TRIO,
    ROOT,
    TUTORIAL,
    check_output,
    code_blocks,
    examples,
    quiet_environment,
    quiet_process,
)

README = ROOT / "README.md"
POOLS = DOCS / "tutorial" / "engines-on-demand.md"
SHELLS = ("python", "ipython")
# A hub waits so long before it gives the task of a dead engine to another one; by default 5 s.
QUICK = {"TRIO_HUB_STRANDED_GRACE": "0.2"}


@contextmanager
def hub_of(page: Path, directory: Path) -> Iterator[Popen[str]]:
    """Run the page's one ``trio-hub serve`` command until the end of the block."""
    commands = [line for _, text in code_blocks(page, "bash") for line in text.splitlines()]
    (command,) = (line for line in commands if line.startswith(".venv/bin/trio-hub serve "))
    _, *arguments = shlex.split(command)
    with quiet_process(directory, sys.executable, "-m", "trio_hub", *arguments, **QUICK) as hub:
        assert hub.stdout is not None
        assert hub.stdout.readline(), (directory / "-m.log").read_text()
        yield hub


@pytest.mark.interop
@pytest.mark.parametrize("kind", SHELLS)
@pytest.mark.parametrize("page", [TUTORIAL, FROM_FUTURES, FROM_TRIO, README], ids=lambda page: page.stem)
def test_each_block_prints_in_a_shell_what_the_page_shows(page: Path, kind: str, tmp_path: Path) -> None:
    with (
        nullcontext() if page == FROM_TRIO else hub_of(page, tmp_path) as hub,
        open_shell(kind, tmp_path, quiet_environment(tmp_path)) as shell,
    ):
        for block, expected in examples(page):
            check_output(expected, shell.paste(block))
        if page == TUTORIAL:
            assert hub is not None
            assert hub.wait(timeout=60) == 0
            assert not list(tmp_path.rglob("ipcontroller*.json")), "connection files are left"


@pytest.mark.interop
def test_each_block_of_the_readme_is_a_program(tmp_path: Path) -> None:
    with hub_of(README, tmp_path):
        for block, expected in examples(README):
            (tmp_path / "program.py").write_text(block)
            with quiet_process(tmp_path, sys.executable, "program.py") as program:
                printed, _ = program.communicate(timeout=120)
            assert program.returncode == 0, (tmp_path / "program.log").read_text()
            check_output(expected, printed)


@pytest.mark.interop
def test_the_blocks_of_the_tutorial_are_a_script(tmp_path: Path) -> None:
    """Other tests run each program of the other tutorials as a script."""
    blocks = examples(TUTORIAL)
    (tmp_path / "tutorial.py").write_text("\n".join(block for block, _ in blocks))
    with hub_of(TUTORIAL, tmp_path) as hub:
        with quiet_process(tmp_path, sys.executable, "tutorial.py") as program:
            printed, _ = program.communicate(timeout=240)
        assert program.returncode == 0, (tmp_path / "tutorial.log").read_text()
        check_output("".join(expected or "" for _, expected in blocks), printed)
        assert hub.wait(timeout=60) == 0
    assert not list(tmp_path.rglob("ipcontroller*.json")), "connection files are left"


def run_line(line: str, directory: Path) -> str:
    """Run a command of a page, and return what it prints."""
    program, *arguments = shlex.split(line)
    assert program == ".venv/bin/trio-hub"
    ran = subprocess.run(
        [sys.executable, "-m", "trio_hub", *arguments],
        cwd=directory,
        env=quiet_environment(directory),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    return ran.stdout


@pytest.mark.interop
@pytest.mark.parametrize("kind", SHELLS)
def test_the_tutorial_of_pools(kind: str, tmp_path: Path) -> None:
    """Each block, in the order of the page: commands in a terminal, and Python in a shell.

    There are fewer tasks than on the page, and idle engines go sooner, so that the test does not take longer.
    """
    installation, serve, *_ = blocks = code_blocks(POOLS, "bash", "python", "text", "toml")
    assert installation[1].startswith(".venv/bin/pip install ")
    _, *arguments = shlex.split(serve[1].replace("idle_timeout=5", "idle_timeout=1").replace(" 8788", " 0"))
    with (
        quiet_process(tmp_path, sys.executable, "-m", "trio_hub", *arguments) as hub,
        open_shell(kind, tmp_path, quiet_environment(tmp_path)) as shell,
    ):
        assert hub.stdout is not None
        lines = [hub.stdout.readline() for _ in range(4)]
        assert "dashboard" in lines[-1], lines
        for (language, text), (next_language, shown) in pairwise([*blocks[2:], ("", "")]):
            printed = ""
            if language == "python":
                printed = shell.paste(text.replace("* 200", "* 100"))
            elif language == "toml":
                (tmp_path / "cluster.toml").write_text(text)
            elif language == "bash" and (kind == SHELLS[0] or next_language == "text"):  # the others change nothing
                printed = run_line(text, tmp_path)
            if next_language == "text":
                check_output(shown.replace("200", "100"), printed)
        assert hub.wait(timeout=60) == 0
    assert not list(tmp_path.rglob("ipcontroller*.json")), "connection files are left"


def test_every_tutorial_is_pasted() -> None:
    assert {page.name for page in (DOCS / "tutorial").glob("*.md")} == {
        "index.md", TUTORIAL.name, FROM_FUTURES.name, FROM_TRIO.name, POOLS.name
    }  # fmt: skip
