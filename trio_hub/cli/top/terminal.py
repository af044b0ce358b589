"""The terminal that `top` has to itself for a while: keys that are read at once, and a screen that is given back."""

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
"""What keys send, and what they are called here."""

# A key is a sequence that begins with ESC, or one character.
_KEY = re.compile(r"\x1b\[[0-9;]*[A-Za-z~]|\x1bO[A-Z]|[\s\S]")


class Keys:
    """The keys that are pressed. `keyboard` makes it."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    async def pressed(self) -> list[str]:
        """The next keys, by their names in `KEYS`; others are left out. ``quit``, when the terminal is gone."""
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
    """A terminal that hands over each key at once and shows none, until the end of the block."""
    before = termios.tcgetattr(descriptor)
    tty.setcbreak(descriptor)
    try:
        yield Keys(descriptor)
    finally:
        termios.tcsetattr(descriptor, termios.TCSADRAIN, before)
