"""The keyboard of a terminal, with keys that are read at once, and whose settings are restored afterwards."""

from __future__ import annotations

import os
import re
import termios
import tty
from collections.abc import Iterator
from contextlib import contextmanager

import trio

__all__ = ["Keys", "keyboard"]

KEYS = {
    "\x1b[A": "up",
    "\x1bOA": "up",
    "k": "up",
    "\x1b[B": "down",
    "\x1bOB": "down",
    "j": "down",
    "\x1b[5~": "page up",
    "\x1b[6~": "page down",
    " ": "page down",
    "\x1b[H": "home",
    "\x1b[1~": "home",
    "\x1bOH": "home",
    "q": "quit",
    "Q": "quit",
    "p": "pause",
    "s": "sort",
}
"""The characters that keys send, and the names of the keys."""

# A key is a sequence that begins with ESC, or one character.
_KEY = re.compile(r"\x1b\[[0-9;]*[A-Za-z~]|\x1bO[A-Z]|[\s\S]")


class Keys:
    """Reads the keys that the user presses. Made by `keyboard`."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    async def pressed(self) -> list[str]:
        """Wait for keys. Return their names in `KEYS`, without other keys; ``quit`` if the terminal is gone."""
        await trio.lowlevel.wait_readable(self._descriptor)
        try:
            data = os.read(self._descriptor, 1024)
        except OSError:
            data = b""
        if not data:
            return ["quit"]
        return [KEYS[key] for key in _KEY.findall(data.decode("utf-8", "replace")) if key in KEYS]


@contextmanager
def keyboard(descriptor: int) -> Iterator[Keys]:
    """Set a terminal to pass on each key at once without showing it, until the end of the block."""
    before = termios.tcgetattr(descriptor)
    tty.setcbreak(descriptor)
    try:
        yield Keys(descriptor)
    finally:
        termios.tcsetattr(descriptor, termios.TCSADRAIN, before)
