"""What batch systems say of jobs: their output as text becomes a `JobReport`. Any text gives reports, never an error.

Each parser returns a report per job that the text tells of, by the job's id without an index. The tasks of a job array
are one job: the job runs when one of its tasks runs, and has ended when all have ended.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from .launcher import JobReport, JobState

__all__ = [
    "htcondor",
    "lsf_bjobs",
    "pbs_qstat",
    "sge_qacct",
    "sge_qstat",
    "slurm_scontrol",
    "slurm_squeue",
    "user_command",
]

MAX_WORDS = 500
"""The maximum number of characters of a batch system's words that are kept."""

_Rows = Iterable[tuple[str, JobReport]]

_ID = re.compile(r"[0-9]+")

_SLURM_WAITING = {
    *("PENDING", "CONFIGURING", "REQUEUED", "REQUEUE_FED", "REQUEUE_HOLD", "RESV_DEL_HOLD", "SPECIAL_EXIT"),
}
_SLURM_RUNNING = {"RUNNING", "RESIZING", "SIGNALING", "STAGE_OUT", "STOPPED", "SUSPENDED"}
_SLURM_FAILED = {
    # a job that reaches its time limit has done what it was asked for
    "COMPLETED": False,
    "TIMEOUT": False,
    **dict.fromkeys(("BOOT_FAIL", "CANCELLED", "DEADLINE", "FAILED", "NODE_FAIL"), True),
    **dict.fromkeys(("OUT_OF_MEMORY", "PREEMPTED", "REVOKED", "LAUNCH_FAILED", "RECONFIG_FAIL"), True),
}
_PBS_STATES = {
    **dict.fromkeys("QHWTM", JobState.WAITING),
    **dict.fromkeys("RBESU", JobState.RUNNING),
    **dict.fromkeys("CFX", JobState.ENDED),
}
_PBS_WALLTIME = -29
"""The exit status that PBS Pro gives a job that has reached its walltime."""
_LSF_STATES = {
    **dict.fromkeys(("PEND", "PSUSP", "WAIT", "PROV"), JobState.WAITING),
    **dict.fromkeys(("RUN", "USUSP", "SSUSP"), JobState.RUNNING),
    **dict.fromkeys(("DONE", "EXIT", "ZOMBI"), JobState.ENDED),
}
_CONDOR_STATES = {
    1: (JobState.WAITING, "idle"),
    2: (JobState.RUNNING, "running"),
    3: (JobState.ENDED, "removed"),
    4: (JobState.ENDED, "completed"),
    5: (JobState.WAITING, "held"),
    6: (JobState.RUNNING, "transferring output"),
    7: (JobState.RUNNING, "suspended"),
}
_USER_STATES = {
    "waiting": (JobState.WAITING, None),
    "running": (JobState.RUNNING, None),
    "ended": (JobState.ENDED, None),
    "failed": (JobState.ENDED, True),
}


def slurm_squeue(text: str) -> dict[str, JobReport]:
    """Read the lines of ``squeue --noheader --format=%F|%T|%r``: job id, state, reason."""

    def rows() -> Iterator[tuple[str, JobReport]]:
        for line in text.splitlines():
            job, _, rest = line.strip().partition("|")
            state, _, reason = rest.partition("|")
            if _ID.fullmatch(job):
                yield job, _slurm(state, reason)

    return _together(rows())


def slurm_scontrol(text: str) -> dict[str, JobReport]:
    """Read the output of ``scontrol --oneliner show job ID``: one job, or one task of a job array, per line."""

    def rows() -> Iterator[tuple[str, JobReport]]:
        for line in text.splitlines():
            # a value may have blanks in it, and then words with "=": the first of each name is the field
            fields: dict[str, str] = {}
            for name, value in re.findall(r"(?:^|(?<=\s))(\w+)=(\S*)", line):
                fields.setdefault(name, value)
            job = fields.get("ArrayJobId") or fields.get("JobId", "")
            if _ID.fullmatch(job):
                yield job, _slurm(fields.get("JobState", ""), fields.get("Reason", ""), fields.get("ExitCode", ""))

    return _together(rows())


def _slurm(state: str, reason: str, exit_code: str = "") -> JobReport:
    word = (state.split() or [""])[0].rstrip("+")  # "CANCELLED by 0", "CANCELLED+"
    told = reason if reason not in ("", "None", word) else ""
    if word in _SLURM_WAITING:
        return _report(JobState.WAITING, told if word == "PENDING" else f"{word} {told}")
    if word in _SLURM_RUNNING:
        return _report(JobState.RUNNING, told if word == "RUNNING" else f"{word} {told}")
    if word == "COMPLETING":  # also before a job that was preempted waits again
        return _report(JobState.ENDING, word)
    if word in _SLURM_FAILED:
        status = f"ExitCode={exit_code}" if exit_code not in ("", "0:0") else ""
        told = f"Reason={told}" if told else ""
        return _report(JobState.ENDED, " ".join(filter(None, [state.strip(), told, status])), _SLURM_FAILED[word])
    return _report(JobState.UNKNOWN, f"{state} {told}")


def pbs_qstat(text: str) -> dict[str, JobReport]:
    """Read the output of ``qstat -f ID`` of PBS Pro, OpenPBS or Torque."""

    def rows() -> Iterator[tuple[str, JobReport]]:
        for chunk in re.split(r"(?m)^Job Id:", text)[1:]:
            found = _ID.search(chunk.partition("\n")[0])
            if found is not None:
                yield found[0], _pbs(_indented(chunk))

    return _together(rows())


def _indented(chunk: str) -> dict[str, str]:
    """Return the fields ``name = value`` of indented lines. A longer value goes on in lines that begin with a tab."""
    fields: dict[str, str] = {}
    name = ""
    for line in chunk.splitlines()[1:]:
        if line.startswith("\t") and name:
            fields[name] += line.strip()
        elif " = " in line:
            name, _, value = line.strip().partition(" = ")
            fields[name] = value
        elif name:
            name = ""
    return fields


def _pbs(fields: Mapping[str, str]) -> JobReport:
    letter = fields.get("job_state", "")[:1]
    state = _PBS_STATES.get(letter, JobState.UNKNOWN)
    comment = fields.get("comment", "")
    if state is JobState.UNKNOWN:
        return _report(state, fields.get("job_state", ""))
    if state is not JobState.ENDED:
        return _report(state, comment or {"H": "held", "S": "suspended", "W": "waits for its time"}.get(letter, ""))
    status = _whole(fields.get("Exit_status", fields.get("exit_status", "")))
    words = " ".join(filter(None, ["" if status is None else f"Exit_status={status}", comment]))
    return _report(state, words, None if status is None else status not in (0, _PBS_WALLTIME))


def _whole(text: str) -> int | None:
    return int(text) if re.fullmatch(r"-?[0-9]{1,9}", text) else None


def sge_qstat(text: str) -> dict[str, JobReport]:
    """Read the table of Grid Engine's ``qstat``: id, priority, name, user, state and so on."""

    def rows() -> Iterator[tuple[str, JobReport]]:
        for line in text.splitlines():
            fields = line.split()
            if len(fields) >= 5 and _ID.fullmatch(fields[0]):
                yield fields[0], _sge(fields[4])

    return _together(rows())


def _sge(state: str) -> JobReport:
    if "w" in state:  # qw, hqw, Eqw
        words = {"E": "the job is in the error state", "h": "held"}.get(state[0], "")
        return _report(JobState.WAITING, f"{state}: {words}" if words else "")
    if set(state) & set("rtRsSTNPd"):
        return _report(JobState.RUNNING, "" if state == "r" else state)
    return _report(JobState.UNKNOWN, state)


def sge_qacct(text: str) -> dict[str, JobReport]:
    """Read the records of Grid Engine's ``qacct -j ID``, which are about jobs that have ended."""

    def rows() -> Iterator[tuple[str, JobReport]]:
        for record in re.split(r"(?m)^=+\s*$", text):
            fields = dict(re.findall(r"(?m)^(\w+) +(\S.*?)\s*$", record))
            if not _ID.fullmatch(job := fields.get("jobnumber", "")):
                continue
            failed, status = fields.get("failed", ""), fields.get("exit_status", "")
            bad = [
                f"{name} {value}"
                for name, value in (("failed", failed), ("exit_status", status))
                if value[:2].strip() != "0"
            ]
            yield job, _report(JobState.ENDED, ", ".join(bad), bool(bad) if failed or status else None)

    return _together(rows())


LSF_FORMAT = "jobid stat exit_code exit_reason pend_reason delimiter='|'"
"""The value of the option ``-o`` of ``bjobs`` whose output `lsf_bjobs` reads."""


def lsf_bjobs(text: str) -> dict[str, JobReport]:
    """Read the lines of ``bjobs -a -noheader -o LSF_FORMAT``."""

    def rows() -> Iterator[tuple[str, JobReport]]:
        for line in text.splitlines():
            job, state, code, ended, pending = _columns(line, 5)
            found = _ID.match(job)
            if found is not None:
                yield found[0], _lsf(state, code, ended, pending)

    return _together(rows())


def _columns(line: str, number: int) -> list[str]:
    values = [value.strip() for value in line.split("|", number - 1)]
    return [("" if value == "-" else value) for value in values + [""] * (number - len(values))]


def _lsf(word: str, code: str, ended: str, pending: str) -> JobReport:
    state = _LSF_STATES.get(word, JobState.UNKNOWN)
    if state is JobState.UNKNOWN:
        return _report(state, word)
    if state is not JobState.ENDED:
        told = pending if state is JobState.WAITING else ""
        return _report(state, told if word in ("PEND", "RUN") else f"{word} {told}")
    words = " ".join(filter(None, ["" if word == "DONE" else word, f"exit_code={code}" if code else "", ended]))
    return _report(state, words, word != "DONE" and not ended.startswith("TERM_RUNLIMIT"))


CONDOR_ATTRIBUTES = "ClusterId,JobStatus,HoldReason,RemoveReason,ExitCode,ExitBySignal,ExitSignal"
"""The attributes of jobs that `htcondor` reads."""


def htcondor(text: str) -> dict[str, JobReport]:
    """Read the output of ``condor_q -json`` or ``condor_history -json``."""

    def rows() -> Iterator[tuple[str, JobReport]]:
        try:
            jobs = json.loads(text)
        except (ValueError, RecursionError):
            return
        for job in jobs if isinstance(jobs, list) else []:
            if isinstance(job, dict) and type(job.get("ClusterId")) is int:
                yield str(job["ClusterId"]), _condor(job)

    return _together(rows())


def _condor(job: Mapping[str, Any]) -> JobReport:
    status = job.get("JobStatus")
    if type(status) is not int or status not in _CONDOR_STATES:
        return _report(JobState.UNKNOWN, f"JobStatus={status}")
    state, word = _CONDOR_STATES[status]
    if status == 5:
        return _report(state, f"held: {job.get('HoldReason', '')}")
    if status == 3:
        return _report(state, f"removed: {job.get('RemoveReason', '')}", True)
    if status == 4:
        if job.get("ExitBySignal") is True:
            return _report(state, f"ExitSignal={job.get('ExitSignal')}", True)
        code = job.get("ExitCode")
        return _report(state, "" if code in (0, None) else f"ExitCode={code}", None if code is None else code != 0)
    return _report(state, "" if status in (1, 2) else word)


def user_command(text: str, status: int = 0) -> JobReport:
    """Read what the ``status_command`` of a pool prints: a state and words, in the first line that has any.

    Args:
        text: the output of the command. A line such as ``waiting: no nodes`` or ``ended`` is expected.
        status: the exit status of the command; other than 0, the state is unknown.
    """
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    line = lines[0] if lines else ""
    if status:
        return _report(
            JobState.UNKNOWN, f"status_command has failed with exit status {status}: {lines[-1] if lines else ''}"
        )
    word, _, words = line.partition(" ")
    known = _USER_STATES.get(word.rstrip(":,").lower())
    if known is None:
        return _report(
            JobState.UNKNOWN, f"status_command printed {line!r}, not one of waiting, running, ended and failed"
        )
    return _report(known[0], words.lstrip(" :,-"), known[1])


def _report(state: JobState, words: str = "", failed: bool | None = None) -> JobReport:
    words = " ".join(words.split())
    if len(words) > MAX_WORDS:
        words = words[: MAX_WORDS - 1] + "…"
    return JobReport(state, words, failed if state is JobState.ENDED else None)


def _together(rows: _Rows) -> dict[str, JobReport]:
    """Return one report per job, from the reports of its tasks."""
    found: dict[str, list[JobReport]] = {}
    for job, report in rows:
        found.setdefault(job, []).append(report)
    return {job: _of_tasks(reports) for job, reports in found.items()}


def _of_tasks(reports: list[JobReport]) -> JobReport:
    for state in (JobState.RUNNING, JobState.WAITING, JobState.ENDING, JobState.UNKNOWN):
        chosen = [report for report in reports if report.state is state]
        if chosen:
            break
    else:
        chosen = reports
    words = "; ".join(dict.fromkeys(report.words for report in chosen if report.words))
    if len(chosen) < len(reports):
        words = f"{len(chosen)} of {len(reports)} tasks {chosen[0].state.value}" + (f": {words}" if words else "")
    failures = {report.failed for report in chosen}
    failed = True if True in failures else None if None in failures else False
    return _report(chosen[0].state, words, failed)
