"""The tutorials and the README do what they say when their Python blocks are pasted into a shell."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from subprocess import PIPE, Popen, run

import pytest

from .shells import open_shell
from .test_docs import DOCS, FROM_FUTURES, FROM_TRIO, ROOT, TUTORIAL, check_output, code_blocks, examples

README = ROOT / "README.md"
SHELLS = ("python", "ipython")
# A hub waits so long before it gives the task of a dead engine to another one; by default 5 s.
QUICK = {"TRIO_HUB_STRANDED_GRACE": "0.2"}


def environment(directory: Path) -> dict[str, str]:
    """Return variables that keep a program out of the user's profiles, and in those of this directory."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("TRIO_HUB_", "IPP_"))}
    return inherited | {"IPYTHONDIR": f"{directory}/ipython", "JUPYTER_RUNTIME_DIR": f"{directory}/runtime"}


@contextmanager
def hub_of(page: Path, directory: Path) -> Iterator[Popen[str]]:
    """Run the page's one ``trio-hub serve`` command until the end of the block."""
    commands = [line for _, text in code_blocks(page, "bash") for line in text.splitlines()]
    (command,) = (line for line in commands if line.startswith(".venv/bin/trio-hub serve "))
    _, *arguments = shlex.split(command)
    with (
        (directory / "hub.log").open("w") as log,
        Popen(
            [sys.executable, "-m", "trio_hub", *arguments],
            cwd=directory,
            env=environment(directory) | QUICK,
            stdout=PIPE,
            stderr=log,
            text=True,
        ) as hub,
    ):
        try:
            assert hub.stdout is not None
            assert hub.stdout.readline(), (directory / "hub.log").read_text()
            yield hub
        finally:
            hub.terminate()  # does nothing to a hub that has ended


@pytest.mark.interop
@pytest.mark.parametrize("kind", SHELLS)
@pytest.mark.parametrize("page", [TUTORIAL, FROM_FUTURES, FROM_TRIO, README], ids=lambda page: page.stem)
def test_each_block_prints_in_a_shell_what_the_page_shows(page: Path, kind: str, tmp_path: Path) -> None:
    with (
        nullcontext() if page == FROM_TRIO else hub_of(page, tmp_path) as hub,
        open_shell(kind, tmp_path, environment(tmp_path)) as shell,
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
            done = run(
                [sys.executable, "program.py"],
                cwd=tmp_path,
                env=environment(tmp_path),
                capture_output=True,
                text=True,
                timeout=120,
                check=False,
            )
            assert done.returncode == 0, done.stderr
            check_output(expected, done.stdout)


def test_every_tutorial_is_pasted() -> None:
    assert {page.name for page in (DOCS / "tutorial").glob("*.md")} == {
        "index.md", TUTORIAL.name, FROM_FUTURES.name, FROM_TRIO.name
    }  # fmt: skip
