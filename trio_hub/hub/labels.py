"""Labels of requests, for people: the client's label, the function's name, or the message type.

A function's name is in the pickle that a client sends. The pickle is read opcode by opcode and never loaded, so no
bytes in it can have any effect other than a name.
"""

from __future__ import annotations

import pickletools  # lists opcodes without executing them
from collections.abc import Sequence
from typing import Any

from ..wire.frames import Buffer
from ..wire.plain import json_text

__all__ = ["MAX_LABEL", "Labels", "function_name"]

MAX_LABEL = 100
"""The maximum number of characters of a label. The rest is cut off."""
REMEMBERED = 1000
"""The maximum number of pickles whose function names are remembered. Most programs call few functions."""
MAX_PICKLE = 16_384
"""The maximum size, in bytes, of a pickle that is searched for a name."""
MAX_OPCODES = 2000
"""The maximum number of opcodes of a pickle that are read. The pickle of a usual function has some hundred."""
SCANS, SCANS_PER_CALL = 100.0, 0.05
"""The number of pickles that may be read in a burst, and per call after that. Reading one takes as long as a task."""
_MAP = "_map"  # a stock client sends this for each piece of a map; its first argument is the mapped function


class Labels:
    """Finds labels. Most calls cost one dict look-up."""

    def __init__(self) -> None:
        self._names: dict[bytes, str] = {}
        self._scans = SCANS

    def of(self, label: Any, msg_type: str, buffers: Sequence[Buffer]) -> str:
        """Return a request's label: from its metadata, or the function's name, or the message type."""
        if label is not None and label != "":
            return label[:MAX_LABEL] if isinstance(label, str) else json_text(label)[:MAX_LABEL]
        if msg_type == "apply_request" and buffers:
            name = self._name_in(buffers[0])
            if name == _MAP and len(buffers) > 2:
                name = self._name_in(buffers[2])
            if name:
                return name
        return msg_type.removesuffix("_request")[:MAX_LABEL]

    def function_of(self, msg_type: str, buffers: Sequence[Buffer]) -> str:
        """Return the name of the function that a request calls, for policies; empty if it calls none, or has no name.

        Unlike for labels, the name is found however many different pickles come, since rules depend on it.
        """
        if msg_type != "apply_request" or not buffers:
            return ""
        name = self._name_in(buffers[0], needed=True)
        return self._name_in(buffers[2], needed=True) if name == _MAP and len(buffers) > 2 else name

    def _name_in(self, buffer: Buffer, *, needed: bool = False) -> str:
        if len(buffer) > MAX_PICKLE:
            return ""
        pickled = bytes(buffer)
        name = self._names.get(pickled)
        self._scans = min(SCANS, self._scans + SCANS_PER_CALL)
        if name is None:
            if not needed:
                if self._scans < 1:
                    return ""
                self._scans -= 1
            name = function_name(pickled)
            if len(self._names) >= REMEMBERED:
                del self._names[next(iter(self._names))]
            self._names[pickled] = name
        return name


def function_name(pickled: bytes) -> str:
    """Return the name of the function in a pickle of a stock client or of cloudpickle; empty if none is found."""
    try:
        return _function_name(pickled)[:MAX_LABEL]
    except Exception:  # the bytes may be anything
        return ""


def _function_name(pickled: bytes) -> str:
    texts: list[str] = []  # in their order in the pickle, including texts from the memo
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
    # A pickle also has the names to which the function refers: in stock clients before its own name, else after it.
    if texts[1:2] == ["CannedFunction"]:
        return _after("__name__", texts[::-1], -1)
    name = _after("__qualname__", texts) or _after("__name__", texts)
    if not name and len(texts) > 1:  # an object that is found by its module and name
        name = texts[3] if texts[:2] == ["functools", "partial"] and len(texts) > 3 else texts[1]
    return name.rpartition(".")[2]


def _after(key: str, texts: list[str], step: int = 1) -> str:
    """Return the text that is ``step`` places after the first occurrence of a key, or an empty text."""
    place = texts.index(key) + step if key in texts else -1
    return texts[place] if 0 <= place < len(texts) else ""
