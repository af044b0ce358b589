"""CURVE keys, and the private file in which a hub keeps the secret key that it has made.

Clients and engines know a hub by the public key in the connection files. A hub that starts again with these files needs
the secret key of that public key. The secret key is in a file of its own, since connection files are copied to other
machines, and the secret key must not be.
"""

from __future__ import annotations

import string
import struct
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import zmq
from zmq.utils import z85

from ..config import HubConfig
from ..config.connectionfiles import is_private, write_private_file
from ..errors import ConfigError, ConnectionFileError
from ..logs import get_logger

__all__ = ["CurveKeys", "curve_key_path", "decode_key", "keep_key", "kept_keys", "remove_key"]

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

    @classmethod
    def of_secret(cls, secret: str) -> CurveKeys | None:
        """Return the pair of keys of a secret key; None if the text is not a key."""
        if decode_key(secret) is None:
            return None
        return cls(zmq.curve_public(secret.encode()).decode(), secret)


def decode_key(word: str) -> bytes | None:
    """Return the 32 bytes of a key in Z85; None if the text is not a key."""
    if len(word) != _KEY_LENGTH or not _Z85.issuperset(word):
        return None
    try:
        return z85.decode(word.encode())
    except struct.error:  # digits beyond 2**32
        return None


def curve_key_path(profile_dir: Path, cluster_id: str = "") -> Path:
    """Return the path of the file in which a hub keeps its secret key."""
    base = f"ipcontroller-{cluster_id}" if cluster_id else "ipcontroller"
    return profile_dir / "security" / f"{base}-curve.key"


def kept_keys(path: Path, public: str) -> CurveKeys:
    """Return the previous hub's pair of keys, from its file; ``public`` is the key in the connection files.

    Raises:
        ConfigError: the file is missing, cannot be read, is damaged, or holds another key. The text says what to do.
    """
    try:
        keys = _read(path)
    except OSError as error:
        raise _unusable(path, f"cannot be read: {error.strerror or error}") from error
    if keys is None:
        raise _unusable(path, "is damaged: it is not the Z85 form of 32 bytes")
    if keys.public != public:
        raise _unusable(path, "holds the key of another hub")
    if not is_private(path):
        log.warning("others on this machine could read the key in the file; it is made private now", path=path)
    return keys


def _unusable(path: Path, what: str) -> ConfigError:
    return ConfigError(
        f"the connection files in {path.parent} name a public CURVE key, and the file {path}, which should hold the "
        f"secret key that belongs to it, {what}. Put the right file back, or set curve_secretkey, or remove both "
        "connection files, so that the hub writes new ones; clients and engines then need the new files."
    )


def keep_key(config: HubConfig, keys: CurveKeys | None) -> None:
    """Write the secret key to its file for the next hub, if a hub has made the key itself.

    Without a key to keep, an earlier hub's file with another key is removed, since no hub needs it any more.

    Raises:
        ConnectionFileError: the file cannot be written; the text names the file.
    """
    if config.profile_dir is None:
        return
    path = curve_key_path(config.profile_dir, config.cluster_id)
    if keys is not None and _holds(path, keys.public):
        if is_private(path):
            return
    elif keys is None or config.curve_secretkey is not None:
        with suppress(OSError):
            path.unlink()
        return
    try:
        write_private_file(path, f"{keys.secret}\n")
    except OSError as error:
        raise ConnectionFileError(
            f"cannot write the secret CURVE key to {path}: {error.strerror or error}. "
            "Choose a profile directory that can be written, with --profile-dir."
        ) from error


def remove_key(config: HubConfig, public: str | None) -> None:
    """Remove the file if it holds the secret key of this public key."""
    if config.profile_dir is None or public is None:
        return
    path = curve_key_path(config.profile_dir, config.cluster_id)
    if _holds(path, public):
        with suppress(OSError):
            path.unlink()


def _holds(path: Path, public: str) -> bool:
    try:
        keys = _read(path)
    except OSError:
        return False
    return keys is not None and keys.public == public


def _read(path: Path) -> CurveKeys | None:
    """Return the keys in the file; None if it is damaged. Raises `OSError`."""
    return CurveKeys.of_secret(path.read_text("ascii", "backslashreplace").strip())
