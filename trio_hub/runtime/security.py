"""Who may connect: CURVE keys, the list of those that are allowed, and a warning where nothing protects the hub."""

from __future__ import annotations

import ipaddress
import string
import struct
from dataclasses import dataclass, field
from pathlib import Path

import zmq
from zmq.utils import z85

from ..config import HubConfig
from ..errors import ConfigError
from ..logs import get_logger
from .restore import Known

__all__ = ["CurveKeys", "Security", "read_allowed_keys", "secure"]

log = get_logger("trio_hub.runtime")

_Z85 = frozenset(string.ascii_letters + string.digits + ".-:+=^!/*?&<>()[]{}@%$#")
_KEY_LENGTH = 40


@dataclass(frozen=True)
class CurveKeys:
    """A pair of CURVE keys, in Z85."""

    public: str
    secret: str = field(repr=False)

    @classmethod
    def fresh(cls) -> CurveKeys:
        public, secret = zmq.curve_keypair()
        return cls(public.decode(), secret.decode())


@dataclass(frozen=True)
class Security:
    """What protects a hub's connections beyond signatures; all is None without encryption."""

    hub_keys: CurveKeys | None = None
    engine_keys: CurveKeys | None = None
    """Those of the engines that the hub starts itself."""
    allowed_keys: frozenset[bytes] | None = None
    """The public keys of those who may connect, as the 32 bytes that ZeroMQ tells of a peer; None if all may."""

    def give_to_engines(self, environment: dict[str, str]) -> None:
        """Replace what the environment of engines says of keys: the hub's own are not for the code they run."""
        for name in _KEY_VARIABLES:
            environment.pop(name, None)
        if self.engine_keys is not None:
            environment["IPP_CURVE_PUBLICKEY"] = self.engine_keys.public
            environment["IPP_CURVE_SECRETKEY"] = self.engine_keys.secret


_KEY_VARIABLES = (
    "IPP_CURVE_PUBLICKEY",
    "IPP_CURVE_SECRETKEY",
    "TRIO_HUB_CURVE_PUBLICKEY",
    "TRIO_HUB_CURVE_SECRETKEY",
)


def secure(config: HubConfig, known: Known | None) -> Security:
    """What `config` asks for, and a warning if that is nothing, and others can reach the hub.

    Raises:
        ConfigError: keys cannot be used, or are not those of the connection files that are used again.
    """
    _warn_of_exposure(config)
    if not config.curve:
        return Security()
    keys = _hub_keys(config)
    if known is not None and keys.public != known.curve_serverkey:
        raise ConfigError(
            f"curve_secretkey is not that of the public key in the connection files in {known.where}: set the one "
            "that is, or remove both files to begin anew"
        )
    engine_keys = CurveKeys.fresh()
    if config.curve_allowed_keys is None:
        return Security(keys, engine_keys)
    allowed = read_allowed_keys(config.curve_allowed_keys)
    return Security(keys, engine_keys, allowed | {z85.decode(engine_keys.public.encode())})


def _hub_keys(config: HubConfig) -> CurveKeys:
    if not zmq.has("curve"):
        raise ConfigError("curve is on, and this build of ZeroMQ cannot encrypt: install pyzmq with libsodium")
    if config.curve_secretkey is None:
        return CurveKeys.fresh()
    if _decode(config.curve_secretkey) is None:
        raise ConfigError("curve_secretkey is not usable: it is no Z85 of 32 bytes")
    public = zmq.curve_public(config.curve_secretkey.encode()).decode()
    if config.curve_publickey not in (None, public):
        raise ConfigError(
            f"curve_publickey is {config.curve_publickey!r}, and that of curve_secretkey is {public!r}: "
            "set keys that belong together, or curve_secretkey only"
        )
    return CurveKeys(public, config.curve_secretkey)


def _decode(word: str) -> bytes | None:
    """The 32 bytes of a key; None if it is none."""
    if len(word) != _KEY_LENGTH or not _Z85.issuperset(word):
        return None
    try:
        return z85.decode(word.encode())
    except struct.error:  # digits beyond 2**32
        return None


def read_allowed_keys(path: Path) -> frozenset[bytes]:
    """The public keys in a file, as the 32 bytes that ZeroMQ tells of a peer.

    A line is a key and perhaps a comment after a space, or a comment that begins with ``#``. (That is among the
    characters of Z85, but too high a digit for a key to begin with.)

    Raises:
        ConfigError: naming the file, and the line.
    """
    try:
        text = path.read_text("ascii", "backslashreplace")
    except OSError as error:
        raise ConfigError(f"curve_allowed_keys: cannot read {path}: {error.strerror or error}") from error
    keys: set[bytes] = set()
    for number, line in enumerate(text.splitlines(), 1):
        word, _, comment = line.strip().partition(" ")
        key = _decode(word)
        if key is not None and (not comment or comment.lstrip().startswith("#")):
            keys.add(key)
        elif key is not None or (word and not word.startswith("#")):
            raise ConfigError(
                f"curve_allowed_keys: line {number} of {path} is no public key: expected 40 characters of Z85, and "
                "perhaps a comment after a space and #"
            )
    return frozenset(keys)


def _warn_of_exposure(config: HubConfig) -> None:
    """Say it, if others than this machine's users can reach the hub and nothing but signatures protects it."""
    exposed = []
    if not config.ssh_server:
        exposed.append(config.client_address)
    if not config.engine_ssh_server:
        exposed.append(config.engine_address)
    exposed = [address for address in dict.fromkeys(exposed) if not _is_loopback(address)]
    if exposed and not config.curve:
        log.warning(
            "listening without encryption: anyone on the network can read all code, data and results, and "
            "whoever learns the key in the connection files can run programs on the engines as you. Turn curve on, "
            "or listen on 127.0.0.1 and set ssh_server and engine_ssh_server",
            address=" and ".join(
                "all addresses" if address in ("*", "0.0.0.0", "[::]") else address for address in exposed
            ),
        )


def _is_loopback(address: str) -> bool:
    try:
        return ipaddress.ip_address(address.strip("[]")).is_loopback
    except ValueError:  # the name of an interface
        return address == "lo"
