"""Where a request is below a path prefix: reverse proxies show the dashboard at paths such as ``/user/jo/trio-hub/``.

Some proxies remove the prefix from a request's path, others do not. Both work: a path that begins with the prefix is
shortened, and any other path is taken as it is. The pages use relative links only, so the prefix is needed only for
redirects, for the form that asks for the token, and for the cookie.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple
from urllib.parse import unquote

from ..config.prefix import check_prefix

__all__ = ["Placed", "place"]

HEADER = b"x-forwarded-prefix"


class Placed(NamedTuple):
    """A request's prefix and path.

    - ``prefix``: the prefix as browsers see it, percent-encoded, without a slash at the end; empty if there is none;
    - ``path``: the path below the prefix, decoded; empty if the browser has asked for the prefix without a last slash.
    """

    prefix: str
    path: str


def place(path: str, headers: Iterable[tuple[bytes, bytes]], setting: str) -> Placed:
    """Return the prefix and path of a request.

    Args:
        path: The path in the request, decoded.
        headers: The headers of the request. A usable ``X-Forwarded-Prefix`` has priority over the setting. Anybody can
            send this header, but it affects only the answer to the same request.
        setting: The prefix in the settings.
    """
    told = _told(headers)
    prefix = setting if told is None else told
    for one in filter(None, (prefix, setting)):  # a proxy behind another proxy knows only a part of the prefix
        start = unquote(one)
        if (path + "/").startswith(start + "/"):
            return Placed(prefix, path[len(start) :])
    return Placed(prefix, path)


def _told(headers: Iterable[tuple[bytes, bytes]]) -> str | None:
    """Return the prefix in the headers; None if there is none, if there are several, or if it cannot be used."""
    values = [value for name, value in headers if name == HEADER]
    if len(values) != 1:
        return None
    try:
        return check_prefix(values[0].decode("ascii"))
    except ValueError:
        return None
