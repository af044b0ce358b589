"""The command line of ``trio-hub engine``, with the options of ``ipengine``."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence

from ..wire.blocks import BLOCK_NAME

__all__ = ["ALIASES", "BLOCK", "FLAGS", "TRAITS", "EngineOptions", "OptionError", "parse_options"]


class OptionError(ValueError):
    """An option cannot be used. The text names the option."""


class EngineOptions:
    """The options of an engine. Times are in seconds.

    A dataclass would cost the nanny a megabyte.
    """

    profile: str = ""
    profile_dir: str = ""
    ipython_dir: str = ""
    cluster_id: str = ""
    file: str = ""
    """The connection file; by default the one in the profile directory."""
    connection_info: str = ""
    """The content of a connection file, as JSON; instead of a file."""
    wait_for_file: float = 10.0
    """Seconds to wait until the connection file exists."""
    timeout: float = 5.0
    """Seconds to wait for the hub's answer to the registration."""
    url: str = ""
    """The address of the registration socket, instead of the one in the connection file."""
    location: str = ""
    id: int | None = None
    work_dir: str = ""
    startup_script: str = ""
    startup_command: str = ""
    log_level: str = "INFO"
    log_to_file: bool = False
    ssh: str = ""
    ssh_key: str = ""
    paramiko: bool = False
    mpi: bool = False
    mpi_init: str = (
        "from mpi4py import MPI\nmpi_rank = MPI.COMM_WORLD.Get_rank()\nmpi_size = MPI.COMM_WORLD.Get_size()\n"
    )
    mpi_registration_delay: float = 0.02
    max_heartbeat_misses: int = 50
    """The engine ends after this many missed heartbeats of the hub in a row; 0: never."""
    nanny: bool = True
    curve_serverkey: str = ""
    curve_publickey: str = ""
    curve_secretkey: str = ""
    kill_grace: float = 5.0
    """Seconds that an engine has to end after a signal, before the nanny kills it."""
    drain_before: float = 60.0
    """Seconds before the end of its Slurm job at which the engine begins to drain; 0: it does not."""
    block: str = ""
    """The name of the block of a pool to which the engine belongs, for the hub."""
    help: bool = False
    version: bool = False

    def __init__(self) -> None:
        self.unused: list[str] = []
        """The options of ipengine that do not apply here, to be named in the log."""
        self.tags: dict[str, str] = {}
        """Tags and amounts that the engine offers, besides those that it finds itself. An empty text removes one."""
        self.shell: list[tuple[str, str]] = []
        """Traits of IPython's classes, with their values."""


TRAITS: dict[str, str] = {
    "BaseIPythonApplication.profile": "profile",
    "ProfileDir.location": "profile_dir",
    "BaseIPythonApplication.ipython_dir": "ipython_dir",
    "BaseParallelApplication.cluster_id": "cluster_id",
    "BaseParallelApplication.work_dir": "work_dir",
    "BaseParallelApplication.log_to_file": "log_to_file",
    "Application.log_level": "log_level",
    "IPEngine.url_file": "file",
    "IPEngine.wait_for_url_file": "wait_for_file",
    "IPEngine.timeout": "timeout",
    "IPEngine.registration_url": "url",
    "IPEngine.location": "location",
    "IPEngine.id": "id",
    "IPEngine.startup_script": "startup_script",
    "IPEngine.startup_command": "startup_command",
    "IPEngine.sshserver": "ssh",
    "IPEngine.sshkey": "ssh_key",
    "IPEngine.paramiko": "paramiko",
    "IPEngine.use_mpi": "mpi",
    "IPEngine.init_mpi": "mpi_init",
    "IPEngine.mpi_registration_delay": "mpi_registration_delay",
    "IPEngine.max_heartbeat_misses": "max_heartbeat_misses",
    "IPEngine.enable_nanny": "nanny",
    "IPEngine.curve_serverkey": "curve_serverkey",
    "IPEngine.curve_publickey": "curve_publickey",
    "IPEngine.curve_secretkey": "curve_secretkey",
    "Nanny.kill_grace": "kill_grace",
    "Engine.tag": "tags",
    "Engine.drain_before": "drain_before",
    "Engine.block": "block",
}
"""The traits of ipengine that this engine has too, ``Nanny.kill_grace``, ``Engine.tag``, ``Engine.drain_before`` and
``Engine.block``, with the option that each sets."""

ALIASES: dict[str, str] = {
    "profile": "BaseIPythonApplication.profile",
    "profile-dir": "ProfileDir.location",
    "ipython-dir": "BaseIPythonApplication.ipython_dir",
    "cluster-id": "BaseParallelApplication.cluster_id",
    "work-dir": "BaseParallelApplication.work_dir",
    "log-to-file": "BaseParallelApplication.log_to_file",
    "log-level": "Application.log_level",
    "file": "IPEngine.url_file",
    "timeout": "IPEngine.timeout",
    "url": "IPEngine.registration_url",
    "location": "IPEngine.location",
    "id": "IPEngine.id",
    "s": "IPEngine.startup_script",
    "c": "IPEngine.startup_command",
    "ssh": "IPEngine.sshserver",
    "sshkey": "IPEngine.sshkey",
    "kill-grace": "Nanny.kill_grace",
    "tag": "Engine.tag",
    "drain-before": "Engine.drain_before",
    "block": "Engine.block",
}
"""The short options, and the trait that each stands for."""

FLAGS: dict[str, dict[str, str]] = {
    "mpi": {"IPEngine.use_mpi": "True"},
    "log-to-file": {"BaseParallelApplication.log_to_file": "True"},
    "debug": {"Application.log_level": "DEBUG"},
    "quiet": {"Application.log_level": "CRITICAL"},
    "no-nanny": {"IPEngine.enable_nanny": "False"},
    "init": {},
    "secure": {"Session.key": ""},
    "no-secure": {"Session.key": ""},
    "show-config": {"Application.show_config": "True"},
    "show-config-json": {"Application.show_config_json": "True"},
}
"""The options without a value, and the traits that each sets."""

_OLD_CLASSES = {
    "EngineFactory": "IPEngine",
    "IPEngineApp": "IPEngine",
    "RegistrationFactory": "IPEngine",
}
_NOT_IPYTHON = {
    "IPEngine",
    "Session",
    "Application",
    "BaseIPythonApplication",
    "BaseParallelApplication",
    "IPKernelApp",
}
"""The classes of ipengine whose traits are not for IPython's shell."""
_INHERITED = {name.partition(".")[2]: name for name in TRAITS if not name.startswith(("IPEngine", "ProfileDir"))}
"""The traits of the classes that IPEngine inherits from: ``IPEngine.work_dir`` means the same."""
_OPTION = re.compile(r"--?([A-Za-z][\w.-]*)(?:=(.*))?", re.DOTALL)
_ENVIRONMENT = {
    "IPP_PROFILE_DIR": "profile_dir",
    "IPP_CLUSTER_ID": "cluster_id",
    "IPP_CONNECTION_INFO": "connection_info",
    "IPP_CURVE_SERVERKEY": "curve_serverkey",
    "IPP_CURVE_PUBLICKEY": "curve_publickey",
    "IPP_CURVE_SECRETKEY": "curve_secretkey",
}
BLOCK = "TRIO_HUB_ENGINE_BLOCK"
"""The environment variable with the name of the block of a pool. The option ``--block`` takes precedence."""
_TAGS = "TRIO_HUB_ENGINE_TAGS"
"""The variable with further tags, as words. The hub sets it for its local engines."""
_LEVELS = {"0": "DEBUG", "10": "DEBUG", "20": "INFO", "30": "WARNING", "40": "ERROR", "50": "CRITICAL"}


def parse_options(arguments: Sequence[str], environ: Mapping[str, str] = os.environ) -> EngineOptions:
    """Return the options in a command line and the environment. The command line takes precedence.

    Raises:
        OptionError: an option cannot be used. The text names the option.
    """
    options = EngineOptions()
    for variable, name in _ENVIRONMENT.items():
        if environ.get(variable):
            setattr(options, name, environ[variable])
    if environ.get(BLOCK):
        _set(options, "Engine.block", BLOCK, environ[BLOCK])
    for word in environ.get(_TAGS, "").split():
        _set(options, "Engine.tag", _TAGS, word)
    rest = list(arguments)
    while rest:
        argument = rest.pop(0)
        if argument in ("-h", "--help", "--help-all", "help"):
            options.help = True
        elif argument in ("-V", "--version"):
            options.version = True
        elif (found := _OPTION.fullmatch(argument)) is None:
            raise OptionError(f"{argument!r} is not an option: options are --name=value or --name value")
        else:
            name, value = found[1], found[2]
            flag = name.replace("_", "-")
            if value is None and flag in FLAGS:
                for trait, text in FLAGS[flag].items():
                    _set(options, trait, trait, text)
                continue
            if value is None:
                if not rest:
                    raise OptionError(f"the option --{name} needs a value")
                value = rest.pop(0)
            _set(options, _trait(flag if "." not in name else name), f"--{name}", value)
    return options


def _trait(name: str) -> str:
    """Return the full name of the trait that an option means."""
    if "." not in name:
        return ALIASES.get(name, name)
    owner, _, trait = name.partition(".")
    owner = _OLD_CLASSES.get(owner, owner)
    if owner == "IPEngine" or owner.startswith("Base") or owner == "Application":
        return _INHERITED.get(trait, f"{owner}.{trait}")
    return f"{owner}.{trait}"


def _set(options: EngineOptions, trait: str, given: str, text: str) -> None:
    name = TRAITS.get(trait)
    if name is None:
        if "." not in trait and trait not in ("log-url", "clean-logs", "config", "ident", "user", "keyfile", "secure"):
            raise OptionError(f"there is no option {given}")
        owner = trait.partition(".")[0]
        if "." in trait and owner not in _NOT_IPYTHON:
            options.shell.append((trait, text))
        else:
            options.unused.append(given)
        return
    if name == "tags":
        key, mark, tag = text.partition("=")
        if not key:
            raise OptionError(f"{given} cannot be {text!r}: write it as gpu=1, site=a, or large")
        options.tags[key] = tag if mark else "1"
        return
    default = getattr(options, name)
    value: object = text
    try:
        if isinstance(default, bool):
            value = {"true": True, "1": True, "false": False, "0": False}[text.lower()]
        elif name == "id":
            value = int(text)
        elif isinstance(default, int | float):
            value = type(default)(text)
        elif name == "log_level":
            value = _LEVELS.get(text, text.upper())
            if value not in _LEVELS.values():
                raise ValueError(text)
        elif name == "block" and not BLOCK_NAME.fullmatch(text):
            raise ValueError(text)
    except (KeyError, ValueError):
        raise OptionError(f"{given} cannot be {text!r}") from None
    if name in ("work_dir", "file", "startup_script", "ssh_key", "profile_dir", "ipython_dir"):
        value = os.path.expanduser(str(value))
    setattr(options, name, value)
