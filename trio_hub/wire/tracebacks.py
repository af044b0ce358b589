"""Tracebacks as engines send them: their text, and the line that raised the error."""

from __future__ import annotations

import re
from typing import Any

__all__ = ["raising_line", "traceback_text", "without_ansi"]

TAILS = (2_000, 20_000)
"""The numbers of characters at the end of a traceback that are searched, in turn. The innermost frame is there."""
MAX_WHERE = 200
"""The maximum length of the description of a line, in characters."""
_ANSI = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)|[@-Z\\^_])")
_FRAME = re.compile(
    r"""^[ \t]*(?:
        File\ "(?P<path>[^"\n]+)",\ line\ (?P<line>\d+)     # as Python and our engine write it
        | File\ (?P<ipython>[^\n]+?):(?P<number>\d+)        # as IPython writes it
        | (?P<cell>(?:Cell|Input)\ In\ ?\[\d+\])(?:,\ line\ (?P<row>\d+))?
    )(?:,\ in\ (?P<function>[^(\n]+))?""",
    re.MULTILINE | re.VERBOSE,
)


def raising_line(traceback: Any) -> str:
    """Return the innermost line of a traceback, such as ``project/model.py:12 in fit``; empty if there is none.

    Only the last two parts of a path are kept, since directories differ between machines.

    Args:
        traceback: The value in the content of an error: a list of texts, or a text. Any other value has no line.
    """
    if isinstance(traceback, list):
        traceback = "\n".join(line for line in traceback if isinstance(line, str))
    if not isinstance(traceback, str):
        return ""
    frames: list[re.Match[str]] = []
    for tail in TAILS:
        frames = [*_FRAME.finditer(without_ansi(traceback[-tail:]))]
        if frames or len(traceback) <= tail:
            break
    if not frames:
        return ""
    frame = frames[-1]
    path = frame["path"] or frame["ipython"] or frame["cell"]
    line = frame["line"] or frame["number"] or frame["row"]
    where = "/".join(re.split(r"[/\\]", path)[-2:]) + (f":{line}" if line else "")
    function = (frame["function"] or "").strip()
    return (f"{where} in {function}" if function else where)[:MAX_WHERE]


def traceback_text(traceback: Any) -> str:
    """Return the text of a traceback as engines send it: the items of a list as lines, any other value as ``str``.

    The text of an empty value, such as None, is empty.
    """
    return "\n".join(map(str, traceback)) if isinstance(traceback, list) else str(traceback or "")


def without_ansi(text: str) -> str:
    """Return a text without the escape sequences of terminals."""
    return _ANSI.sub("", text)
