"""Print settings as TOML or JSON, each with its source, and without keys."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

import click

from ..config import PREFIX, STOCK_VARIABLES, TABLES, DatabaseURL, HubConfig, Pool, is_of_a_block, option_of
from ..schedulers.policy import Policy
from .translation import SECRET, Translation

__all__ = ["option_labels", "origins", "print_settings", "sources"]

DEFAULT = "default"
HIDDEN = "hidden"


def option_labels(options: Mapping[str, Any]) -> dict[str, str]:
    """Return the option that gave each setting, such as ``--no-reuse``. Settings that are None were not given."""
    return {
        name: f"--no-{name.replace('_', '-')}" if value is False else option_of(name)
        for name, value in options.items()
        if value is not None
    }


def sources(given: Mapping[str, str], environ: Mapping[str, str], file: Path | None) -> dict[str, str]:
    """Return the source of each setting, by the same rules as `load_config`.

    `given` contains the sources of the settings from the command line.
    """
    found: dict[str, str] = {}
    if file is None and environ.get(f"{PREFIX}CONFIG"):
        file = Path(environ[f"{PREFIX}CONFIG"])
    if file is not None:
        found |= {name: f"{name} in {file}" for name in tomllib.loads(file.read_text("utf-8"))}
        for table, setting in TABLES.items():
            if table in found:
                found[setting] = found.pop(table)
    names = [entry.name for entry in fields(HubConfig)]
    variables = {name: f"{PREFIX}{name.upper()}" for name in (*names, "profile")}
    layers: list[dict[str, str]] = [
        found,
        {name: variable for variable, name in STOCK_VARIABLES.items() if environ.get(variable)},
        {
            name: variable
            for name, variable in variables.items()
            if environ.get(variable) and not is_of_a_block(variable, environ)
        },
        dict(given),
    ]
    result = dict.fromkeys(names, DEFAULT)
    for layer in layers:
        result |= {("profile_dir" if name == "profile" else name): source for name, source in layer.items()}
    return result


def origins(
    config: HubConfig, given: Mapping[str, str], environ: Mapping[str, str], file: Path | None
) -> dict[str, str]:
    """Return the source of each setting of a configuration. See `sources` for the other arguments."""
    found = sources(given, environ, file)
    if config.restore and found["reuse"] == DEFAULT:
        found["reuse"] = "restore"
    return found


def print_settings(
    config: HubConfig,
    *,
    given: Mapping[str, str] | None = None,
    environ: Mapping[str, str] | None = None,
    file: Path | None = None,
    translation: Translation | None = None,
    as_json: bool = False,
) -> None:
    """Print settings to stdout. If they were translated, print the warning of the translation to stderr."""
    if translation is not None:
        given = {name: value.label for name, value in translation.settings.items()}
        environ = translation.environ
    labels = origins(config, given or {}, environ or {}, file)
    shown = {entry.name: getattr(config, entry.name) for entry in fields(config)}
    shown["db"] = config.database
    if as_json:
        shown["curve"] = config.encrypted
    for name in SECRET:
        if shown[name] is not None:
            shown[name] = HIDDEN
    if as_json:
        click.echo(json.dumps({name: {"value": _plain(shown[name]), "from": labels[name]} for name in shown}, indent=2))
    else:
        for name, value in shown.items():
            if name == "curve" and value is None:
                click.echo(_encryption(config))
            else:
                click.echo(_line(name, value, labels[name]))
    if translation is not None:
        if not as_json:
            for name, value in translation.process.items():
                click.echo(f"# {name}: {_plain(value.value)}  # {value.label}")
            for path in translation.files:
                click.echo(f"# read {path}")
        if text := translation.warning():
            click.echo(f"Warning: {text}", err=True)


def _plain(value: Any) -> Any:
    if isinstance(value, DatabaseURL):
        return value.shown
    if isinstance(value, tuple):
        return tuple(part.as_dict() if isinstance(part, Policy | Pool) else part for part in value)
    return str(value) if isinstance(value, Path) else value


def _line(name: str, value: Any, origin: str) -> str:
    if value is None:
        text = f"# {name} is not set"
    elif name in SECRET:
        text = f"# {name} is {value}"
    elif _plain(value) != value and isinstance(value, DatabaseURL):
        text = f"# {name} is {_printable(value.shown)}"
    else:
        text = f"{name} = {_toml(_plain(value))}"
    return f"{text}  # {_printable(origin)}"


def _encryption(config: HubConfig) -> str:
    """Return a comment that says whether connections are encrypted if `curve` is not set."""
    exposed = " and ".join(config.exposed_addresses)
    text = f"on, since the hub listens on {exposed}" if exposed else "off, since only this machine reaches the hub"
    if config.reuse:
        text += "; existing connection files take precedence"
    return f"# curve is not set: encryption is {_printable(text)}  # {DEFAULT}"


def _toml(value: Any) -> str:
    if isinstance(value, tuple | list):
        return "[" + ", ".join(map(_toml, value)) + "]"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{_toml(name)} = {_toml(part)}" for name, part in value.items()) + "}"
    text = json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    return "".join(char if char.isascii() else _toml_escape(char) for char in text)


def _toml_escape(char: str) -> str:
    """Return the escape of a character, by its code point. JSON has two escapes for some characters, TOML only one."""
    return f"\\u{ord(char):04x}" if ord(char) < 0x10000 else f"\\U{ord(char):08x}"


def _printable(text: str) -> str:
    return "".join(char if char.isprintable() else repr(char)[1:-1] for char in text)
