"""Our hub, started by ``ipcluster`` and ``ipp.Cluster``, and the jobs that batch systems would get."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import ipyparallel as ipp
import pytest
from ipyparallel.cluster.launcher import abbreviate_launcher_class, find_launcher_class

from trio_hub import launchers

from ..cli.process import processes_with
from .conftest import LIMIT, wait_until
from .controllers import ipcluster

pytestmark = pytest.mark.interop

KINDS = ("controller", "engine")
NAMES = {
    (kind, point.name): point
    for kind in KINDS
    for point in entry_points(group=f"ipyparallel.{kind}_launchers")
    if point.name.startswith("trio-hub")
}
OURS = [sys.executable, "-m", "trio_hub", "ipcontroller"]
OUR_ENGINE = [sys.executable, "-m", "trio_hub", "engine"]


@pytest.fixture
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Give the directory of all IPython files, and check afterwards that no process uses it."""
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path))
    monkeypatch.setenv("PATH", os.path.dirname(sys.executable), prepend=os.pathsep)
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    wait_until(lambda: not processes_with(str(tmp_path)), "the end of all processes")


def hubs(directory: Path) -> list[list[str]]:
    """Return the command lines of all hubs that were started for a profile in this directory."""
    found = [
        Path(f"/proc/{pid}/cmdline").read_bytes().decode().split("\0")[:-1] for pid in processes_with(str(directory))
    ]
    return [words for words in found if words[1:4] == OURS[1:4]]


def security_files(profile: Path) -> list[str]:
    return sorted(path.name for path in (profile / "security").iterdir())


def test_a_cluster_runs_our_hub_and_stops_it(directory: Path) -> None:
    profile = directory / "profile_lab"
    cluster = ipp.Cluster(controller="trio-hub", n=2, profile_dir=str(profile), cluster_id="c", engine_timeout=LIMIT)
    with cluster as client:
        assert hubs(directory) == [OURS]
        assert isinstance(cluster.controller, launchers.TrioHub)
        assert client[:].apply_sync(os.getpid) != []
        view = client.load_balanced_view()
        assert view.map_sync(lambda x: x * x, range(20)) == [x * x for x in range(20)]
        assert {"ipcontroller-c-client.json", "ipcontroller-c-engine.json"} <= set(security_files(profile))
    assert not hubs(directory)
    assert security_files(profile) == []


def test_its_arguments_reach_our_hub(directory: Path) -> None:
    cluster = ipp.Cluster(
        controller="trio-hub",
        n=1,
        profile_dir=str(directory / "profile"),
        cluster_id="",
        controller_location="here.example.org",
        controller_args=["--ip=127.0.0.1", "--TaskScheduler.hwm=3"],
    )
    cluster.start_controller_sync()
    try:
        client_file = directory / "profile" / "security" / "ipcontroller-client.json"
        (hub,) = hubs(directory)
        assert hub[4:] == ["--location=here.example.org", "--ip=127.0.0.1", "--TaskScheduler.hwm=3"]
        wait_until(client_file.exists, "the connection file")
        assert json.loads(client_file.read_text())["location"] == "here.example.org"
    finally:
        cluster.stop_controller_sync()


def test_ipcluster_runs_our_hub_as_a_daemon_and_stops_it(directory: Path) -> None:
    profile = directory / "profile"
    ipcluster("start", "--controller=trio-hub", "-n", "4", "--daemonize", f"--profile-dir={profile}")
    try:
        assert hubs(directory) == [OURS]
        with ipp.Client(profile_dir=str(profile), timeout=LIMIT) as client:
            client.wait_for_engines(4, timeout=LIMIT)
            assert len(set(client[:].apply_sync(os.getpid))) == 4
            assert client.load_balanced_view().map_sync(lambda x: -x, range(20)) == [-x for x in range(20)]
        # Another process finds the running cluster by its file.
        again = ipp.Cluster.from_file(profile_dir=str(profile))
        assert isinstance(again.controller, launchers.TrioHub)
    finally:
        said = ipcluster("stop", f"--profile-dir={profile}")
    wait_until(lambda: not processes_with(str(directory)), "the end of all processes")
    assert "Traceback" not in said
    assert security_files(profile) == []


# Jobs of batch systems


def test_every_launcher_has_a_name() -> None:
    assert {point.value for point in NAMES.values()} == {f"trio_hub.launchers:{name}" for name in launchers.__all__}


@pytest.mark.parametrize(("kind", "name"), NAMES)
def test_a_name_leads_to_a_launcher_and_back(kind: str, name: str) -> None:
    found = find_launcher_class(name, kind)
    assert found is NAMES[kind, name].load()
    assert abbreviate_launcher_class(found) == name
    system = name.removeprefix("trio-hub").lstrip("-") or "local"
    assert issubclass(found, find_launcher_class(system, kind))


def engine_launcher(name: str, directory: Path, **options: Any) -> Any:
    return find_launcher_class(name, "engine")(
        work_dir=str(directory),
        profile_dir=str(directory / "profile"),
        cluster_id="c",
        engine_args=["--timeout=30"],
        **options,
    )


@pytest.mark.parametrize("name", ["trio-hub-slurm", "trio-hub-pbs", "trio-hub-sge", "trio-hub-lsf"])
def test_a_job_runs_our_engines(directory: Path, name: str) -> None:
    job = engine_launcher(name, directory)
    job.write_batch_script(2)
    script = Path(job.batch_file).read_text()
    assert f"{sys.executable} -m trio_hub engine --timeout=30" in script
    assert "ipyparallel.engine" not in script


def test_an_htcondor_job_runs_our_script_for_engines(directory: Path) -> None:
    job = engine_launcher("trio-hub-htcondor", directory)
    job.write_batch_script(2)
    script = Path(job.batch_file).read_text()
    assert "executable = trio-hub\n" in script
    assert 'arguments = "engine --timeout=30"' in script


def test_mpiexec_runs_our_engines(directory: Path) -> None:
    job = engine_launcher("trio-hub-mpi", directory)
    job.n = 2
    assert job.find_args() == ["mpiexec", "-n", "2", *OUR_ENGINE, "--mpi", "--timeout=30"]


def test_ssh_runs_our_engines_with_the_python_there(directory: Path) -> None:
    remote = engine_launcher("trio-hub-ssh", directory, remote_python="/opt/python")
    for one in (remote, remote.launcher_class(remote_python="/opt/python", hostname="node")):
        assert one.engine_cmd == ["/opt/python", "-m", "trio_hub", "engine"]


def test_a_cluster_runs_our_engines_and_stops_them(directory: Path) -> None:
    profile = directory / "profile_lab"
    cluster = ipp.Cluster(
        controller="trio-hub", engines="trio-hub", n=2, profile_dir=str(profile), engine_timeout=LIMIT
    )
    with cluster as client:
        assert client[:].apply_sync(lambda: __import__("sys").argv[0].endswith("trio_hub/__main__.py")) == [True] * 2
        assert client.load_balanced_view().map_sync(lambda x: x * x, range(20)) == [x * x for x in range(20)]


def launcher(name: str, directory: Path, **options: Any) -> Any:
    return find_launcher_class(name, "controller")(
        work_dir=str(directory),
        profile_dir=str(directory / "profile"),
        cluster_id="c",
        controller_args=["--ip=*", "--ping=1000"],
        **options,
    )


@pytest.mark.parametrize(
    ("name", "mark"),
    [
        ("trio-hub-slurm", "#SBATCH --job-name=ipcontroller-c"),
        ("trio-hub-pbs", "#PBS -N ipcontroller"),
        ("trio-hub-sge", "#$ -N ipcontroller"),
        ("trio-hub-lsf", "#BSUB -J ipcontroller-c"),
    ],
)
def test_a_job_runs_our_command(directory: Path, name: str, mark: str) -> None:
    job = launcher(name, directory)
    job.write_batch_script(1)
    script = Path(job.batch_file).read_text()
    assert mark in script
    assert f"{sys.executable} -m trio_hub ipcontroller '--ip=*' --ping=1000" in script
    assert "ipyparallel.controller" not in script


def test_an_htcondor_job_runs_our_script(directory: Path) -> None:
    job = launcher("trio-hub-htcondor", directory)
    job.write_batch_script(1)
    lines = [line.split("=", 1) for line in Path(job.batch_file).read_text().splitlines() if "=" in line]
    submitted = {name.strip(): value.strip() for name, value in lines}
    assert submitted["executable"] == "trio-hub"
    assert submitted["arguments"] == "ipcontroller '--ip=*' --ping=1000"


def test_a_job_of_any_system_runs_our_command(directory: Path) -> None:
    job = launcher("trio-hub-batch", directory, batch_template="run {program_and_args}")
    job.write_batch_script(1)
    assert Path(job.batch_file).read_text() == f"run {sys.executable} -m trio_hub ipcontroller '--ip=*' --ping=1000"


def test_mpiexec_runs_our_command(directory: Path) -> None:
    job = launcher("trio-hub-mpi", directory)
    job.n = 1  # its start() does this first
    assert job.find_args() == ["mpiexec", "-n", "1", *OURS, "--ip=*", "--ping=1000"]


def test_ssh_runs_our_command_with_the_python_there(directory: Path) -> None:
    remote = launcher("trio-hub-ssh", directory, remote_python="/opt/python", hostname="head")
    assert remote.program + remote.program_args == [
        *("/opt/python", "-m", "trio_hub", "ipcontroller"),
        *("--ip=*", "--ping=1000"),
    ]
    assert "/log/ipcontroller-" in remote.remote_output_file


def test_a_command_of_the_user_s_own_counts_more(directory: Path) -> None:
    from traitlets.config import Config

    config = Config({"ControllerLauncher": {"controller_cmd": ["mine"], "controller_args": ["--hwm=2"]}})
    found = find_launcher_class("trio-hub", "controller")(config=config, profile_dir=str(directory / "profile"))
    assert found.find_args() == ["mine", "--hwm=2"]


def test_a_job_s_command_is_a_command_of_ours() -> None:
    done = subprocess.run([*OURS, "--version"], stdout=subprocess.PIPE, check=True, timeout=LIMIT)
    assert done.stdout
