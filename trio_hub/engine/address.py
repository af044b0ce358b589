"""Finds and reads the engine's connection file, as ``ipengine`` does."""

from __future__ import annotations

import json
import os
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import trio

from ..errors import ConnectionFileError
from ..logs import get_logger
from ..transport.location import is_here
from .options import EngineOptions

__all__ = ["HubAddress", "connection_file", "moved", "profile_directory", "read_address", "wait_for_file"]

log = get_logger("trio_hub.engine")

CHANNELS = ("registration", "control", "mux", "task", "iopub", "hb_ping", "hb_pong")
LOOK_AGAIN = 0.5
"""Seconds between two looks whether the missing connection file has come."""
_ANYWHERE = ("*", "0.0.0.0", "[::]", "::")


@dataclass(frozen=True)
class HubAddress:
    """The checked content of a connection file.

    - ``urls``: the ZeroMQ address of each channel, by the channel's name;
    - ``broadcast``: the ZeroMQ addresses that send broadcasts: an engine connects to one of them;
    - ``curve``: the hub's public key, and the engine's public and secret key; None without encryption;
    - ``ssh``: the SSH server through which all connections go; empty for none.
    """

    urls: dict[str, str]
    broadcast: list[str]
    key: bytes
    packer: str
    scheme: str
    curve: tuple[bytes, bytes, bytes] | None = field(repr=False)
    ssh: str = ""

    def broadcast_url(self, engine_id: int) -> str:
        """Return the address from which the engine with this id gets broadcasts."""
        return self.broadcast[engine_id % len(self.broadcast)]


def profile_directory(options: EngineOptions) -> Path:
    """Return the directory of the engine's profile, which the options name by its path or by its name."""
    if options.profile_dir:
        return Path(options.profile_dir)
    home = options.ipython_dir or os.environ.get("IPYTHONDIR") or os.path.expanduser("~/.ipython")
    return Path(home, f"profile_{options.profile or 'default'}")


def connection_file(options: EngineOptions) -> Path:
    """Return the path of the connection file: the one that the options name, or else the one of the profile."""
    if options.file:
        return Path(options.file)
    name = f"ipcontroller-{options.cluster_id}-engine.json" if options.cluster_id else "ipcontroller-engine.json"
    return profile_directory(options) / "security" / name


async def read_address(text: str | bytes, source: str, options: EngineOptions) -> HubAddress:
    """Check the content of a connection file, and return the address of the hub.

    Args:
        text: the content of the file.
        source: the name of the file, for messages.
        options: may name another location, another registration address, an SSH server, and CURVE keys.

    Raises:
        ConnectionFileError: the file cannot be used. The text names the file and the reason.
    """
    try:
        info = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ConnectionFileError(f"the connection file {source} is damaged ({error})") from error
    if not isinstance(info, dict):
        raise ConnectionFileError(f"the connection file {source} is damaged (not an object)")
    ports = {name: info.get(name) for name in CHANNELS}
    broadcast = info.get("broadcast")
    broadcast = broadcast if isinstance(broadcast, list) else [broadcast]
    for name, port in [*ports.items(), *(("broadcast", port) for port in broadcast or [None])]:
        if type(port) is not int or not 0 < port < 65536:
            raise ConnectionFileError(
                f"the connection file {source} cannot be used: {name!r} is {port!r}, which is not a port number. Use "
                "the file for engines, ipcontroller-engine.json, as the hub has written it."
            )
    transport, _, host = _text(info, "interface", source).partition("://")
    location = options.location or _text(info, "location", source, "")
    if host in _ANYWHERE:
        host = ("[::1]" if ":" in host else "127.0.0.1") if await is_here(location) else location
    urls = {name: f"{transport}://{host}:{port}" for name, port in ports.items()}
    if options.url:
        urls["registration"] = options.url
    server_key = _text(info, "curve_serverkey", source, "") or options.curve_serverkey
    return HubAddress(
        urls,
        [f"{transport}://{host}:{port}" for port in broadcast],
        _text(info, "key", source, "").encode(),
        _text(info, "pack", source, "json"),
        _text(info, "signature_scheme", source, "hmac-sha256"),
        _curve(server_key, options) if server_key else None,
        options.ssh or _text(info, "ssh", source, "") or _host_for_key(options, host),
    )


def _host_for_key(options: EngineOptions, host: str) -> str:
    """Return the hub's host as the SSH server if the options have an SSH key, but no server; empty without a key."""
    return host if options.ssh_key else ""


def _curve(server_key: str, options: EngineOptions) -> tuple[bytes, bytes, bytes]:
    import zmq

    if options.curve_publickey and options.curve_secretkey:
        return server_key.encode(), options.curve_publickey.encode(), options.curve_secretkey.encode()
    return server_key.encode(), *zmq.curve_keypair()


def _text(info: dict[str, Any], name: str, source: str, default: str | None = None) -> str:
    value = info.get(name)
    value = default if value is None else value
    if not isinstance(value, str):
        raise ConnectionFileError(f"the connection file {source} cannot be used: {name!r} is missing, or is not a text")
    return value


async def moved(address: HubAddress, options: EngineOptions) -> HubAddress | None:
    """Return the address of another hub, if the connection file has changed."""
    if options.connection_info:
        return None
    path = connection_file(options)
    with suppress(OSError, ConnectionFileError):
        new = await read_address(path.read_bytes(), str(path), options)
        if (new.urls, new.key) != (address.urls, address.key):
            return new
    return None


async def wait_for_file(options: EngineOptions) -> Path:
    """Wait until the connection file exists. Raises `ConnectionFileError` if it does not come in time."""
    path = connection_file(options)
    if path.exists():
        return path
    log.warning("waits for the hub's connection file", file=str(path), seconds=options.wait_for_file)
    with trio.move_on_after(options.wait_for_file):
        while not path.exists():  # noqa: ASYNC110 - another process makes it
            await trio.sleep(LOOK_AGAIN)
    if not path.exists():
        raise ConnectionFileError(
            f"the connection file {path} did not appear within {options.wait_for_file:g} s. Start the hub first, or "
            "name the hub with --profile, --profile-dir, --cluster-id or --file."
        )
    return path
