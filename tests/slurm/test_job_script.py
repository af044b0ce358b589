"""The job script of the how-to, and engines that know when their job ends."""

from __future__ import annotations

import sys
from datetime import datetime
from pathlib import Path

import ipyparallel as ipp
import pytest

from ..cli.process import command, processes_with
from ..test_docs import DOCS, code_blocks
from .support import LIMIT, Slurm, wait_until

pytestmark = pytest.mark.slurm

PAGE = DOCS / "how-to" / "slurm.md"


def write_page_s_files(directory: Path) -> None:
    [script] = [text for _, text in code_blocks(PAGE, "bash") if text.startswith("#!")]
    [program] = [text for _, text in code_blocks(PAGE, "python") if "SLURM_NTASKS" in text]
    (directory / "analysis.sbatch").write_text(script)
    (directory / "analysis.py").write_text(program)


def test_the_job_script_of_the_page(slurm: Slurm, tmp_path: Path) -> None:
    write_page_s_files(tmp_path)
    # fewer than the page's 4 nodes with 16 tasks each
    job = slurm.submit(f"--chdir={tmp_path}", "--nodes=1", "--ntasks-per-node=2", str(tmp_path / "analysis.sbatch"))
    ended = slurm.wait_for_end(job)
    printed = (tmp_path / f"slurm-{job}.out").read_text()
    assert ended["JobState"] == "COMPLETED", printed
    assert f"\n{sum(x**2 for x in range(1000))}\n" in printed
    wait_until(lambda: not processes_with(str(tmp_path)), "the end of all processes")
    assert not list(tmp_path.rglob("ipcontroller*.json")), "connection files are left"


def test_the_job_has_the_exit_status_of_the_program(slurm: Slurm, tmp_path: Path) -> None:
    write_page_s_files(tmp_path)
    (tmp_path / "analysis.py").write_text("raise SystemExit(3)")
    job = slurm.submit(f"--chdir={tmp_path}", "--nodes=1", "--ntasks-per-node=1", str(tmp_path / "analysis.sbatch"))
    ended = slurm.wait_for_end(job)
    assert (ended["JobState"], ended["ExitCode"]) == ("FAILED", "3:0")
    wait_until(lambda: not processes_with(str(tmp_path)), "the end of all processes")


def work_a_while(directory: str) -> int:
    import os
    import time
    from pathlib import Path

    Path(directory, f"working-{os.getpid()}").touch()
    time.sleep(1.0)
    return 7


def test_engines_in_a_job_know_its_end_and_drain_when_slurm_says(slurm: Slurm, tmp_path: Path) -> None:
    """The hub is outside; the job script has the page's line for a Slurm that does not set the variable."""
    profile, output = tmp_path / "profile", tmp_path / "job.out"
    [line] = [text for _, text in code_blocks(PAGE, "bash") if text.startswith("export SLURM_JOB_END_TIME")]
    engine = f"srun {sys.executable} -m trio_hub engine --profile-dir={profile}"
    (tmp_path / "engines.sbatch").write_text(f"#!/bin/bash\n{line}\n{engine}\n")
    with command("serve", "--profile-dir", str(profile)) as hub:
        hub.wait_line("stdout", "trio-hub ready")
        job = slurm.submit("--ntasks=2", "--time=5", f"--output={output}", str(tmp_path / "engines.sbatch"))
        with ipp.Client(profile_dir=str(profile), timeout=LIMIT) as client:
            client.wait_for_engines(2, timeout=LIMIT)
            told = set(client[:].apply_sync(lambda: int(__import__("os").environ["SLURM_JOB_END_TIME"])))
            assert told == {datetime.fromisoformat(slurm.job(job)["EndTime"]).timestamp()}
            last = client[:].apply_async(work_a_while, str(tmp_path))
            wait_until(lambda: len(list(tmp_path.glob("working-*"))) == 2, "the start of the work")
            slurm.run("scancel", "--signal=USR1", job)
            assert last.get(LIMIT) == [7, 7]
        ended = slurm.wait_for_end(job)
        assert ended["JobState"] == "COMPLETED", output.read_text()
        assert hub.process.poll() is None
    slurm.wait_until_empty()
