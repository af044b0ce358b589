"""What ipyparallel's launchers for batch systems need beyond their traits: names of jobs, time limits, and corrections.

Only the agent imports this module, since it needs ipyparallel.
"""

from __future__ import annotations

import math
import os
import re
import shlex
from pathlib import Path
from typing import Any

from ipyparallel.cluster import launcher as stock

from ..config.pools import Pool
from .asking import run_command
from .commands import job_name

__all__ = ["NAMED", "delete", "is_unanswered", "job_name", "prepare", "set_up", "start_lsf", "system_of"]

NAMED = {"slurm", "lsf", "htcondor"}
"""The batch systems whose jobs get the name of their block, and are found by it."""
BATCH = "batch"
"""A batch system of another kind. The agent can submit and delete jobs there, but cannot ask for their states."""

_CLASSES = {
    "slurm": stock.SlurmLauncher,
    "sge": stock.SGELauncher,  # before PBS: an SGELauncher is a PBSLauncher too
    "pbs": stock.PBSLauncher,
    "lsf": stock.LSFLauncher,
    "htcondor": stock.HTCondorLauncher,
    BATCH: stock.BatchSystemLauncher,
}
_HTCONDOR = """
universe = vanilla
executable = {engine_script}
# the script is on a shared file system
transfer_executable = False
getenv = True
output = {output_file}.$(Process)
error = {output_file}.$(Process)
log = {output_file}.events
"""
_LSF = """#!/bin/sh
#BSUB -env all
{program_and_args}
"""
_SCRIPT = "engine.sh"
_UNANSWERED = re.compile(r"(?i)timed? ?out|did not answer|zero bytes were|reset by peer|communication error")
"""What batch systems say if their answer did not come. Slurm: "Socket timed out on send/recv operation"."""


def is_unanswered(words: str) -> bool:
    """Return whether a command that submits a job has failed because it got no answer. Then the job may be there."""
    return _UNANSWERED.search(words) is not None


def system_of(cls: Any) -> str:
    """Return the name of the batch system of a launcher class; empty if the launcher starts processes itself."""
    return next((name for name, base in _CLASSES.items() if issubclass(cls, base)), "")


def set_up(launcher: Any, pool: Pool, block: str, directory: Path) -> None:
    """Set what the pool and the block mean for a batch system, in a launcher that was just made."""
    system = system_of(type(launcher))
    limit = None if pool.settings.time_limit is None else math.ceil(pool.settings.time_limit)
    script = str(directory / _SCRIPT)
    launcher.namespace = {
        "time_limit": "" if limit is None else limit,
        "block": block,
        "engine_script": script,
        **launcher.namespace,
    }
    own_template = launcher.batch_template or launcher.batch_template_file
    shipped = type(launcher).__module__ in ("ipyparallel.cluster.launcher", "trio_hub.launchers")
    if system == "htcondor" and shipped and not own_template:
        # ipyparallel's template starts a fixed program, without the arguments and the environment that an engine needs
        launcher.default_template = _HTCONDOR
    if system == "lsf" and shipped and not own_template:
        # ipyparallel's template gives the job two names, one of them without the number of engines
        launcher.default_template = _LSF
        launcher.job_array_template = f"#BSUB -J {job_name(block)}[1-{{n}}]"
    if system == "sge":
        launcher.output_regexp, launcher.output_template = r"#\$\W+-o\W", "#$ -j y\n#$ -o {output_file}"
    if system == "pbs" and "job_id_regexp" not in pool.traits and launcher.job_id_regexp.pattern == r"\d+":
        # with the brackets of a job array and the server, without which qdel and qstat do not find every job
        launcher.job_id_regexp = r"\d+(\[\])?(\.[\w.-]+)?"
    if limit is not None:
        _limit(launcher, system, limit)
    if system == "slurm":
        launcher.submit_command = [*launcher.submit_command, f"--job-name={job_name(block)}"]
        if not own_template:
            # ipyparallel's template has no place for the trait options
            launcher.submit_command += shlex.split(launcher.options)
    elif system == "htcondor":
        launcher.submit_command = [*launcher.submit_command, "-batch-name", job_name(block)]


def _limit(launcher: Any, system: str, limit: int) -> None:
    """Have the default template of a launcher limit the time of its jobs to so many seconds."""
    clock = f"{limit // 3600}:{limit % 3600 // 60:02}:{limit % 60:02}"
    if system == "slurm":
        launcher.timelimit = launcher.timelimit or clock
        return
    lines = {
        "pbs": f"#PBS -l walltime={clock}",
        "sge": f"#$ -l h_rt={limit}",
        "lsf": f"#BSUB -W {math.ceil(limit / 60)}",
        "htcondor": f"periodic_remove = JobStatus == 2 && time() - EnteredCurrentStatus > {limit}",
    }
    if system in lines:
        first, rest = launcher.default_template.split("\n", 1)
        launcher.default_template = "\n".join([first, lines[system], rest])


def prepare(launcher: Any, directory: Path) -> None:
    """Write the file that a batch script names, if it names one."""
    if isinstance(launcher, stock.HTCondorLauncher):
        path = directory / _SCRIPT
        path.write_text(engine_script(launcher), "utf-8")
        path.chmod(0o700)


def engine_script(launcher: Any) -> str:
    """Return a shell script that is one engine."""
    return f"#!/bin/sh\nexec {shlex.join([*launcher.program, *launcher.program_args])}\n"


def start_lsf(launcher: Any, n: int = 1) -> str:
    """Submit a job to LSF, whose ``bsub`` reads the batch script from its standard input.

    Replaces a method of ipyparallel that does not pass on the environment, and does not keep what bsub says.
    """
    launcher.write_batch_script(n)
    command = launcher.submit_command
    answer = run_command(command, env={**os.environ, **launcher.get_env()}, stdin=launcher.batch_file, limit=None)
    launcher.last_answer = answer
    if answer.status != 0:
        raise stock.LauncherError(answer.words)
    job_id = str(launcher.parse_job_id(answer.out))
    launcher.notify_start(job_id)
    return job_id


def delete(launcher: Any) -> None:
    """Have the batch system end a job. Raises an exception with the batch system's words."""
    launcher._run_command([*launcher.delete_command, launcher.job_id])
