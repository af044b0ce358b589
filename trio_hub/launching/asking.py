"""Asking batch systems for the states of jobs, with the commands that each system has for that."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from tempfile import TemporaryFile

from . import statuses
from .launcher import JobReport, JobState, LaunchError

__all__ = ["SYSTEMS", "Answer", "Asker", "find_by_name", "run_command"]

LIMIT = 30.0
"""Seconds in which a command of a batch system has to answer."""


@dataclass(frozen=True, slots=True)
class Answer:
    """The output and the exit status of a command. The status is None if the command was not run, or did not end."""

    status: int | None
    out: str = ""
    err: str = ""

    @property
    def words(self) -> str:
        """The words of the command, for people: its errors if it has printed any, else its output."""
        return (self.err.strip() or self.out.strip() or f"exit status {self.status}")[-2000:]


def run_command(
    words: Sequence[str],
    *,
    env: Mapping[str, str] | None = None,
    stdin: str | None = None,
    limit: float | None = LIMIT,
) -> Answer:
    """Run a command until it ends, and return its output. Its standard input is the file ``stdin``, or empty.

    The hub does not wait for processes that the command leaves in the background. They may be engines that still have
    the command's output open. So the output goes to files: a pipe would have no end while these processes run.
    """
    try:
        with open(stdin or os.devnull, "rb") as file, TemporaryFile() as out, TemporaryFile() as err:
            done = subprocess.run(words, stdin=file, stdout=out, stderr=err, env=env, timeout=limit, check=False)
            said = [_content(each.fileno()) for each in (out, err)]
    except OSError as error:
        return Answer(None, err=f"{words[0]}: {error.strerror or error}")
    except subprocess.TimeoutExpired:
        return Answer(None, err=f"{words[0]} did not answer within {limit} s")
    return Answer(done.returncode, *said)


def _content(file: int) -> str:
    """Return what is in a file. Processes in the background may still write at its position, which must not change."""
    return os.pread(file, os.fstat(file).st_size, 0).decode("utf-8", "replace")


class Asker:
    """Runs the commands of one batch system.

    Args:
        submit_command: the command with which this site submits jobs. If it is ``/opt/slurm/bin/sbatch``, or
            ``ssh login sbatch``, the other commands of the system are found in the same way.
        run: runs a command.
    """

    def __init__(self, submit_command: Sequence[str], run: Callable[[Sequence[str]], Answer] = run_command) -> None:
        self._before = list(submit_command)
        self._run = run

    def tool(self, name: str) -> list[str]:
        """Return the words that run a command of the batch system."""
        for index, word in enumerate(self._before):
            directory, submit = os.path.split(word)
            if submit in _SUBMIT:
                return [*self._before[:index], os.path.join(directory, name)]
        return [name]

    def ask(self, name: str, *arguments: str) -> Answer:
        return self._run([*self.tool(name), *arguments])


_SUBMIT = {"sbatch", "qsub", "bsub", "condor_submit"}


def _ended(words: str = "") -> JobReport:
    return JobReport(JobState.ENDED, words)


def _unknown(answer: Answer) -> JobReport:
    return JobReport(JobState.UNKNOWN, answer.words[: statuses.MAX_WORDS])


def _slurm(jobs: Sequence[str], asker: Asker) -> dict[str, JobReport]:
    answer = asker.ask("squeue", "--noheader", "--format=%F|%T|%r", f"--jobs={','.join(jobs)}")
    # asked for one unknown job, squeue fails; asked for several jobs, it leaves out the unknown ones
    if answer.status != 0 and "Invalid job id" not in answer.err:
        return dict.fromkeys(jobs, _unknown(answer))
    found = statuses.slurm_squeue(answer.out)
    for job in jobs:
        if job in found and found[job].state is not JobState.ENDED:
            continue
        # for some minutes, scontrol still tells of a job that has ended
        answer = asker.ask("scontrol", "--oneliner", "show", "job", job)
        told = statuses.slurm_scontrol(answer.out).get(job)
        if told is not None:
            found[job] = told
        elif job not in found:
            gone = answer.status == 0 or "Invalid job id" in answer.words
            found[job] = _ended() if gone else _unknown(answer)
    return found


def _pbs(jobs: Sequence[str], asker: Asker) -> dict[str, JobReport]:
    found = {}
    for job in jobs:  # one question per job: some versions print nothing about several jobs if one job is unknown
        number = job.partition(".")[0].removesuffix("[]")
        answer = asker.ask("qstat", "-f", job)
        told = statuses.pbs_qstat(answer.out).get(number)
        if told is None and "finished" in answer.err:  # PBS Pro keeps a history
            told = statuses.pbs_qstat(asker.ask("qstat", "-x", "-f", job).out).get(number, _ended())
        if told is None:
            told = _ended() if "unknown job" in answer.err.lower() else _unknown(answer)
        found[job] = told
    return found


def _sge(jobs: Sequence[str], asker: Asker) -> dict[str, JobReport]:
    answer = asker.ask("qstat")
    if answer.status != 0:
        return dict.fromkeys(jobs, _unknown(answer))
    listed = statuses.sge_qstat(answer.out)
    return {
        job: listed.get(job) or statuses.sge_qacct(asker.ask("qacct", "-j", job).out).get(job, _ended()) for job in jobs
    }


def _lsf(jobs: Sequence[str], asker: Asker) -> dict[str, JobReport]:
    answer = asker.ask("bjobs", "-a", "-noheader", "-o", statuses.LSF_FORMAT, *jobs)
    listed = statuses.lsf_bjobs(answer.out)
    return {
        job: listed.get(job) or (_ended() if f"<{job}> is not found" in answer.err else _unknown(answer))
        for job in jobs
    }


def _htcondor(jobs: Sequence[str], asker: Asker) -> dict[str, JobReport]:
    answer = asker.ask("condor_q", "-json", "-attributes", statuses.CONDOR_ATTRIBUTES, *jobs)
    if answer.status != 0:
        return dict.fromkeys(jobs, _unknown(answer))
    found = statuses.htcondor(answer.out)
    for job in jobs:
        if job not in found:
            told = asker.ask(
                "condor_history", "-json", "-attributes", statuses.CONDOR_ATTRIBUTES, "-scanlimit", "10000", job
            )
            found[job] = statuses.htcondor(told.out).get(job, _ended())
    return found


SYSTEMS: Mapping[str, Callable[[Sequence[str], Asker], dict[str, JobReport]]] = {
    "slurm": _slurm,
    "pbs": _pbs,
    "sge": _sge,
    "lsf": _lsf,
    "htcondor": _htcondor,
}
"""The function that asks each batch system. It returns a report for each job that it is asked for."""


def find_by_name(system: str, name: str, asker: Asker) -> str | None:
    """Return the id of the living job with a name; None if there is none.

    PBS, Grid Engine and other systems cannot be asked for a name: then it is None as well.

    Raises:
        LaunchError: the batch system did not answer.
    """
    questions = {
        "slurm": ("squeue", "--noheader", "--format=%F", f"--name={name}"),
        "lsf": ("bjobs", "-noheader", "-o", "jobid", "-J", name),
        "htcondor": ("condor_q", "-af", "ClusterId", "-constraint", f'JobBatchName == "{name}"'),
    }
    if system not in questions:
        return None
    answer = asker.ask(*questions[system])
    words = answer.out.split()
    if words and words[0].isdecimal():
        return words[0]
    if answer.status != 0 and "is not found" not in answer.err:
        raise LaunchError(answer.words)
    return None
