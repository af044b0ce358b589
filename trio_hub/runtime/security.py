"""CURVE keys, the public keys that may connect, and the warning if the hub is reachable without encryption."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import zmq
from zmq.utils import z85

from ..config import HubConfig
from ..errors import ConfigError
from ..logs import get_logger
from .curvekeys import CurveKeys, curve_key_path, decode_key, kept_keys
from .restore import Known

__all__ = ["CurveKeys", "Security", "read_allowed_keys", "secure"]

log = get_logger("trio_hub.runtime")


@dataclass(frozen=True)
class Security:
    """The CURVE keys of a hub. Without encryption, all values are None."""

    hub_keys: CurveKeys | None = None
    engine_keys: CurveKeys | None = None
    """The keys of local engines."""
    allowed_keys: frozenset[bytes] | None = None
    """The public keys of the peers that may connect, each as 32 bytes; None if all peers may connect."""

    def give_to_engines(self, environment: dict[str, str]) -> None:
        """Put the engines' keys into their environment, and remove the hub's own keys, which engines must not see."""
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
    """Return the keys of a hub with these settings. Log a warning if others can read its messages.

    Raises:
        ConfigError: The keys cannot be used, or differ from the keys in the connection files that are used again.
    """
    if not config.encrypted:
        _warn_of_exposure(config)
        return Security()
    if config.ssh_server:
        log.warning(
            "connections are encrypted, and ssh_server is set: stock clients of version 9.2 do not encrypt all "
            "connections that they tunnel through ssh, and then see no engines. If clients come that way, set curve to "
            "false",
            setting="ssh_server",
            value=config.ssh_server,
        )
    keys = _hub_keys(config, known)
    if known is not None and keys.public != known.curve_serverkey:
        raise ConfigError(
            f"curve_secretkey does not belong to the public key in the connection files in {known.where}: set the "
            "secret key that does, or remove both files, so that the hub writes new ones"
        )
    engine_keys = CurveKeys.fresh()
    if config.curve_allowed_keys is None:
        return Security(keys, engine_keys)
    allowed = read_allowed_keys(config.curve_allowed_keys)
    return Security(keys, engine_keys, allowed | {z85.decode(engine_keys.public.encode())})


def _hub_keys(config: HubConfig, known: Known | None) -> CurveKeys:
    """Return the keys of the settings, or else the keys that the previous hub has kept, or else new keys."""
    if not zmq.has("curve"):
        exposed = " and ".join(config.exposed_addresses)
        why = "curve is on" if config.curve else f"curve is on, since the hub listens on {exposed}"
        raise ConfigError(
            f"{why}, and this build of ZeroMQ cannot encrypt: install pyzmq with libsodium, or turn curve off"
        )
    if config.curve_secretkey is None:
        if known is None or known.curve_serverkey is None or config.profile_dir is None:
            return CurveKeys.fresh()
        return kept_keys(curve_key_path(config.profile_dir, config.cluster_id), known.curve_serverkey)
    keys = CurveKeys.of_secret(config.curve_secretkey)
    if keys is None:
        raise ConfigError("curve_secretkey is not usable: it is not the Z85 form of 32 bytes")
    if config.curve_publickey not in (None, keys.public):
        raise ConfigError(
            f"curve_publickey is {config.curve_publickey!r}, but the public key of curve_secretkey is {keys.public!r}: "
            "set keys that belong together, or only curve_secretkey"
        )
    return keys


def read_allowed_keys(path: Path) -> frozenset[bytes]:
    """Return the public keys in a file, each as 32 bytes.

    Each line has a key, which a space and a comment may follow, or a comment that begins with ``#``. (Z85 has the
    character ``#``, but no key can begin with it.)

    Raises:
        ConfigError: The file cannot be read. The text names the file, and the wrong line.
    """
    try:
        text = path.read_text("ascii", "backslashreplace")
    except OSError as error:
        raise ConfigError(f"curve_allowed_keys: cannot read {path}: {error.strerror or error}") from error
    keys: set[bytes] = set()
    for number, line in enumerate(text.splitlines(), 1):
        word, _, comment = line.strip().partition(" ")
        key = decode_key(word)
        if key is not None and (not comment or comment.lstrip().startswith("#")):
            keys.add(key)
        elif key is not None or (word and not word.startswith("#")):
            raise ConfigError(
                f"curve_allowed_keys: line {number} of {path} is not a public key: expected 40 characters of Z85, and "
                "perhaps a comment after a space and #"
            )
    return frozenset(keys)


def _warn_of_exposure(config: HubConfig) -> None:
    """Log a warning if other machines can reach the hub, since its connections are not encrypted.

    This also holds if clients and engines connect through ssh: the hub's address is still open to others.
    """
    exposed = config.exposed_addresses
    if exposed:
        log.warning(
            "listening without encryption: anyone on the network can read all code, data and results, and anyone who "
            "learns the key in the connection files can run programs on the engines as you. Turn curve on, or listen "
            "on 127.0.0.1 and set ssh_server and engine_ssh_server",
            address=" and ".join(
                "all addresses" if address in ("*", "0.0.0.0", "[::]") else address for address in exposed
            ),
        )
