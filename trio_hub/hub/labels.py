"""What a request is called, for people who watch: by its label, its function's name, or the kind of its message.

A function's name is in the pickle that a client sends. That is read as text is read, opcode by opcode, and never
unpickled: whatever the bytes are, nothing comes of them but a name or none.
"""

from __future__ import annotations

import pickletools  # it lists opcodes, and carries none of them out
from collections.abc import Sequence
from typing import Any

from ..wire.frames import Buffer
from ..wire.plain import json_text

__all__ = ["MAX_LABEL", "Labels", "function_name"]

MAX_LABEL = 100
"""Characters of a label that are kept."""
REMEMBERED = 1000
"""Functions whose names are remembered; many calls are of few functions."""
MAX_PICKLE = 16_384
"""Bytes of a pickle up to which a name is looked for."""
MAX_OPCODES = 2000
"""Opcodes that are looked at: some hundred are a usual function."""
SCANS, SCANS_PER_CALL = 100.0, 0.05
"""Pickles that are read at once, and then one in so many calls: to read one costs as much as a task."""
_MAP = "_map"  # what a stock client sends for each piece of a map; the mapped function is its first argument


class Labels:
    """Finds labels. Most calls cost a look into a dict."""

    def __init__(self) -> None:
        self._names: dict[bytes, str] = {}
        self._scans = SCANS

    def of(self, label: Any, msg_type: str, buffers: Sequence[Buffer]) -> str:
        """A request's label: the one that its metadata states, or the function's name, or the message's kind."""
        if label is not None and label != "":
            return label[:MAX_LABEL] if isinstance(label, str) else json_text(label)[:MAX_LABEL]
        if msg_type == "apply_request" and buffers:
            name = self._name_in(buffers[0])
            if name == _MAP and len(buffers) > 2:
                name = self._name_in(buffers[2])
            if name:
                return name
        return msg_type.removesuffix("_request")[:MAX_LABEL]

    def _name_in(self, buffer: Buffer) -> str:
        if len(buffer) > MAX_PICKLE:
            return ""
        pickled = bytes(buffer)
        name = self._names.get(pickled)
        self._scans = min(SCANS, self._scans + SCANS_PER_CALL)
        if name is None:
            if self._scans < 1:
                return ""
            self._scans -= 1
            name = function_name(pickled)
            if len(self._names) >= REMEMBERED:
                del self._names[next(iter(self._names))]
            self._names[pickled] = name
        return name


def function_name(pickled: bytes) -> str:
    """The name of the function in a pickle, as stock clients or cloudpickle write it; empty if none is found."""
    try:
        return _function_name(pickled)[:MAX_LABEL]
    except Exception:  # whatever a stranger sends as a pickle
        return ""


def _function_name(pickled: bytes) -> str:
    texts: list[str] = []  # in the order in which they stand there, remembered ones included
    memo: dict[int, str | None] = {}
    last: str | None = None
    for count, (opcode, argument, _) in enumerate(pickletools.genops(pickled)):
        if count > MAX_OPCODES:
            break
        if opcode.name == "MEMOIZE":
            memo[len(memo)] = last
        elif opcode.name in ("BINPUT", "LONG_BINPUT"):
            assert isinstance(argument, int)
            memo[argument] = last
        else:
            last = None
            if opcode.name in ("BINGET", "LONG_BINGET"):
                assert isinstance(argument, int)
                last = memo.get(argument)
            elif isinstance(argument, str) and "UNICODE" in opcode.name:
                last = argument
            if last is not None:
                texts.append(last)
    # What a function refers to is in its pickle, too: stock clients write that before its own name, cloudpickle after.
    if texts[1:2] == ["CannedFunction"]:
        return _after("__name__", texts[::-1], -1)
    name = _after("__qualname__", texts) or _after("__name__", texts)
    if not name and len(texts) > 1:  # an object that is found by its module and name
        name = texts[3] if texts[:2] == ["functools", "partial"] and len(texts) > 3 else texts[1]
    return name.rpartition(".")[2]


def _after(key: str, texts: list[str], step: int = 1) -> str:
    """The text that follows the first of this key."""
    place = texts.index(key) + step if key in texts else -1
    return texts[place] if 0 <= place < len(texts) else ""
