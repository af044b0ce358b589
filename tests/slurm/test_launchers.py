"""``ipcluster`` with Slurm, our hub and stock engines; and ``ipp.Cluster`` with Slurm, our hub and our engines."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import ipyparallel as ipp
import pytest

from ..cli.process import processes_with
from ..interop.controllers import ipcluster
from .support import LIMIT, Slurm, wait_until

pytestmark = pytest.mark.slurm


@pytest.fixture
def directory(slurm: Slurm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Give the directory of all IPython files, and check afterwards that no process uses it."""
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    wait_until(lambda: not processes_with(str(tmp_path)), "the end of all processes")


def test_a_cluster_is_two_jobs(slurm: Slurm, directory: Path) -> None:
    cluster = ipp.Cluster(
        controller="trio-hub-slurm",
        engines="trio-hub-slurm",
        n=2,
        profile_dir=str(directory / "profile"),
        cluster_id="c",
        controller_ip="*",  # as the page says
        engine_timeout=LIMIT,
    )
    with cluster as client:
        assert [(job.name, job.cpus) for job in slurm.jobs()] == [("ipcontroller-c", 1), ("ipengine-c", 2)]
        programs = client[:].apply_sync(lambda: __import__("sys").argv[0])
        assert all(program.endswith("trio_hub/__main__.py") for program in programs)
        assert client.load_balanced_view().map_sync(lambda x: x * x, range(20)) == [x * x for x in range(20)]
    slurm.wait_until_empty()
    assert list((directory / "profile" / "security").iterdir()) == []


def test_ipcluster_starts_and_stops_two_jobs(slurm: Slurm, directory: Path) -> None:
    profile = f"--profile-dir={directory / 'profile'}"
    launchers = ("--controller=trio-hub-slurm", "--engines=slurm")
    ipcluster("start", *launchers, "--ip=*", "-n", "2", "--daemonize", profile)
    try:
        with ipp.Client(profile_dir=str(directory / "profile"), timeout=LIMIT) as client:
            client.wait_for_engines(2, timeout=LIMIT)
            view = client.load_balanced_view()
            assert view.map_sync(lambda x: x * x, range(20)) == [x * x for x in range(20)]
            assert sorted(client[:].apply_sync(lambda: __import__("os").environ["SLURM_PROCID"])) == list("01")
        assert [job.cpus for job in slurm.jobs()] == [1, 2]
    finally:
        said = ipcluster("stop", profile)
    assert "Traceback" not in said
    slurm.wait_until_empty()
