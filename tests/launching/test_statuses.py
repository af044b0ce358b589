"""What batch systems print about jobs, in the forms that their manuals show."""

from __future__ import annotations

import json
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trio_hub.launching import statuses
from trio_hub.launching.launcher import JobReport, JobState

WAITING, RUNNING, ENDED, UNKNOWN = JobState.WAITING, JobState.RUNNING, JobState.ENDED, JobState.UNKNOWN

SCONTROL = (
    "JobId=4711 JobName=trio-hub-slurm-1f2e UserId=lab(1000) GroupId=lab(1000) Priority=4294901757 Nice=0 "
    "Account=(null) QOS=(null) JobState={state} Reason={reason} Dependency=(null) Requeue=1 Restarts=0 BatchFlag=1 "
    "Reboot=0 ExitCode={code} RunTime=00:00:02 TimeLimit=UNLIMITED Partition=short NodeList=node1 "
    "Command=/home/lab/my scripts/JobState=odd StdErr=/home/lab/slurm.log\n"
)


@pytest.mark.parametrize(
    ("line", "report"),
    [
        ("4711|PENDING|Resources", JobReport(WAITING, "Resources")),
        (
            "4711|PENDING|ReqNodeNotAvail, UnavailableNodes:node1",
            JobReport(WAITING, "ReqNodeNotAvail, UnavailableNodes:node1"),
        ),
        ("4711|PENDING|None", JobReport(WAITING)),
        ("4711|CONFIGURING|None", JobReport(WAITING, "CONFIGURING")),
        ("4711|REQUEUE_HOLD|job requeued in held state", JobReport(WAITING, "REQUEUE_HOLD job requeued in held state")),
        ("4711|RUNNING|None", JobReport(RUNNING)),
        ("4711|COMPLETING|None", JobReport(JobState.ENDING, "COMPLETING")),
        ("4711|COMPLETED|None", JobReport(ENDED, "COMPLETED", failed=False)),
        ("4711|TIMEOUT|TimeLimit", JobReport(ENDED, "TIMEOUT Reason=TimeLimit", failed=False)),
        ("4711|PREEMPTED|None", JobReport(ENDED, "PREEMPTED", failed=True)),
        ("4711|CANCELLED by 0|None", JobReport(ENDED, "CANCELLED by 0", failed=True)),
        ("4711|A_NEW_STATE|None", JobReport(UNKNOWN, "A_NEW_STATE")),
    ],
)
def test_squeue(line: str, report: JobReport) -> None:
    assert statuses.slurm_squeue(f"  {line}\n") == {"4711": report}


def test_the_tasks_of_a_job_array_are_one_job() -> None:
    text = "7|PENDING|Resources\n7|RUNNING|None\n7|RUNNING|None\n8|FAILED|NonZeroExitCode\n8|COMPLETED|None\n"
    assert statuses.slurm_squeue(text) == {
        "7": JobReport(RUNNING, "2 of 3 tasks running"),
        "8": JobReport(ENDED, "FAILED Reason=NonZeroExitCode; COMPLETED", failed=True),
    }


@pytest.mark.parametrize(
    ("state", "reason", "code", "words", "failed"),
    [
        ("COMPLETED", "None", "0:0", "COMPLETED", False),
        ("FAILED", "NonZeroExitCode", "3:0", "FAILED Reason=NonZeroExitCode ExitCode=3:0", True),
        ("CANCELLED", "None", "0:15", "CANCELLED ExitCode=0:15", True),
        ("NODE_FAIL", "NodeDown", "0:0", "NODE_FAIL Reason=NodeDown", True),
        ("TIMEOUT", "TimeLimit", "0:0", "TIMEOUT Reason=TimeLimit", False),
        ("PREEMPTED", "None", "0:15", "PREEMPTED ExitCode=0:15", True),
    ],
)
def test_scontrol(state: str, reason: str, code: str, words: str, failed: bool) -> None:
    text = SCONTROL.format(state=state, reason=reason, code=code)
    assert statuses.slurm_scontrol(text) == {"4711": JobReport(ENDED, words, failed)}


PBS = """\
Job Id: {job}.pbsserver
    Job_Name = ipengine
    Job_Owner = lab@login1
    job_state = {state}
    queue = workq
    Variable_List = PBS_O_HOME=/home/lab,PBS_O_LANG=en_US.UTF-8,
\tPBS_O_PATH=/usr/bin,job_state = X
{more}
"""


@pytest.mark.parametrize(
    ("state", "more", "report"),
    [
        (
            "Q",
            "    comment = Not Running: Insufficient amount of resource:\n\t ncpus (R: 8 A: 0 T: 4)",
            JobReport(WAITING, "Not Running: Insufficient amount of resource:ncpus (R: 8 A: 0 T: 4)"),
        ),
        ("H", "", JobReport(WAITING, "held")),
        (
            "R",
            "    comment = Job run at Thu Nov 26 at 10:11 on (node1:ncpus=4)",
            JobReport(RUNNING, "Job run at Thu Nov 26 at 10:11 on (node1:ncpus=4)"),
        ),
        ("B", "", JobReport(RUNNING)),
        ("F", "    Exit_status = 271", JobReport(ENDED, "Exit_status=271", failed=True)),
        ("F", "    Exit_status = 0", JobReport(ENDED, "Exit_status=0", failed=False)),
        ("F", "    Exit_status = -29", JobReport(ENDED, "Exit_status=-29", failed=False)),  # its walltime is over
        ("C", "    exit_status = 1", JobReport(ENDED, "Exit_status=1", failed=True)),  # Torque
        ("F", "", JobReport(ENDED)),
        ("?", "", JobReport(UNKNOWN, "?")),
    ],
)
def test_qstat_of_pbs(state: str, more: str, report: JobReport) -> None:
    assert statuses.pbs_qstat(PBS.format(job=1234, state=state, more=more)) == {"1234": report}
    assert statuses.pbs_qstat(PBS.format(job="1234[]", state=state, more=more)) == {"1234": report}


SGE = """\
job-ID  prior   name       user         state submit/start at     queue                          slots ja-task-ID
-----------------------------------------------------------------------------------------------------------------
      3 0.55500 ipengine   lab          r     11/26/2026 10:11:12 all.q@node1                        1 1
      3 0.55500 ipengine   lab          r     11/26/2026 10:11:12 all.q@node2                        1 2
      4 0.00000 ipengine   lab          qw    11/26/2026 10:11:13                                    1 1-4:1
      5 0.55500 ipengine   lab          Eqw   11/26/2026 10:11:13                                    1 1
      6 0.55500 ipengine   lab          hqw   11/26/2026 10:11:13                                    1
      7 0.55500 ipengine   lab          dr    11/26/2026 10:11:13 all.q@node1                        1
"""


def test_qstat_of_grid_engine() -> None:
    assert statuses.sge_qstat(SGE) == {
        "3": JobReport(RUNNING),
        "4": JobReport(WAITING),
        "5": JobReport(WAITING, "Eqw: the job is in the error state"),
        "6": JobReport(WAITING, "hqw: held"),
        "7": JobReport(RUNNING, "dr"),
    }


QACCT = """\
==============================================================
qname        all.q
hostname     node1
jobname      ipengine
jobnumber    3
taskid       1
failed       {failed}
exit_status  {status}
"""


@pytest.mark.parametrize(
    ("failed", "status", "words", "bad"),
    [
        ("0", "0", "", False),
        ("0", "137                  (Killed)", "exit_status 137 (Killed)", True),
        ("100 : assumedly after job", "137", "failed 100 : assumedly after job, exit_status 137", True),
    ],
)
def test_qacct(failed: str, status: str, words: str, bad: bool) -> None:
    assert statuses.sge_qacct(QACCT.format(failed=failed, status=status)) == {"3": JobReport(ENDED, words, bad)}


@pytest.mark.parametrize(
    ("line", "report"),
    [
        (
            "301|PEND|-|-|New job is waiting for scheduling;",
            JobReport(WAITING, "New job is waiting for scheduling;"),
        ),
        ("301|PSUSP|-|-|The job was suspended by user;", JobReport(WAITING, "PSUSP The job was suspended by user;")),
        ("301|RUN|-|-|-", JobReport(RUNNING)),
        ("301|USUSP|-|-|-", JobReport(RUNNING, "USUSP")),
        ("301|DONE|-|-|-", JobReport(ENDED, failed=False)),
        (
            "301|EXIT|130|TERM_OWNER: job killed by owner|-",
            JobReport(ENDED, "EXIT exit_code=130 TERM_OWNER: job killed by owner", failed=True),
        ),
        (
            "301|EXIT|140|TERM_RUNLIMIT: job killed after reaching LSF run time limit|-",
            JobReport(
                ENDED, "EXIT exit_code=140 TERM_RUNLIMIT: job killed after reaching LSF run time limit", failed=False
            ),
        ),
        ("301|UNKWN|-|-|-", JobReport(UNKNOWN, "UNKWN")),
        ("301", JobReport(UNKNOWN)),
    ],
)
def test_bjobs(line: str, report: JobReport) -> None:
    assert statuses.lsf_bjobs(f"{line}\n\n") == {"301": report}


@pytest.mark.parametrize(
    ("job", "report"),
    [
        ({"JobStatus": 1}, JobReport(WAITING)),
        ({"JobStatus": 2}, JobReport(RUNNING)),
        (
            {"JobStatus": 3, "RemoveReason": "via condor_rm (by user lab)"},
            JobReport(ENDED, "removed: via condor_rm (by user lab)", failed=True),
        ),
        ({"JobStatus": 4, "ExitBySignal": False, "ExitCode": 0}, JobReport(ENDED, failed=False)),
        ({"JobStatus": 4, "ExitBySignal": False, "ExitCode": 2}, JobReport(ENDED, "ExitCode=2", failed=True)),
        ({"JobStatus": 4, "ExitBySignal": True, "ExitSignal": 9}, JobReport(ENDED, "ExitSignal=9", failed=True)),
        (
            {"JobStatus": 5, "HoldReason": "Error from slot1: Failed to execute"},
            JobReport(WAITING, "held: Error from slot1: Failed to execute"),
        ),
        ({"JobStatus": 7}, JobReport(RUNNING, "suspended")),
        ({"JobStatus": "?"}, JobReport(UNKNOWN, "JobStatus=?")),
    ],
)
def test_condor_q(job: dict[str, object], report: JobReport) -> None:
    assert statuses.htcondor(json.dumps([{"ClusterId": 12, "ProcId": 0, **job}])) == {"12": report}
    assert statuses.htcondor("") == {}  # what it prints if there is no such job


@pytest.mark.parametrize(
    ("text", "status", "report"),
    [
        ("waiting\n", 0, JobReport(WAITING)),
        ("\nwaiting: 0/3 nodes are available\nmore\n", 0, JobReport(WAITING, "0/3 nodes are available")),
        ("RUNNING - on 3 nodes", 0, JobReport(RUNNING, "on 3 nodes")),
        ("ended", 0, JobReport(ENDED)),
        ("failed OOMKilled", 0, JobReport(ENDED, "OOMKilled", failed=True)),
        (
            "so so",
            0,
            JobReport(UNKNOWN, "status_command printed 'so so', not one of waiting, running, ended and failed"),
        ),
        (
            "trying\nno connection",
            2,
            JobReport(UNKNOWN, "status_command has failed with exit status 2: no connection"),
        ),
    ],
)
def test_a_status_command(text: str, status: int, report: JobReport) -> None:
    assert statuses.user_command(text, status) == report


PARSERS = [
    (statuses.slurm_squeue, "4711|PENDING|Resources\n"),
    (statuses.slurm_scontrol, SCONTROL),
    (statuses.pbs_qstat, PBS),
    (statuses.sge_qstat, SGE),
    (statuses.sge_qacct, QACCT),
    (statuses.lsf_bjobs, "301|EXIT|130|TERM_OWNER|-\n"),
    (statuses.htcondor, json.dumps([{"ClusterId": 1, "JobStatus": 5, "HoldReason": "x"}, {"ClusterId": 2}])),
    (lambda text: {"1": statuses.user_command(text)}, "running: 3 pods\n"),
]


@pytest.mark.property
@pytest.mark.parametrize(("parse", "sample"), PARSERS)
@given(number=st.integers(), more=st.text())
def test_any_text_gives_reports(parse: object, sample: str, number: int, more: str) -> None:
    seed = random.Random(number)
    pieces = [sample[seed.randrange(len(sample)) :], more, sample[: seed.randrange(len(sample))], "\n", sample]
    seed.shuffle(pieces)
    for text in (more, "".join(pieces), "".join(seed.sample(sample, len(sample)))):
        reports = parse(text)  # type: ignore[operator]
        assert all(isinstance(report, JobReport) for report in reports.values())
        assert all(len(report.words) <= statuses.MAX_WORDS for report in reports.values())
        assert all(report.failed is None or report.state is ENDED for report in reports.values())
