"""The how-to pages about clusters: their job script is run, with a stand-in for srun, and their settings are used."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from ipyparallel.cluster.launcher import find_launcher_class
from traitlets.config import Config

from ..cli.process import processes_with
from ..test_docs import DOCS, code_blocks
from .conftest import LIMIT, wait_until

pytestmark = pytest.mark.interop

SLURM = DOCS / "how-to" / "slurm.md"
SRUN = """#!/bin/sh
for task in 1 2; do "$@" & done
wait
"""


def python_blocks(page: Path, word: str) -> list[str]:
    return [text for _, text in code_blocks(page, "python") if word in text]


def test_the_job_script_runs_a_cluster_and_ends_with_the_program(tmp_path: Path) -> None:
    [script] = [text for _, text in code_blocks(SLURM, "bash") if text.startswith("#!")]
    [program] = python_blocks(SLURM, "SLURM_NTASKS")
    (tmp_path / "analysis.sbatch").write_text(script)
    (tmp_path / "analysis.py").write_text(program)
    (tmp_path / "srun").write_text(SRUN)
    (tmp_path / "srun").chmod(0o700)
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("TRIO_HUB_", "IPP_"))}
    environment |= {
        "PATH": os.pathsep.join([str(tmp_path), os.path.dirname(sys.executable), os.environ["PATH"]]),
        "IPYTHONDIR": str(tmp_path / "ipython"),
        "SLURM_JOB_ID": "7",
        "SLURM_NTASKS": "2",
    }
    with (tmp_path / "job.log").open("w") as log:
        job = subprocess.Popen(
            ["bash", "analysis.sbatch"],
            cwd=tmp_path,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            start_new_session=True,
        )
        try:
            assert job.stdout is not None
            printed = [job.stdout.readline() for _ in range(4)]
            assert job.wait(LIMIT) == 0, (tmp_path / "job.log").read_text()
        finally:
            os.killpg(job.pid, signal.SIGTERM)  # Slurm does this with processes that a job leaves
            wait_until(lambda: not processes_with(str(tmp_path)), "the end of all processes")
            job.wait()
            assert job.stdout is not None
            job.stdout.close()
    assert printed[0].startswith("trio-hub ready")
    assert printed[-1] == f"{sum(x**2 for x in range(1000))}\n"
    assert not list(tmp_path.rglob("ipcontroller*.json")), "connection files are left"


def settings(page: Path) -> Config:
    """Return the settings of all blocks for ipcluster_config.py on a page."""
    config = Config()
    for block in python_blocks(page, "get_config()"):
        exec(block, {"get_config": lambda: config})
    return config


def script(name: str, kind: str, config: Config, directory: Path, n: int) -> str:
    job: Any = find_launcher_class(name, kind)(
        config=config, work_dir=str(directory), profile_dir=str(directory / "profile"), cluster_id="c"
    )
    job.write_batch_script(n)
    return Path(job.batch_file).read_text()


def test_the_settings_make_the_scripts_that_the_page_speaks_of(tmp_path: Path) -> None:
    config = settings(SLURM)
    hub = script(config.Cluster.controller_launcher_class, "controller", config, tmp_path, 1)
    assert {"#SBATCH --partition=short", "#SBATCH --account=lab", "#SBATCH --time=01:00:00"} <= set(hub.splitlines())
    assert hub.rstrip().endswith("-m trio_hub ipcontroller --IPController.enable_curve=True")
    assert "controller_args" not in config.Cluster, "ipcluster replaces it with arguments of its own command line"
    engines = script(config.Cluster.engine_launcher_class, "engine", config, tmp_path, 64)
    assert {"#SBATCH --ntasks=64", "#SBATCH --mem-per-cpu=2G"} <= set(engines.splitlines())
    assert f"srun {sys.executable} -m ipyparallel.engine --timeout=60" in engines
    condor = script("trio-hub-htcondor", "controller", config, tmp_path, 1)
    assert "executable = /shared/venv/bin/trio-hub\n" in condor
    assert script("htcondor", "engine", config, tmp_path, 64).endswith("getenv = True\nqueue 64\n")


def test_the_page_shows_what_would_be_submitted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    [block] = python_blocks(SLURM, "write_batch_script")
    exec(block, {})
    printed = capsys.readouterr().out
    assert "#SBATCH --partition=short" in printed
    assert f"{sys.executable} -m trio_hub ipcontroller '--ip=*'" in printed


@pytest.mark.parametrize("page", ["slurm.md", "ssh.md", "mpi.md"])
def test_every_setting_is_a_trait_of_its_class(page: str) -> None:
    from ipyparallel.cluster import cluster, launcher

    for name, traits in settings(DOCS / "how-to" / page).items():
        owner = getattr(cluster, name, None) or getattr(launcher, name)
        assert set(traits) <= set(owner.class_traits(config=True)), name
