"""Python shells in pseudo-terminals, into which tests paste text as a person does."""

from __future__ import annotations

import os
import re
import select
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

ESCAPES = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07]*\x07|[()][0-9A-Za-z]|[=>78])")
PROGRESS_BAR = re.compile(r"\d+%\|.*engine")
PATIENCE_SECONDS = 120.0


class Shell(Protocol):
    """A shell that runs pasted blocks."""

    def paste(self, block: str) -> str:
        """Paste a block without its last line break, press Enter until it runs, and return what the shell prints."""


class Terminal:
    """The user's side of a pseudo-terminal: what a program shows, and keys for it."""

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor
        self.shown = ""

    def type(self, keys: str) -> None:
        data = keys.encode()
        while data:
            data = data[os.write(self.descriptor, data) :]

    def wait(self, shows: Callable[[str], bool], start: int = 0) -> str:
        """Wait until `shows` is true for the text shown from position `start` on, and return that text."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not shows(shown := self.shown[start:]):
            ready, _, _ = select.select([self.descriptor], [], [], max(0.0, deadline - time.monotonic()))
            assert ready, f"after {PATIENCE_SECONDS} s the shell shows only {shown!r}"
            try:
                data = os.read(self.descriptor, 65536)
            except OSError:  # Linux raises EIO when the program has closed its side
                data = b""
            assert data, f"the shell has ended: {shown!r}"
            self.shown += data.decode(errors="replace")
        return shown


class PlainPython:
    """Python's own shell. It reads a paste line by line, so a blank line ends a function or another indented block."""

    PROMPT = re.compile(r"(?:>>> |\.\.\. )")

    def __init__(self, terminal: Terminal) -> None:
        self.terminal = terminal
        terminal.wait(lambda shown: shown.endswith(">>> "))

    def paste(self, block: str) -> str:
        terminal = self.terminal
        start = len(terminal.shown)
        block = block.rstrip("\n") + "\n"  # the last line break is the user's Enter
        lines = block.count("\n")
        terminal.type(block)
        # The shell answers each line with a prompt.
        shown = terminal.wait(
            lambda shown: len(self.PROMPT.findall(shown)) >= lines and shown.endswith((">>> ", "... ")), start
        )
        if shown.endswith("... "):  # an indented block is open
            terminal.type("\n")
            shown = terminal.wait(lambda shown: shown.endswith(">>> "), start)
        return shown_lines(self.PROMPT.sub("", shown))


class IPythonShell:
    """IPython. It takes a paste as one cell."""

    # IPython turns bracketed paste on when it shows a prompt, and off when it runs a cell.
    PROMPT_SHOWN, CELL_RUNS = "\x1b[?2004h", "\x1b[?2004l"

    def __init__(self, terminal: Terminal) -> None:
        self.terminal = terminal
        terminal.wait(lambda shown: self.PROMPT_SHOWN in shown)

    def paste(self, block: str) -> str:
        terminal = self.terminal
        start = len(terminal.shown)
        block = block.rstrip("\n")
        enters = "\r\r" if block.rsplit("\n", 1)[-1].startswith(" ") else "\r"
        terminal.type(f"\x1b[200~{block}\x1b[201~{enters}")
        shown = terminal.wait(lambda shown: self.PROMPT_SHOWN in shown.partition(self.CELL_RUNS)[2], start)
        printed, _, _ = shown.partition(self.CELL_RUNS)[2].partition(self.PROMPT_SHOWN)
        return shown_lines(printed)


def shown_lines(text: str) -> str:
    """Return the lines that a person reads: without escape sequences, progress bars, and blank lines around them."""
    lines = ESCAPES.sub("", text).replace("\r\n", "\n").replace("\r", "\n").split("\n")
    kept = "\n".join(line.rstrip() for line in lines if not PROGRESS_BAR.search(line)).strip("\n")
    return f"{kept}\n" if kept else ""


@contextmanager
def open_shell(kind: str, directory: Path, environment: Mapping[str, str]) -> Iterator[Shell]:
    """Open a shell, ``python`` or ``ipython``, in a pseudo-terminal in this directory, and kill it after the block."""
    module = ["-m", "IPython"] if kind == "ipython" else []
    variables = {
        "TERM": "xterm" if kind == "ipython" else "dumb",
        "HOME": str(directory),  # for the history of the shell
        "PROMPT_TOOLKIT_NO_CPR": "1",  # this terminal does not report the position of the cursor
        "PYTHON_BASIC_REPL": "1",  # since Python 3.13, its newer shell takes a paste as a whole
    }
    user, program = os.openpty()
    try:
        termios.tcsetwinsize(program, (50, 200))
        attributes = termios.tcgetattr(program)
        attributes[3] &= ~termios.ECHO  # so that the terminal shows only what the program writes
        termios.tcsetattr(program, termios.TCSANOW, attributes)
        process = subprocess.Popen(
            [sys.executable, *module],
            cwd=directory,
            env={**environment, **variables},
            stdin=program,
            stdout=program,
            stderr=program,
            start_new_session=True,
        )
        os.close(program)
        try:
            terminal = Terminal(user)
            shell: Shell = IPythonShell(terminal) if kind == "ipython" else PlainPython(terminal)
            yield shell
        finally:
            process.kill()
            process.wait()
    finally:
        os.close(user)
