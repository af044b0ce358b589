"""Launchers for ``ipcluster`` and ``ipp.Cluster`` that start our hub: theirs, each with our command.

ipyparallel finds them by entry points (``ipyparallel.controller_launchers``, in pyproject.toml): ``trio-hub`` here,
``trio-hub-slurm`` and so on by a batch system. Nothing else imports this module, since it needs ipyparallel.
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
    """With our command. A user's own ``controller_cmd`` still counts more."""

    controller_cmd = List(
        Unicode(),
        [sys.executable, "-m", "trio_hub", "ipcontroller"],
        help="The command that starts the hub.",
    ).tag(config=True)


class TrioHub(_OurCommand, LocalControllerLauncher):  # type: ignore[misc]
    """On this machine."""


class TrioHubMPI(_OurCommand, MPIControllerLauncher):  # type: ignore[misc]
    """By ``mpiexec``."""


class TrioHubSSH(SSHControllerLauncher):  # type: ignore[misc]
    """On another machine, by ssh: with the Python there, which has to have trio-hub."""

    def _controller_cmd_default(self) -> list[str]:
        return [self.remote_python, "-m", "trio_hub", "ipcontroller"]


class TrioHubBatch(_OurCommand, BatchControllerLauncher):  # type: ignore[misc]
    """As a job of any batch system; its commands and its template have to be configured."""


class TrioHubSlurm(_OurCommand, SlurmControllerLauncher):  # type: ignore[misc]
    """As a Slurm job."""


class TrioHubPBS(_OurCommand, PBSControllerLauncher):  # type: ignore[misc]
    """As a PBS job."""


class TrioHubSGE(_OurCommand, SGEControllerLauncher):  # type: ignore[misc]
    """As a job of the Grid Engine."""


class TrioHubLSF(_OurCommand, LSFControllerLauncher):  # type: ignore[misc]
    """As an LSF job."""


class TrioHubHTCondor(HTCondorControllerLauncher):  # type: ignore[misc]
    """As an HTCondor job.

    HTCondor does not tell a Python which it is, and so it would not find its modules. A script knows its Python by its
    first line: hence the job is the script ``trio-hub``, which has to be on the PATH of the machine that runs it.
    """

    controller_cmd = List(Unicode(), ["trio-hub", "ipcontroller"], help="The command that starts the hub.").tag(
        config=True
    )
    default_template = Unicode(
        """
universe = vanilla
executable = trio-hub
# which is on a shared file system, or installed where the job runs
transfer_executable = False
arguments = ipcontroller {program_args}
"""
    )
