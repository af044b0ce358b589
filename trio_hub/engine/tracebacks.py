"""Errors of user code, as the content of a reply."""

from __future__ import annotations

import os
import traceback
from typing import Any

__all__ = ["error_reply"]

_HERE = os.path.dirname(os.path.abspath(__file__))
_MAX_FRAMES = 40
"""Frames of a traceback that are shown at each of its ends."""


def error_reply(error: BaseException, engine_info: dict[str, Any]) -> dict[str, Any]:
    """Return the content of a reply for an error of user code. The engine's own frames are left out."""
    ename = type(error).__name__
    try:
        evalue = str(error)
    except Exception as failure:  # the error's own method
        evalue = f"Failed to cast exception to string: {failure}"
    return {
        "status": "error",
        "ename": ename,
        "evalue": evalue,
        "traceback": _lines(error),
        "engine_info": engine_info,
    }


def _lines(error: BaseException) -> list[str]:
    """Return the traceback as a list of texts, as IPython makes one: a head, each frame, and the error itself."""
    try:
        shown = traceback.TracebackException.from_exception(error, compact=True)
        _without_own_frames(shown)
        lines = [line.rstrip("\n") for line in shown.format()]
    except Exception as failure:  # its own methods, and source files that cannot be read
        return [f"{type(error).__name__} (its traceback cannot be shown: {type(failure).__name__})"]
    if len(lines) > 2 * _MAX_FRAMES:
        left_out = len(lines) - 2 * _MAX_FRAMES
        lines[_MAX_FRAMES:-_MAX_FRAMES] = [f"  ... {left_out} lines ..."]
    return lines


def _without_own_frames(shown: traceback.TracebackException) -> None:
    """Remove the engine's frames at the beginning of a traceback, and of those of its causes."""
    while shown.stack and shown.stack[0].filename.startswith(_HERE):
        del shown.stack[0]
    for inner in (shown.__cause__, shown.__context__, *(getattr(shown, "exceptions", None) or ())):
        if inner is not None:
            _without_own_frames(inner)
