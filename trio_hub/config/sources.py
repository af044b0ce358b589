"""`load_config`: read the settings of a command from their sources.

If several sources give a setting, the first of these applies: the command line, the environment (``TRIO_HUB_*``, then
IPython Parallel's ``IPP_*``), the TOML file, the default. An unknown name or an unusable value raises an error, which
names the source.
"""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import ConfigError
from . import rules
from .policies import read_policies
from .pools import read_pools
from .settings import RULES, HubConfig, checked, refusal

__all__ = [
    "OPTIONS",
    "PREFIX",
    "STOCK_VARIABLES",
    "TABLES",
    "is_of_a_block",
    "load_config",
    "option_of",
    "profile_directory",
]


@dataclass(frozen=True)
class _Given:
    value: object
    label: str  # "--ping", "TRIO_HUB_PING", "ping in /etc/trio-hub.toml"
    is_text: bool  # whether the value is text from a shell, which the rule's from_text must read


PREFIX = "TRIO_HUB_"
_NAMES = (*RULES, "profile")
_PATHS = {"profile_dir", "curve_allowed_keys"}
TABLES = {"policy": "policies", "pool": "pools"}
"""The tables in the TOML file, such as ``[[policy]]``, each with the setting for which it stands."""
_READERS: dict[str, Callable[[Any, str], object]] = {"policies": read_policies, "pools": read_pools}
"""The functions that check the settings in `TABLES`. Their errors name the source and the number of the table."""
OPTIONS = {"pools": "--pool"}
"""The options that are not named like their setting."""
STOCK_VARIABLES = {
    "IPP_PROFILE_DIR": "profile_dir",
    "IPP_CLUSTER_ID": "cluster_id",
    "IPP_SESSION_KEY": "key",
    "IPP_ENABLE_CURVE": "curve",
    "IPP_CURVE_PUBLICKEY": "curve_publickey",
    "IPP_CURVE_SECRETKEY": "curve_secretkey",
}
_OF_A_BLOCK = {
    f"{PREFIX}{name}" for name in ("POOL", "BLOCK", "ENGINES", "ENGINE_COMMAND", "CONNECTION_FILE", "TIME_LIMIT", "JOB")
}
_OF_AN_ENGINE = f"{PREFIX}ENGINE_BLOCK"


def is_of_a_block(variable: str, environ: Mapping[str, str]) -> bool:
    """Return whether a variable tells a process about the block of engines for which a hub has started it.

    A hub that this process runs does not take such a variable for a setting, although two of the variables have names
    of settings.
    """
    return variable == _OF_AN_ENGINE or (variable in _OF_A_BLOCK and bool(environ.get(f"{PREFIX}BLOCK")))


def load_config(
    cli: Mapping[str, object],
    environ: Mapping[str, str],
    file: Path | None,
    *,
    defaults: Mapping[str, object] | None = None,
) -> HubConfig:
    """Read the settings of a command.

    Each source may give a ``profile`` instead of a ``profile_dir``. If no source gives either, IPython's
    ``profile_default`` is used.

    Args:
        cli: The options of the command line, by the names of `HubConfig`'s fields, as text or as values. None means
            that an option was not given.
        environ: The environment variables. An empty variable counts as not set.
        file: The TOML file. If None, the file that the variable ``TRIO_HUB_CONFIG`` names, if it is set.
        defaults: The defaults of the command, if they differ from those of `HubConfig`.

    Raises:
        ConfigError: A setting cannot be used. The message names the setting, its source, and the accepted values.
    """
    file_label = "--config"
    if file is None and environ.get(f"{PREFIX}CONFIG"):
        file, file_label = Path(environ[f"{PREFIX}CONFIG"]), f"{PREFIX}CONFIG"
    values: dict[str, object] = dict(defaults or {})
    for layer in (
        _from_file(file, file_label) if file is not None else {},
        _from_stock_variables(environ),
        _from_variables(environ),
        _from_options(cli),
    ):
        values |= {name: _read(name, given) for name, given in _with_profile_dir(layer, environ).items()}
    values.setdefault("profile_dir", profile_directory("default", environ))
    return HubConfig(**values)  # type: ignore[arg-type]  # each value has been checked under its name


def profile_directory(name: str, environ: Mapping[str, str]) -> Path:
    """Return the directory in which IPython looks for the profile of that name. It need not exist."""
    home = Path(environ.get("HOME") or Path.home())
    if environ.get("IPYTHONDIR"):
        base = Path(environ["IPYTHONDIR"]).expanduser()
    else:
        base = home / ".ipython"
        legacy = Path(environ.get("XDG_CONFIG_HOME") or home / ".config") / "ipython"
        if not base.exists() and os.access(legacy, os.W_OK):
            base = legacy  # the directory of very old IPython versions, which new versions still use
    return (base / f"profile_{name}").absolute()


def _with_profile_dir(layer: dict[str, _Given], environ: Mapping[str, str]) -> dict[str, _Given]:
    """Return the settings of one source with ``profile`` replaced by ``profile_dir``."""
    profile = layer.get("profile")
    if profile is None:
        return layer
    if "profile_dir" in layer:
        other = layer["profile_dir"].label
        raise ConfigError(f"{profile.label} and {other} exclude each other: give only one of them")
    if not isinstance(profile.value, str) or re.fullmatch(r"[^\s/\\\0]+", profile.value) is None:
        raise ConfigError(f"{profile.label} is {profile.value!r}: expected a name without spaces and slashes")
    directory = _Given(profile_directory(profile.value, environ), profile.label, is_text=False)
    return {name: given for name, given in layer.items() if name != "profile"} | {"profile_dir": directory}


def _read(name: str, given: _Given) -> object:
    value = given.value
    if given.is_text and isinstance(value, str):
        try:
            value = RULES[name].from_text(value)
        except ValueError as error:
            raise refusal(name, value, given.label, error) from None
    if name in _READERS:
        return _READERS[name](value, given.label)
    return checked(name, value, given.label)


def option_of(name: str) -> str:
    """Return the option of a setting, such as ``--cluster-id``."""
    return OPTIONS.get(name, f"--{name.replace('_', '-')}")


def _from_options(cli: Mapping[str, object]) -> dict[str, _Given]:
    layer = {}
    for name, value in cli.items():
        if name not in _NAMES:
            raise ConfigError(_unknown(f"option --{name.replace('_', '-')}", name, _NAMES))
        if value is not None:
            layer[name] = _Given(value, option_of(name), is_text=True)
    return layer


def _from_variables(environ: Mapping[str, str]) -> dict[str, _Given]:
    known = {f"{PREFIX}{name.upper()}": name for name in _NAMES}
    layer = {}
    for variable, text in sorted(environ.items()):
        if not variable.upper().startswith(PREFIX) or variable == f"{PREFIX}CONFIG":
            continue
        if is_of_a_block(variable, environ):
            continue
        if variable not in known:
            what = f"the environment variable {variable}"
            raise ConfigError(_unknown(what, variable.upper(), (*known, f"{PREFIX}CONFIG")))
        if text:
            layer[known[variable]] = _Given(text, variable, is_text=True)
    return layer


def _from_stock_variables(environ: Mapping[str, str]) -> dict[str, _Given]:
    return {
        name: _Given(environ[variable], variable, is_text=True)
        for variable, name in STOCK_VARIABLES.items()
        if environ.get(variable)
    }


def _from_file(path: Path, label: str) -> dict[str, _Given]:
    import tomllib  # imported here because most hubs have no such file

    try:
        table = tomllib.loads(path.read_text("utf-8"))
    except OSError as error:
        raise ConfigError(f"{label}: cannot read {path}: {error.strerror or error}") from error
    except ValueError as error:  # TOMLDecodeError and UnicodeDecodeError are ValueErrors
        raise ConfigError(f"{label}: {path} is not TOML: {error}") from error
    layer = {}
    for name, setting in TABLES.items():
        if name in table:
            if setting in table:
                remedy = f"write all {setting} as [[{name}]]"
                raise ConfigError(f"[[{name}]] and {setting} in {path} exclude each other: {remedy}")
            table[setting] = _READERS[setting](table.pop(name), f"[[{name}]] in {path}")
    for name, value in table.items():
        if name not in _NAMES:
            raise ConfigError(_unknown(f"{name!r} in {path}", name, (*_NAMES, *TABLES)))
        if name in _PATHS and isinstance(value, str):
            # relative to the file, not to the working directory
            value = path.absolute().parent / Path(value).expanduser()
        if name == "db" and isinstance(value, str) and re.match(f"{rules.SQLITE}[^~]", value):
            value = f"{rules.SQLITE}{path.absolute().parent / value.removeprefix(rules.SQLITE)}"
        layer[name] = _Given(value, f"{name} in {path}", is_text=False)
    return layer


def _unknown(what: str, name: str, names: tuple[str, ...]) -> str:
    # Names are compared without the prefix, since the prefix makes all variables similar.
    bare = {known.removeprefix(PREFIX).lower(): known for known in names}
    near = [bare[match] for match in difflib.get_close_matches(name.removeprefix(PREFIX).lower(), bare, n=1)]
    hint = f"did you mean {near[0]}?" if near else "the settings are " + ", ".join(sorted(names))
    return f"{what} is not a setting: {hint}"
