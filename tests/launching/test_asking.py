"""How batch systems are asked for the states of jobs: commands of which one answers instead of the system."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from trio_hub.launching.asking import SYSTEMS, Answer, Asker, find_by_name, run_command
from trio_hub.launching.launcher import JobReport, JobState, LaunchError

from .support import LIMIT

WAITING, RUNNING, ENDED, UNKNOWN = JobState.WAITING, JobState.RUNNING, JobState.ENDED, JobState.UNKNOWN
SILENT = Answer(1, err="cannot connect")


class Site:
    """Answers the commands of a batch system, by the beginnings of their command lines."""

    def __init__(self, answers: dict[str, Answer]) -> None:
        self.answers = answers
        self.asked: list[str] = []

    def __call__(self, words: Sequence[str]) -> Answer:
        line = " ".join(words)
        self.asked.append(line)
        return next((answer for start, answer in self.answers.items() if line.startswith(start)), SILENT)


def look(system: str, jobs: list[str], answers: dict[str, Answer]) -> dict[str, JobReport]:
    return SYSTEMS[system](jobs, Asker(["submit"], Site(answers)))


@pytest.mark.parametrize("system", SYSTEMS)
def test_a_system_that_does_not_answer(system: str) -> None:
    assert look(system, ["1", "2"], {}) == dict.fromkeys(["1", "2"], JobReport(UNKNOWN, "cannot connect"))


@pytest.mark.parametrize(
    ("submit", "tool"),
    [
        (["sbatch"], ["squeue"]),
        (["/opt/slurm/bin/sbatch"], ["/opt/slurm/bin/squeue"]),
        (["ssh", "login", "sbatch", "--parsable"], ["ssh", "login", "squeue"]),
        (["my-script"], ["squeue"]),
    ],
)
def test_the_tools_of_a_site_are_found_beside_each_other(submit: list[str], tool: list[str]) -> None:
    assert Asker(submit).tool("squeue") == tool


def test_slurm() -> None:
    gone = Answer(1, err="slurm_load_jobs error: Invalid job id specified")
    site = Site(
        {
            "squeue": Answer(0, "1|RUNNING|None\n3|CANCELLED|None\n"),
            "scontrol --oneliner show job 2": Answer(0, "JobId=2 JobState=TIMEOUT Reason=TimeLimit ExitCode=0:1"),
            "scontrol --oneliner show job 4": gone,
        }
    )
    assert SYSTEMS["slurm"](["1", "2", "3", "4", "5"], Asker(["sbatch"], site)) == {
        "1": JobReport(RUNNING),
        "2": JobReport(ENDED, "TIMEOUT Reason=TimeLimit ExitCode=0:1", failed=False),
        "3": JobReport(ENDED, "CANCELLED", failed=True),
        "4": JobReport(ENDED),
        "5": JobReport(UNKNOWN, "cannot connect"),
    }
    assert site.asked[0] == "squeue --noheader --format=%F|%T|%r --jobs=1,2,3,4,5"
    assert look("slurm", ["4"], {"squeue": gone, "scontrol": gone}) == {"4": JobReport(ENDED)}


def test_pbs() -> None:
    answers = {
        "qstat -f 1.server": Answer(0, "Job Id: 1.server\n    job_state = R\n"),
        "qstat -f 2[].server": Answer(0, "Job Id: 2[].server\n    job_state = B\n"),
        "qstat -f 3.server": Answer(35, err="qstat: 3.server Job has finished, use -x or -H to obtain historical job"),
        "qstat -x -f 3.server": Answer(0, "Job Id: 3.server\n    job_state = F\n    Exit_status = 1\n"),
        "qstat -f 4.server": Answer(153, err="qstat: Unknown Job Id 4.server"),
    }
    assert look("pbs", ["1.server", "2[].server", "3.server", "4.server", "5.server"], answers) == {
        "1.server": JobReport(RUNNING),
        "2[].server": JobReport(RUNNING),
        "3.server": JobReport(ENDED, "Exit_status=1", failed=True),
        "4.server": JobReport(ENDED),
        "5.server": JobReport(UNKNOWN, "cannot connect"),
    }


def test_grid_engine() -> None:
    answers = {
        "qstat": Answer(0, "      1 0.5 ipengine lab r 11/26/2026\n"),
        "qacct -j 2": Answer(0, "====\njobnumber    2\nfailed       0\nexit_status  1\n"),
        "qacct -j 3": Answer(1, err="error: job id 3 not found"),
    }
    assert look("sge", ["1", "2", "3"], answers) == {
        "1": JobReport(RUNNING),
        "2": JobReport(ENDED, "exit_status 1", failed=True),
        "3": JobReport(ENDED),
    }


def test_lsf() -> None:
    answers = {"bjobs": Answer(255, "1|RUN|-|-|-\n", "Job <2> is not found\n")}
    assert look("lsf", ["1", "2"], answers) == {"1": JobReport(RUNNING), "2": JobReport(ENDED)}


def test_htcondor() -> None:
    answers = {
        "condor_q": Answer(0, '[{"ClusterId": 1, "JobStatus": 2}]'),
        "condor_history": Answer(0, '[{"ClusterId": 2, "JobStatus": 3, "RemoveReason": "by lab"}]'),
    }
    assert look("htcondor", ["1", "2", "3"], answers) == {
        "1": JobReport(RUNNING),
        "2": JobReport(ENDED, "removed: by lab", failed=True),
        "3": JobReport(ENDED),
    }


def test_a_job_is_found_by_its_name() -> None:
    def find(system: str, answers: dict[str, Answer]) -> str | None:
        return find_by_name(system, "trio-hub-p-1", Asker([], Site(answers)))

    assert find("slurm", {"squeue --noheader --format=%F --name=trio-hub-p-1": Answer(0, "4711\n")}) == "4711"
    assert find("slurm", {"squeue": Answer(0)}) is None
    assert find("lsf", {"bjobs": Answer(0, "301\n301\n")}) == "301"
    assert find("lsf", {"bjobs": Answer(255, err="Job <trio-hub-p-1> is not found")}) is None
    assert find("htcondor", {"condor_q": Answer(0, "12\n12\n")}) == "12"
    assert find("pbs", {}) is None
    with pytest.raises(LaunchError, match="cannot connect"):
        find("slurm", {})


def test_running_a_command(tmp_path: Path) -> None:
    (tmp_path / "input").write_text("word")
    assert run_command(["sh", "-c", "cat; echo oh >&2; exit 3"], stdin=str(tmp_path / "input")) == Answer(
        3, "word", "oh\n"
    )
    assert run_command(["cat"]) == Answer(0)
    assert run_command([str(tmp_path / "none")]) == Answer(None, err=f"{tmp_path}/none: No such file or directory")
    assert run_command(["sleep", "600"], limit=0.01).words == "sleep did not answer within 0.01 s"
    assert Answer(1, "out", " ").words == "out"
    assert Answer(1).words == "exit status 1"


def test_a_command_that_leaves_a_process_with_its_output(tmp_path: Path) -> None:
    process = "until [ -e go ]; do sleep 0.01; done; echo later; touch gone"
    answer = run_command(["sh", "-c", f"cd {tmp_path}; ({process}) & echo job; echo warned >&2"])
    assert answer == Answer(0, "job\n", "warned\n")
    assert not (tmp_path / "gone").exists()
    (tmp_path / "go").touch()
    deadline = time.monotonic() + LIMIT
    while not (tmp_path / "gone").exists():
        assert time.monotonic() < deadline
        time.sleep(0.01)
