"""User code that reads its input: it never waits, also if the engine was started in a terminal."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Generator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
import trio

from trio_hub import RemoteError, connect
from trio_hub.testing import open_client, open_hub

from .support import LIMIT, open_engine_process

pytestmark = pytest.mark.interop

IN_TERMINAL = """
import fcntl, os, sys, termios
os.setsid()
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
os.execv(sys.executable, [sys.executable, "-m", "trio_hub", "engine", *sys.argv[1:]])
"""
"""A program that runs the command as a terminal's shell does: with the terminal as its controlling terminal."""
WITHOUT_INPUT = """
import os, sys
os.close(0)
os.execv(sys.executable, [sys.executable, "-m", "trio_hub", "engine", *sys.argv[1:]])
"""


@contextmanager
def terminal() -> Generator[int, None, None]:
    """Give a descriptor of a terminal."""
    user, program = os.openpty()
    with closing(os.fdopen(user, "rb", buffering=0)), closing(os.fdopen(program, "rb", buffering=0)):
        yield program


def reads_everywhere() -> list[str]:
    """Read the input in each way, and return what happened."""
    import subprocess
    import sys

    said = []
    try:
        input("name? ")
    except EOFError:
        said.append("EOFError")
    said.append(sys.stdin.read())
    said.append(subprocess.run(["cat"], stdout=subprocess.PIPE, check=True, text=True).stdout)
    return said


def reads_the_terminal() -> str:
    """Read the terminal as ``getpass`` does. Return the name of the error."""
    import errno
    import os

    try:
        return os.read(os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY), 1).decode()
    except OSError as error:
        return errno.errorcode[error.errno or 0]


async def test_input_in_a_terminal_is_at_its_end(tmp_path: Path) -> None:
    with terminal() as stdin, trio.fail_after(LIMIT):
        async with (
            open_hub() as hub,
            open_engine_process(tmp_path, info=hub.engine_info, program=["-c", IN_TERMINAL], stdin=stdin),
        ):
            await hub.wait_engines(1)
            async with connect(connection_info=hub.client_info) as client, open_client(hub.client_info) as raw:
                assert await client.apply(reads_everywhere) == ["EOFError", "", ""]
                assert await client.apply(reads_the_terminal) == "EIO"
                with pytest.raises(RemoteError, match=r"EOFError|BdbQuit"):
                    await client.apply(breakpoint)
                uuid = (await raw.query("connection_request")).content["engines"]["0"]
                content = {"code": "input()", "silent": False, "allow_stdin": False, "user_expressions": {}}
                reply = await raw.reply(raw.send("mux", "execute_request", content, to=uuid))
                assert reply.content["ename"] == "StdinNotImplementedError", "as with stock engines"


@pytest.mark.parametrize("options", [(), ("--IPEngine.enable_nanny=False",)])
async def test_input_of_any_kind_is_at_its_end(tmp_path: Path, options: tuple[str, ...]) -> None:
    """The input is a pipe into which nobody writes; or there is no input, as descriptor 0 is closed."""
    for program, stdin in (["-m", "trio_hub", "engine"], subprocess.PIPE), (["-c", WITHOUT_INPUT], subprocess.DEVNULL):
        with trio.fail_after(LIMIT):
            async with (
                open_hub() as hub,
                open_engine_process(tmp_path, *options, info=hub.engine_info, program=program, stdin=stdin) as engine,
            ):
                await hub.wait_engines(1)
                async with connect(connection_info=hub.client_info) as client:
                    assert await client.apply(reads_everywhere) == ["EOFError", "", ""]
                if engine.process.stdin is not None:
                    await engine.process.stdin.aclose()
