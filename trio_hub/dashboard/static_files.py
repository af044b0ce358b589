"""The files of the pages, which are part of this package. Each file is read once."""

from __future__ import annotations

import hashlib
from importlib.resources import files
from typing import NamedTuple

__all__ = ["StaticFile", "static_files"]

CONTENT_TYPES = {
    "html": "text/html; charset=utf-8",
    "css": "text/css; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "svg": "image/svg+xml",
    "png": "image/png",
    "ico": "image/x-icon",
    "woff2": "font/woff2",
    "json": "application/json",
}
"""The content types of served files, by the end of their names. Other files are not served."""


class StaticFile(NamedTuple):
    """A file that the dashboard serves."""

    content: bytes
    content_type: str
    etag: str


def static_files() -> dict[str, StaticFile]:
    """Read all files. Return them by name."""
    found = {}
    for entry in files(__package__).joinpath("static").iterdir():
        content_type = CONTENT_TYPES.get(entry.name.rpartition(".")[2])
        if content_type is not None and entry.is_file():
            content = entry.read_bytes()
            found[entry.name] = StaticFile(content, content_type, f'"{hashlib.sha256(content).hexdigest()[:32]}"')
    return found
