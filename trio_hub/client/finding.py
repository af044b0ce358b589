"""Finds and reads a hub's connection file, as stock clients do."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import zmq

from ..config import profile_directory
from ..config.connectionfiles import CLIENT_CHANNELS, connection_paths
from ..errors import ConfigError, ConnectionFileError
from ..transport.location import is_here

__all__ = ["HubAddress", "address_in", "connection_file_path"]

_CHANNELS = tuple(name for name in CLIENT_CHANNELS if name not in ("iopub", "broadcast"))
_ANYWHERE = ("*", "0.0.0.0", "[::]")


class HubAddress(NamedTuple):
    """The checked content of a connection file.

    ``curve`` has the hub's public key, and the client's public and secret key; None without encryption. ``source`` is
    the name of the file, for messages.
    """

    source: str
    host: str
    ports: dict[str, int]
    key: bytes
    packer: str
    scheme: str
    curve: tuple[bytes, bytes, bytes] | None

    def url(self, channel: str) -> str:
        return f"tcp://{self.host}:{self.ports[channel]}"


def connection_file_path(
    profile: str | None,
    profile_dir: str | os.PathLike[str] | None,
    cluster_id: str,
    connection_file: str | os.PathLike[str] | None,
    environ: Mapping[str, str],
) -> Path:
    """Return the path of the client's connection file.

    Raises:
        ConfigError: More than one argument names the file.
    """
    given = [
        name
        for name, value in (("profile", profile), ("profile_dir", profile_dir), ("connection_file", connection_file))
        if value is not None
    ]
    if len(given) > 1:
        raise ConfigError(f"{' and '.join(given)} each say where the hub's connection file is: give one of them")
    if connection_file is not None:
        if cluster_id:
            raise ConfigError("cluster_id is part of a connection file's name: leave it out with connection_file")
        return Path(connection_file).expanduser()
    directory = (
        Path(profile_dir).expanduser() if profile_dir is not None else profile_directory(profile or "default", environ)
    )
    return connection_paths(directory, cluster_id)[0]


async def address_in(info: dict[str, Any], source: str, curve_keys: tuple[str, str] | None) -> HubAddress:
    """Check the content of a connection file, and return the address of the hub.

    Args:
        info: The content of the file.
        source: The name of the file, for messages.
        curve_keys: The client's public and secret CURVE key. By default new keys.

    Raises:
        ConnectionFileError: The file cannot be used. The text names the file, the reason and the remedy.
        ConfigError: The packer or the signature scheme is unknown.
    """

    def text(name: str, default: str | None = None) -> str:
        value = info.get(name)
        value = default if value is None else value
        if not isinstance(value, str):
            raise _unusable(source, f"{name!r} is missing, or is not a text")
        return value

    transport, _, host = text("interface").partition("://")
    if transport != "tcp" or not host:
        raise _unusable(source, f"'interface' is {info['interface']!r}, but this client supports only TCP")
    for name in _CHANNELS:
        port = info.get(name)
        if type(port) is not int or not 0 < port < 65536:
            raise _unusable(source, f"{name!r} is {port!r}, which is not a port number")
    packer = text("pack", "json")
    if text("unpack", packer) != packer:
        raise _unusable(source, "'pack' and 'unpack' differ")
    location = text("location", "")
    here = await is_here(location)
    if host in _ANYWHERE:
        host = ("[::1]" if host == "[::]" else "127.0.0.1") if here else location
    gate = text("ssh", "")
    if gate and not (here and host in ("127.0.0.1", "[::1]", "localhost")):
        raise ConnectionFileError(
            f"the connection file {source} says that the hub is reached by SSH, through {gate}, but this client makes "
            "no tunnels: open them with ssh -L, and use a copy of the file in which 'interface' is tcp://127.0.0.1 "
            "and 'ssh' is empty"
        )
    server_key = text("curve_serverkey", os.environ.get("IPP_CURVE_SERVERKEY", ""))
    curve = None
    if server_key:
        if len(server_key) != 40:
            raise _unusable(source, "'curve_serverkey' is no CURVE key")
        public, secret = (key.encode() for key in curve_keys) if curve_keys is not None else zmq.curve_keypair()
        curve = (server_key.encode(), public, secret)
    ports = {name: info[name] for name in _CHANNELS}
    return HubAddress(source, host, ports, text("key").encode(), packer, text("signature_scheme", "hmac-sha256"), curve)


def _unusable(source: str, what: str) -> ConnectionFileError:
    return ConnectionFileError(
        f"the connection file {source} cannot be used: {what}. Use the file for clients, "
        "ipcontroller-client.json, as the hub has written it."
    )
