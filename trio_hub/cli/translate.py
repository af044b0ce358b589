"""Translate the command line, config files and environment of ``ipcontroller`` into a `Translation`.

The order of precedence is ipcontroller's: the command line, then the config files, then the IPP_* variables. The
TRIO_HUB_* variables of this project come after the command line and before the config files.
"""

from __future__ import annotations

import difflib
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..config import PREFIX, load_config, profile_directory
from ..errors import ConfigError
from .databases import settle_database
from .traits import ALIASES, FLAGS, SECTIONS, TRAITS, Trait
from .translation import SECRET, Given, Translation

__all__ = ["CommandLine", "parse_arguments", "translate"]

SPOKEN_OF = {
    f"{section}.{name.partition('.')[2]}": name
    for section, classes in SECTIONS.items()
    for name in TRAITS
    if name.partition(".")[0] in classes
}
"""The trait that each "Section.trait" in a config sets."""
CHOOSES_PROFILE = {
    "IPController.profile",
    "ProfileDir.location",
    "IPController.ipython_dir",
    "IPController.auto_create",
}

Values = dict[str, Given]
"""Values by section and trait, such as ``"Application.log_level"``."""


# The command line


@dataclass
class CommandLine:
    """A parsed command line. `flags` holds the values of options without a value, which take precedence."""

    values: Values = field(default_factory=dict)
    flags: Values = field(default_factory=dict)
    remarks: list[str] = field(default_factory=list)


def parse_arguments(arguments: Sequence[str]) -> CommandLine:
    """Parse ``--name value``, ``--name=value``, ``--flag`` and ``--Class.trait=value``.

    Unknown options and other arguments become remarks, since ipcontroller only warns of them.

    Raises:
        ConfigError: An option has no value or an unusable value, or a flag has a value.
    """
    result = CommandLine()
    words: dict[str, list[str]] = {}
    labels: dict[str, str] = {}
    rest = list(arguments)
    while rest:
        token = rest.pop(0)
        option, equals, value = token.partition("=")
        if token == "--":
            result.remarks += [f"{each}: not an option" for each in rest]
            break
        if re.match(r"--?[A-Za-z]", token) is None:
            result.remarks.append(f"{token}: not an option")
            continue
        name = _in_full(option.lstrip("-"))
        is_flag = name in FLAGS and not equals and not (name in ALIASES and _is_value(rest))
        if is_flag:
            result.flags |= {trait: Given(value, option) for trait, value in FLAGS[name].sets}
            continue
        if name in FLAGS and name not in ALIASES:
            raise ConfigError(f"{option} takes no value")
        known = ALIASES.get(name) or ".".join(name.split(".")[-2:])  # for a class within a class, the inner one
        if not equals:
            if _is_value(rest):
                value = rest.pop(0)
            elif known in SPOKEN_OF:
                raise ConfigError(f"{option} needs a value")
        if known in SPOKEN_OF:
            words.setdefault(known, []).append(value)
            labels[known] = option
        else:
            result.remarks.append(f"{option}: {_no_such(name)}")
    for known, given in words.items():
        trait = TRAITS[SPOKEN_OF[known]]
        result.values[known] = Given(_read(trait, given, labels[known]), labels[known])
    return result


def _is_value(rest: Sequence[str]) -> bool:
    return bool(rest) and (not rest[0].startswith("-") or re.fullmatch(r"-(\d+|\d*\.\d+)?", rest[0]) is not None)


def _in_full(name: str) -> str:
    """Complete an abbreviated option, if the abbreviation contains a dash: ``profile-d``, but not ``profil``."""
    if "-" not in name or name in ALIASES or name in FLAGS:
        return name
    options = {option for option in (*ALIASES, *FLAGS) if option.startswith(name)}
    return options.pop() if len(options) == 1 else name


def _read(trait: Trait, words: Sequence[str], label: str) -> object:
    try:
        return trait.kind.read(words)
    except (ValueError, KeyError, SyntaxError):
        raise _refusal(trait, words[-1], label) from None


def _refusal(trait: Trait, value: object, label: str) -> ConfigError:
    what = "not usable" if SECRET & {*trait.settings} else repr(value)
    return ConfigError(f"{label} is {what}: expected {trait.kind.accepts}")


def _no_such(name: str) -> str:
    """Return the remark about an unknown option or trait, with a similar name if there is one."""
    section, dot, _ = name.rpartition(".")
    if not dot:
        near = _nearest(name, [*ALIASES, *FLAGS])
        return "ipcontroller has no such option" + (f"; did you mean --{near}?" if near else "")
    same_section = [known for known in SPOKEN_OF if known.startswith(f"{section}.")]
    near = _nearest(name, same_section) or _nearest(name, list(SPOKEN_OF))
    kind = "trait" if section in SECTIONS or near else "class"
    what = f"ipcontroller has no such {kind}"
    return what + (f"; did you mean {near}?" if near else "")


def _nearest(name: str, known: Sequence[str]) -> str | None:
    by_lower = {each.lower(): each for each in known}
    near = difflib.get_close_matches(name.lower(), by_lower, n=1, cutoff=0.75)
    return by_lower[near[0]] if near else None


# Config files


def config_directories(profile_dir: Path) -> list[Path]:
    """Return the directories of config files. The first takes precedence."""
    shared = [Path("/usr/local/etc/ipython"), Path("/etc/ipython")]
    of_this_python = Path(sys.prefix) / "etc" / "ipython"
    if of_this_python not in shared and sys.prefix != "/usr":
        shared.insert(0, of_this_python)
    return [profile_dir, *shared]


def find_config_files(directories: Sequence[Path]) -> list[Path]:
    """Return the config files to read. Later files take precedence."""
    return [
        path
        for name in ("ipython_config", "ipcontroller_config")
        for directory in reversed(directories)
        for path in (directory / f"{name}.py", directory / f"{name}.json")
        if path.is_file()
    ]


def find_extra_file(extra: Given, directories: Sequence[Path]) -> Path:
    """Return the file that ``--config`` names. Raises `ConfigError` if it does not exist."""
    name = Path(extra.value).expanduser()
    for directory in (*directories, Path()):
        for path in (directory / name, directory / f"{name}.py", directory / f"{name}.json"):
            if path.is_file():
                return path.absolute()
    raise ConfigError(f"{extra.label}: {name} is neither in {directories[0]} nor in the working directory")


def load_file(path: Path, environ: Mapping[str, str]) -> Iterator[tuple[str, Any]]:
    """Yield the settings of a config file, as ("Class.trait", value).

    Raises:
        ConfigError: traitlets is missing, or the file raises an exception.
    """
    try:
        from traitlets.config.loader import JSONFileConfigLoader
    except ImportError:
        raise ConfigError(
            f"{path} cannot be read without traitlets: run pip install traitlets, "
            "or use `trio-hub serve` and its own settings"
        ) from None
    try:
        if path.suffix == ".json":
            config = JSONFileConfigLoader(path.name, str(path.parent)).load_config()
        else:
            config = _python_loader(environ)(path.name, str(path.parent)).load_config()
    except Exception as error:  # the file is a user's code, which may raise anything
        where = _line_in(path, error)
        raise ConfigError(f"{path}{where} raised {type(error).__name__}: {error}") from error
    yield from _flat(config)


def _python_loader(environ: Mapping[str, str]) -> Any:
    from traitlets.config.loader import PyFileConfigLoader

    class ProfileAware(PyFileConfigLoader):
        """Supports ``load_subconfig("x.py", profile="other")``, as IPython's loader does."""

        def load_subconfig(self, fname: str, path: str | None = None, profile: str | None = None) -> None:
            if profile is not None:
                directory = profile_directory(profile, environ)
                if not directory.is_dir():
                    return
                path = str(directory)
            super().load_subconfig(fname, path=path)

    return ProfileAware


def _line_in(path: Path, error: Exception) -> str:
    line = error.lineno if isinstance(error, SyntaxError) else None
    traceback = error.__traceback__
    while traceback is not None:
        if traceback.tb_frame.f_code.co_filename == str(path):
            line = traceback.tb_lineno
        traceback = traceback.tb_next
    return "" if line is None else f", line {line},"


def _flat(section: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    from traitlets.config.loader import Config, LazyConfigValue

    for key, value in section.items():
        full = f"{name}.{key}" if name else key
        if isinstance(value, Config):
            yield from _flat(value, key)  # a class within a class: the inner class has the trait
        elif not isinstance(value, LazyConfigValue):
            yield full, value
        elif value.to_dict():  # otherwise it was only read
            yield full, value.get_value([])


# Both together


def translate(arguments: Sequence[str], environ: Mapping[str, str]) -> Translation:
    """Translate a command line and environment of ``ipcontroller``, and the config files that they lead to.

    Raises:
        ConfigError: A setting cannot be used. The message names the setting and its source.
    """
    line = parse_arguments(arguments)
    on_line = line.values | line.flags
    translation = Translation(remarks=line.remarks)
    chosen = _by_trait(on_line)
    _choose_profile(translation, chosen, environ)
    in_files = _load_files(translation, chosen.get("IPController.extra_config_file"))
    for name, given in _in_order(_by_trait(in_files | on_line)):
        trait = TRAITS[name]
        if given.in_file and any(environ.get(PREFIX + setting.upper()) for setting in trait.settings):
            continue
        try:
            value = trait.kind.check(given.value)
        except (ValueError, KeyError, TypeError):
            raise _refusal(trait, given.value, given.label) from None
        trait.apply(translation, value, given.label)
    settle_database(translation)
    return translation


def _by_trait(values: Values) -> Values:
    """Return the value that applies to each trait. A setting of a subclass takes precedence over its base class's."""
    rank = list(SECTIONS)
    ordered = sorted(values, key=lambda name: rank.index(name.partition(".")[0]))
    return {SPOKEN_OF[name]: values[name] for name in ordered}


def _in_order(values: Values) -> Iterator[tuple[str, Given]]:
    return ((name, values[name]) for name in TRAITS if name in values)


def _choose_profile(translation: Translation, chosen: Values, environ: Mapping[str, str]) -> None:
    """Set the profile directory, which must be known before the config files in it can be read."""
    translation.environ = dict(environ)
    ipython_dir = chosen.get("IPController.ipython_dir")
    if ipython_dir is not None and ipython_dir.value:
        translation.environ["IPYTHONDIR"] = str(Path(ipython_dir.value).absolute())
    profile, location = chosen.get("IPController.profile"), chosen.get("ProfileDir.location")
    if location is not None and location.value:
        translation.set("profile_dir", location.value, location.label)
        if profile is not None:
            translation.remark(profile.label, f"{location.label} takes precedence")
    elif profile is not None and profile.value:
        found = load_config({"profile": profile.value}, _about_profiles(translation.environ), None)
        translation.set("profile_dir", found.profile_dir, profile.label)


def _about_profiles(environ: Mapping[str, str]) -> dict[str, str]:
    """Return the variables that choose the profile. Others may be valid only together with the config files."""
    names = ["IPYTHONDIR", "HOME", "XDG_CONFIG_HOME", "IPP_PROFILE_DIR"]
    names += [PREFIX + name for name in ("PROFILE", "PROFILE_DIR", "CONFIG")]
    return {name: environ[name] for name in names if name in environ}


def _load_files(translation: Translation, extra: Given | None) -> Values:
    """Return the values in the config files. Unknown settings in them become remarks."""
    chosen = translation.settings.get("profile_dir")
    options = {"profile_dir": chosen.value} if chosen is not None else {}
    profile_dir = load_config(options, _about_profiles(translation.environ), None).profile_dir
    assert profile_dir is not None
    directories = config_directories(profile_dir)
    waiting = find_config_files(directories)
    if extra is not None and extra.value:
        waiting.append(find_extra_file(extra, directories))
    values: Values = {}
    while waiting:
        path = waiting.pop(0)
        translation.files.append(path)
        for name, value in load_file(path, translation.environ):
            label = f"{name} in {path}"
            trait = SPOKEN_OF.get(name)
            if trait is None:
                if (
                    path.stem != "ipython_config" or name.partition(".")[0] in SECTIONS
                ):  # other settings are for IPython
                    translation.remark(label, _no_such(name))
            elif trait in CHOOSES_PROFILE:
                translation.remark(label, "config files are read when the profile is known, so they cannot choose it")
            else:
                values[name] = Given(value, label, in_file=True)
                if trait == "IPController.extra_config_file" and extra is None:
                    extra = values[name]
                    waiting.append(find_extra_file(extra, directories))
    return values
