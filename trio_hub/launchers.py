"""Launchers with which ``ipcluster`` and ``ipp.Cluster`` start our hub and our engines instead of the stock ones.

Each launcher is one of ipyparallel's own, with another command. ipyparallel finds the launchers by entry points
(``ipyparallel.controller_launchers`` and ``ipyparallel.engine_launchers`` in pyproject.toml): ``trio-hub`` for this
machine, ``trio-hub-slurm`` and so on for batch systems. No other module imports this one, since it needs ipyparallel.
"""

from __future__ import annotations

import sys

from ipyparallel.cluster.launcher import (
    BatchControllerLauncher,
    BatchEngineSetLauncher,
    ControllerLauncher,
    EngineLauncher,
    HTCondorControllerLauncher,
    HTCondorEngineSetLauncher,
    LocalControllerLauncher,
    LocalEngineSetLauncher,
    LSFControllerLauncher,
    LSFEngineSetLauncher,
    MPIControllerLauncher,
    MPIEngineSetLauncher,
    PBSControllerLauncher,
    PBSEngineSetLauncher,
    SGEControllerLauncher,
    SGEEngineSetLauncher,
    SlurmControllerLauncher,
    SlurmEngineSetLauncher,
    SSHControllerLauncher,
    SSHEngineLauncher,
    SSHEngineSetLauncher,
)
from traitlets import List, Unicode

__all__ = [
    "TrioHub",
    "TrioHubBatch",
    "TrioHubBatchEngines",
    "TrioHubEngines",
    "TrioHubHTCondor",
    "TrioHubHTCondorEngines",
    "TrioHubLSF",
    "TrioHubLSFEngines",
    "TrioHubMPI",
    "TrioHubMPIEngines",
    "TrioHubPBS",
    "TrioHubPBSEngines",
    "TrioHubSGE",
    "TrioHubSGEEngines",
    "TrioHubSSH",
    "TrioHubSSHEngines",
    "TrioHubSlurm",
    "TrioHubSlurmEngines",
]


class _OurCommand(ControllerLauncher):  # type: ignore[misc]  # ipyparallel has no types, here and below
    """A launcher with our command, unless the user has configured another ``controller_cmd``."""

    controller_cmd = List(
        Unicode(),
        [sys.executable, "-m", "trio_hub", "ipcontroller"],
        help="The command that starts the hub.",
    ).tag(config=True)


class TrioHub(_OurCommand, LocalControllerLauncher):  # type: ignore[misc]
    """Starts the hub on this machine."""


class TrioHubMPI(_OurCommand, MPIControllerLauncher):  # type: ignore[misc]
    """Starts the hub with ``mpiexec``."""


class TrioHubSSH(SSHControllerLauncher):  # type: ignore[misc]
    """Starts the hub on another machine, by ssh. The Python there must have trio-hub installed."""

    def _controller_cmd_default(self) -> list[str]:
        return [self.remote_python, "-m", "trio_hub", "ipcontroller"]


class TrioHubBatch(_OurCommand, BatchControllerLauncher):  # type: ignore[misc]
    """Starts the hub as a job of any batch system. The batch system's commands and the template must be configured."""


class TrioHubSlurm(_OurCommand, SlurmControllerLauncher):  # type: ignore[misc]
    """Starts the hub as a Slurm job."""


class TrioHubPBS(_OurCommand, PBSControllerLauncher):  # type: ignore[misc]
    """Starts the hub as a PBS job."""


class TrioHubSGE(_OurCommand, SGEControllerLauncher):  # type: ignore[misc]
    """Starts the hub as a job of the Grid Engine."""


class TrioHubLSF(_OurCommand, LSFControllerLauncher):  # type: ignore[misc]
    """Starts the hub as an LSF job."""


class TrioHubHTCondor(HTCondorControllerLauncher):  # type: ignore[misc]
    """Starts the hub as an HTCondor job.

    A Python that HTCondor starts does not know its own path, so it does not find its modules. A script names its Python
    in its first line. So the job is the script ``trio-hub``, which must be on the PATH where the job runs.
    """

    controller_cmd = List(Unicode(), ["trio-hub", "ipcontroller"], help="The command that starts the hub.").tag(
        config=True
    )
    default_template = Unicode(
        """
universe = vanilla
executable = trio-hub
# the script is on a shared file system, or installed where the job runs
transfer_executable = False
arguments = ipcontroller {program_args}
"""
    )


# Engines


class _OurEngine(EngineLauncher):  # type: ignore[misc]
    """A launcher with our command, unless the user has configured another ``engine_cmd``."""

    engine_cmd = List(
        Unicode(),
        [sys.executable, "-m", "trio_hub", "engine"],
        help="The command that starts an engine.",
    ).tag(config=True)


class TrioHubEngines(_OurEngine, LocalEngineSetLauncher):  # type: ignore[misc]
    """Starts engines on this machine."""


class TrioHubMPIEngines(_OurEngine, MPIEngineSetLauncher):  # type: ignore[misc]
    """Starts engines with ``mpiexec``."""


class _SSHEngine(SSHEngineLauncher):  # type: ignore[misc]
    """Starts one engine on another machine, by ssh. The Python there must have trio-hub installed."""

    def _engine_cmd_default(self) -> list[str]:
        return [self.remote_python, "-m", "trio_hub", "engine"]


class TrioHubSSHEngines(SSHEngineSetLauncher):  # type: ignore[misc]
    """Starts engines on other machines, by ssh."""

    launcher_class = _SSHEngine

    def _engine_cmd_default(self) -> list[str]:
        return [self.remote_python, "-m", "trio_hub", "engine"]


class TrioHubBatchEngines(_OurEngine, BatchEngineSetLauncher):  # type: ignore[misc]
    """Starts engines as jobs of any batch system. The batch system's commands and the template must be configured."""


class TrioHubSlurmEngines(_OurEngine, SlurmEngineSetLauncher):  # type: ignore[misc]
    """Starts engines as Slurm jobs."""


class TrioHubPBSEngines(_OurEngine, PBSEngineSetLauncher):  # type: ignore[misc]
    """Starts engines as PBS jobs."""


class TrioHubSGEEngines(_OurEngine, SGEEngineSetLauncher):  # type: ignore[misc]
    """Starts engines as jobs of the Grid Engine."""


class TrioHubLSFEngines(_OurEngine, LSFEngineSetLauncher):  # type: ignore[misc]
    """Starts engines as LSF jobs."""


class TrioHubHTCondorEngines(HTCondorEngineSetLauncher):  # type: ignore[misc]
    """Starts engines as HTCondor jobs: the script ``trio-hub``, as in `TrioHubHTCondor`."""

    engine_cmd = List(Unicode(), ["trio-hub", "engine"], help="The command that starts an engine.").tag(config=True)
    default_template = Unicode(
        """
universe = vanilla
executable = trio-hub
# the script is on a shared file system, or installed where the job runs
transfer_executable = False
arguments = "engine {program_args}"
"""
    )
