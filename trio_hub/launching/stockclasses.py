"""The launcher classes of ipyparallel: how they are found and configured, and what replaces some of their methods.

Only the agent imports this module, since it needs ipyparallel.
"""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Mapping, Sequence
from pathlib import Path
from subprocess import CalledProcessError
from typing import Any

from ipyparallel.cluster import launcher as stock
from ipyparallel.traitlets import entry_points
from traitlets.config import Config
from traitlets.config.loader import ConfigFileNotFound, JSONFileConfigLoader, PyFileConfigLoader

from ..config.pools import COMMAND, Pool
from ..config.poolvalues import ENTRY_POINTS
from .asking import Answer, run_command
from .batch import start_lsf
from .launcher import LaunchError

__all__ = ["adapted", "find_class", "last_lines", "read_config", "stop", "words"]

_SLURM_SETTINGS = {"SLURM_CLUSTERS", "SLURM_CONF", "SLURM_CONF_SERVER", "SLURM_JWT"}
"""The variables beginning with SLURM_ that say how Slurm is reached."""


def find_class(pool: Pool) -> Any:
    """Return the class of a pool's launcher. Raises `LaunchError`."""
    points = {point.name.lower(): point for point in entry_points(group=ENTRY_POINTS)}
    point = points.get(pool.launcher.lower())
    if point is None:
        names = sorted({*points, COMMAND})
        near = difflib.get_close_matches(pool.launcher.lower(), names, n=3, cutoff=0.5)
        hint = f"did you mean {' or '.join(near)}?" if near else f"there are {', '.join(names)}"
        raise LaunchError(f"pool {pool.name}: there is no launcher {pool.launcher}: {hint}")
    try:
        cls = point.load()
    except Exception as error:
        raise LaunchError(f"pool {pool.name}: cannot load the launcher {pool.launcher}: {words(error)}") from error
    if issubclass(cls, stock.SSHProxyEngineSetLauncher) or not hasattr(cls, "engine_cmd"):
        raise LaunchError(
            f"pool {pool.name}: the launcher {pool.launcher} does not run a command of ours for each engine, so the "
            "hub could not tell its engines from others: use another launcher, such as ssh"
        )
    return cls


def adapted(cls: Any) -> Any:
    """Return a launcher class of ipyparallel with our way of running commands. It keeps its name and its module."""
    changes: dict[str, Any] = {"__module__": cls.__module__, "_run_command": run}
    if issubclass(cls, stock.MPIEngineSetLauncher):
        changes["_log_output"] = keep_output
    if issubclass(cls, stock.LSFLauncher):
        changes["start"] = start_lsf
    return type(cls)(cls.__name__, (cls,), changes)


def read_config(profile_dir: Path | None) -> Config:
    """Return the settings in the profile's files for ``ipcluster``. Raises `LaunchError`."""
    config = Config()
    if profile_dir is None:
        return config
    for loader in (JSONFileConfigLoader, PyFileConfigLoader):
        name = "ipcluster_config.json" if loader is JSONFileConfigLoader else "ipcluster_config.py"
        try:
            config.merge(loader(name, path=str(profile_dir)).load_config())
        except ConfigFileNotFound:
            continue
        except Exception as error:  # the file is a program
            raise LaunchError(f"cannot read {profile_dir / name}: {words(error)}") from error
    return config


def _of_no_job(env: Mapping[str, str], launcher: Any) -> dict[str, str]:
    """Return an environment without the facts about the Slurm job in which the hub itself runs.

    sbatch passes them on to the new job, where ``srun`` takes some of them for options, such as ``SLURM_MEM_PER_CPU``.
    """
    return {
        name: value
        for name, value in env.items()
        if not name.startswith("SLURM_") or name in _SLURM_SETTINGS or name in launcher.environment
    }


def run(launcher: Any, command: Sequence[str], *, env: Mapping[str, str] | None = None, **_: Any) -> str:
    """Run a command of a batch system, and return its output. Replaces a method that drops the output on stderr."""
    if env is not None and isinstance(launcher, stock.SlurmLauncher):
        env = _of_no_job(env, launcher)
    answer = run_command(command, env=env, limit=None)
    launcher.last_answer = answer
    if answer.status != 0:
        raise stock.LauncherError(answer.words)
    return answer.out


def keep_output(launcher: Any, data: Any = None) -> None:
    """Replace a method that removes the file with the output of a process that has ended."""


def last_lines(launcher: Any) -> list[str]:
    """Return the end of the output of a launcher's processes."""
    if hasattr(launcher, "launchers"):
        text = "\n".join(str(output) for output in launcher.outputs.values())
    else:
        text = str(launcher.get_output(remove=False))
    lines = [line.strip() for line in text.splitlines() if line.strip("-= \t")]  # mpiexec draws lines around its errors
    return [" | ".join(lines[-3:])] if lines else []


async def stop(launcher: Any) -> None:
    """End the engines of a launcher whose engines are not processes of this machine."""
    stopped = launcher.stop()
    if inspect.isawaitable(stopped):
        await stopped


def words(error: BaseException, answer: Answer | None = None) -> str:
    """Return an error as text, together with the errors that the last command has printed."""
    if isinstance(error, CalledProcessError):
        parts = (error.stderr, error.output)
        said = [part.decode("utf-8", "replace") if isinstance(part, bytes) else part or "" for part in parts]
        return Answer(error.returncode, said[1], said[0]).words if any(said) else str(error)
    text = str(error).strip() or type(error).__name__
    if answer is not None and (further := answer.err.strip()) and further not in text:
        text += f": {further}"
    return text
