"""Connection files: clients and engines read the hub's address, its ports and the key in them.

The paths, keys and permissions are the same as IPython Parallel's, so that stock clients and engines find them.
"""

from __future__ import annotations

import contextlib
import json
import os
import stat
from pathlib import Path
from typing import Any

from ..errors import ConnectionFileError

__all__ = [
    "CLIENT_CHANNELS",
    "ENGINE_CHANNELS",
    "connection_paths",
    "is_private",
    "read_connection_file",
    "read_connection_files",
    "remove_connection_file",
    "write_connection_file",
    "write_private_file",
]

_DAMAGED_REMEDY = (
    "Check the path. If it is right, start the hub again without --reuse and --restore. The hub then writes a new file."
)

CLIENT_CHANNELS = ("registration", "control", "mux", "task", "iopub", "notification", "broadcast")
ENGINE_CHANNELS = ("registration", "control", "mux", "task", "iopub", "hb_ping", "hb_pong", "broadcast")


def connection_paths(profile_dir: Path, cluster_id: str = "") -> tuple[Path, Path]:
    """Return the paths of the clients' and of the engines' connection file."""
    base = f"ipcontroller-{cluster_id}" if cluster_id else "ipcontroller"
    security = profile_dir / "security"
    return security / f"{base}-client.json", security / f"{base}-engine.json"


def write_connection_file(path: Path, info: dict[str, Any]) -> None:
    """Write a connection file atomically. Only its owner can read it, at any moment.

    Raises:
        ConnectionFileError: The file cannot be written. The message names the file.
    """
    text = json.dumps(info, indent=2)
    try:
        write_private_file(path, text)
    except OSError as error:
        raise ConnectionFileError(
            f"cannot write the connection file {path}: {error.strerror or error}. "
            "Choose a writable profile directory with --profile-dir."
        ) from error


def write_private_file(path: Path, text: str) -> None:
    """Write a file atomically. Only its owner can read it, at any moment. Raises `OSError`."""
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        # the directory is private too: anybody who can write to it could replace our file with another
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with contextlib.suppress(FileNotFoundError):
            partial.unlink()  # left by a process with our process id that crashed
        descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with open(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    except OSError:
        with contextlib.suppress(OSError):
            partial.unlink()
        raise


def is_private(path: Path) -> bool:
    """Return whether only the owner of a file can read and write it. Raises `OSError`."""
    return not path.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO)


def read_connection_file(path: Path) -> dict[str, Any]:
    """Return the contents of a connection file.

    Raises:
        ConnectionFileError: The file cannot be read, or is damaged. The message names the file.
    """
    try:
        info = json.loads(path.read_bytes())
    except OSError as error:
        raise ConnectionFileError(
            f"cannot read the connection file {path}: {error.strerror or error}. Is the hub running?"
        ) from error
    except (ValueError, RecursionError) as error:
        raise ConnectionFileError(
            f"the connection file {path} is damaged ({error}), or it is some other file. {_DAMAGED_REMEDY}"
        ) from error
    if not isinstance(info, dict):
        raise ConnectionFileError(
            f"the connection file {path} is damaged (not an object), or it is some other file. {_DAMAGED_REMEDY}"
        )
    return info


def read_connection_files(client_file: Path, engine_file: Path) -> tuple[dict[str, Any], dict[str, Any]] | None:
    """Return the contents of both connection files of a hub, so that another hub can reuse them.

    Returns None if neither file exists. The files must be complete, belong together, and have a key and a port for
    each channel.

    Raises:
        ConnectionFileError: A file cannot be used. The message names the file, the fault and the remedy.
    """
    missing = [path for path in (client_file, engine_file) if not path.exists()]
    if len(missing) == 2:
        return None
    if missing:
        other = client_file if missing[0] == engine_file else engine_file
        raise _unusable(missing[0], f"it is missing, but {other} exists")
    client, engine = read_connection_file(client_file), read_connection_file(engine_file)
    for path, info, channels in ((client_file, client, CLIENT_CHANNELS), (engine_file, engine, ENGINE_CHANNELS)):
        for name in ("key", "interface", "location", "pack", "signature_scheme"):
            if not isinstance(info.get(name), str):
                raise _unusable(path, f"{name!r} is missing or is not a text")
        if not info["key"]:
            raise _unusable(path, "it has no key, so messages would not be signed")
        if not info["interface"].startswith("tcp://"):
            raise _unusable(path, f"'interface' is {info['interface']!r}, but this hub supports TCP only")
        if info.get("unpack") != info["pack"]:
            raise _unusable(path, "'pack' and 'unpack' differ")
        for name in ("ssh", "curve_serverkey"):
            if not isinstance(info.get(name), str | None):
                raise _unusable(path, f"{name!r} is not a text")
        for name in channels:
            several = name == "broadcast" and path == engine_file
            ports = info.get(name) if several else [info.get(name)]
            if not isinstance(ports, list) or not ports or not all(_is_port(port) for port in ports):
                raise _unusable(path, f"{name!r} is {info.get(name)!r}, not a {'list of ports' if several else 'port'}")
    for name in ("key", "registration", "pack", "signature_scheme", "curve_serverkey"):
        if client.get(name) != engine.get(name):
            raise _unusable(client_file, f"its {name!r} differs from the one in {engine_file}")
    return client, engine


def _is_port(port: object) -> bool:
    return type(port) is int and 0 < port < 65536


def _unusable(path: Path, what: str) -> ConnectionFileError:
    return ConnectionFileError(
        f"the connection file {path} cannot be reused: {what}. Restore the two files that belong together; or remove "
        "both, and the hub writes new ones, which clients and engines then need."
    )


def remove_connection_file(path: Path, info: dict[str, Any]) -> None:
    """Remove a connection file if its contents are still equal to `info`, that is, if no other hub has replaced it."""
    with contextlib.suppress(OSError, ConnectionFileError):
        if read_connection_file(path) == info:
            path.unlink()
