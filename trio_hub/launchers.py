"""Launchers with which ``ipcluster`` and ``ipp.Cluster`` start a trio_hub hub instead of ``ipcontroller``.

Each launcher is one of ipyparallel's own, with another command. ipyparallel finds the launchers by entry points
(``ipyparallel.controller_launchers`` in pyproject.toml): ``trio-hub`` for this machine, ``trio-hub-slurm`` and so on
for batch systems. No other module imports this one, since it needs ipyparallel.
"""

from __future__ import annotations

import sys

from ipyparallel.cluster.launcher import (
    BatchControllerLauncher,
    ControllerLauncher,
    HTCondorControllerLauncher,
    LocalControllerLauncher,
    LSFControllerLauncher,
    MPIControllerLauncher,
    PBSControllerLauncher,
    SGEControllerLauncher,
    SlurmControllerLauncher,
    SSHControllerLauncher,
)
from traitlets import List, Unicode

__all__ = [
    "TrioHub",
    "TrioHubBatch",
    "TrioHubHTCondor",
    "TrioHubLSF",
    "TrioHubMPI",
    "TrioHubPBS",
    "TrioHubSGE",
    "TrioHubSSH",
    "TrioHubSlurm",
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
