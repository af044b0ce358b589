"""Connection files: how clients and engines learn where the hub is, and the key that opens it.

Paths, keys and permissions are those of IPython Parallel, so that stock clients and engines find them.
"""

from __future__ import annotations

import contextlib
import json
import os
from pathlib import Path
from typing import Any

from ..errors import ConnectionFileError

__all__ = [
    "CLIENT_CHANNELS",
    "ENGINE_CHANNELS",
    "connection_paths",
    "read_connection_file",
    "remove_connection_file",
    "write_connection_file",
]

CLIENT_CHANNELS = ("registration", "control", "mux", "task", "iopub", "notification", "broadcast")
ENGINE_CHANNELS = ("registration", "control", "mux", "task", "iopub", "hb_ping", "hb_pong", "broadcast")


def connection_paths(profile_dir: Path, cluster_id: str = "") -> tuple[Path, Path]:
    """The paths of the client's and the engine's connection file."""
    base = f"ipcontroller-{cluster_id}" if cluster_id else "ipcontroller"
    security = profile_dir / "security"
    return security / f"{base}-client.json", security / f"{base}-engine.json"


def write_connection_file(path: Path, info: dict[str, Any]) -> None:
    """Write the file whole or not at all; nobody but its owner can read it, at any moment.

    Raises:
        ConnectionFileError: naming the file.
    """
    text = json.dumps(info, indent=2)
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        # private as well, for whoever may write to the directory may put a file of theirs in place of ours
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with contextlib.suppress(FileNotFoundError):
            partial.unlink()  # left by a crash of a process that had our number
        descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with open(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    except OSError as error:
        with contextlib.suppress(OSError):
            partial.unlink()
        raise ConnectionFileError(
            f"cannot write the connection file {path}: {error.strerror or error}. "
            "Choose a profile directory that can be written, with --profile-dir."
        ) from error


def read_connection_file(path: Path) -> dict[str, Any]:
    """The contents of a connection file.

    Raises:
        ConnectionFileError: naming the file.
    """
    try:
        info = json.loads(path.read_bytes())
    except OSError as error:
        raise ConnectionFileError(
            f"cannot read the connection file {path}: {error.strerror or error}. Is the hub running?"
        ) from error
    except (ValueError, RecursionError) as error:
        raise ConnectionFileError(
            f"the connection file {path} is damaged ({error}): remove it, start the hub again"
        ) from error
    if not isinstance(info, dict):
        raise ConnectionFileError(
            f"the connection file {path} is damaged (not an object): remove it, start the hub again"
        )
    return info


def remove_connection_file(path: Path, info: dict[str, Any]) -> None:
    """Remove the file if it is still ours, that is, if it says what `info` says."""
    with contextlib.suppress(OSError, ConnectionFileError):
        if read_connection_file(path) == info:
            path.unlink()
