"""The path below which a reverse proxy shows the dashboard, such as ``/user/jo/trio-hub``.

The path comes from a setting or from a header of a request, and becomes part of links, of redirects and of the path of
cookies. So only harmless paths are accepted: a path cannot name another site, leave its own directory, or end a header,
an attribute of a cookie or an attribute of HTML.
"""

from __future__ import annotations

import re
from urllib.parse import unquote

__all__ = ["MAX_PREFIX", "OWN_PATHS", "check_prefix"]

MAX_PREFIX = 1000
"""The maximum number of characters."""
OWN_PATHS = frozenset(("api", "static", "metrics", "healthz", "readyz"))
"""The first parts of the dashboard's own paths. As a prefix, such a path would be ambiguous."""
_PART = re.compile(r"(?:[0-9A-Za-z._~!$&()*+=:@-]|%[0-9A-Fa-f]{2})+", re.ASCII)


def check_prefix(value: object) -> str:
    """Return a path without the slash at its end; empty for ``/`` and for an empty text. Raises `ValueError`.

    The path is as in a URL: other characters than letters, digits and ``._~!$&()*+=:@-`` are percent-encoded.
    """
    if not isinstance(value, str) or len(value) > MAX_PREFIX:
        raise ValueError("not the path of a prefix")
    prefix = value.removesuffix("/")
    if not prefix:
        return ""
    empty, *parts = prefix.split("/")
    if empty or not all(map(_is_harmless, parts)) or (len(parts) == 1 and parts[0] in OWN_PATHS):
        raise ValueError("not the path of a prefix")
    return prefix


def _is_harmless(part: str) -> bool:
    if _PART.fullmatch(part) is None:
        return False
    try:
        decoded = unquote(part, errors="strict")
    except UnicodeDecodeError:
        return False
    return decoded.isprintable() and decoded not in (".", "..") and not {"/", "\\"} & set(decoded)
