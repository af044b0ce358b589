"""The how-to pages about Kubernetes and spot instances: the manifest, and what the scripts do."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import ipyparallel as ipp
import pytest
import yaml  # type: ignore[import-untyped]

from trio_hub.config.pools import parse_pool
from trio_hub.launching.blockfiles import BlockFiles
from trio_hub.launching.commands import Places
from trio_hub.launching.launcher import JobReport, JobState, LaunchError
from trio_hub.launching.statuses import user_command
from trio_hub.launching.usercommands import UserCommands

from ..cli.process import command, processes_with
from ..test_docs import DOCS
from . import kubectl
from .conftest import LIMIT, wait_until

pytestmark = pytest.mark.interop

KUBERNETES, SPOT = DOCS / "how-to" / "kubernetes", DOCS / "how-to" / "spot"
SCRIPTS = [KUBERNETES / "engines.sh", SPOT / "engines.sh", SPOT / "user-data.sh"]


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_the_scripts_are_shell_scripts(script: Path) -> None:
    subprocess.run(["bash", "-n", str(script)], check=True, timeout=LIMIT)
    assert os.access(script, os.X_OK)


@pytest.mark.parametrize("directory", [KUBERNETES, SPOT], ids=lambda path: path.name)
def test_the_settings_are_a_pool(directory: Path) -> None:
    settings = tomllib.loads((directory / "pool.toml").read_text())
    (table,) = settings["pool"]
    pool = parse_pool(table)
    assert pool.launcher == "command"
    assert {pool.submit_command, pool.cancel_command, pool.status_command} == {
        f"/home/you/engines.sh {word}" for word in ("submit", "cancel", "status")
    }


def test_the_manifest_is_a_job_with_one_engine() -> None:
    manifest = yaml.safe_load((KUBERNETES / "engine-job.yaml").read_text())
    assert (manifest["apiVersion"], manifest["kind"]) == ("batch/v1", "Job")
    spec = manifest["spec"]
    pod = spec["template"]["spec"]
    assert (spec["backoffLimit"], pod["restartPolicy"]) == (0, "Never")
    (container,) = pod["containers"]
    program, *options = container["command"]
    assert program == "trio-hub"
    (grace,) = (option.partition("=")[2] for option in options if option.startswith("--kill-grace="))
    assert 0 < float(grace) < pod["terminationGracePeriodSeconds"]


class Cluster:
    """The pool of the page about Kubernetes, with the page's files in a directory, and a stand-in for kubectl."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        for path in KUBERNETES.iterdir():
            (directory / path.name).write_bytes(path.read_bytes())
        (directory / "engines.sh").chmod(0o700)
        text = (directory / "pool.toml").read_text().replace("/home/you", str(directory))
        self.profile = directory / "cluster"
        pool = parse_pool(tomllib.loads(text)["pool"][0])
        places = Places(self.profile / "pools", profile_dir=self.profile)
        self.commands = UserCommands(pool, places, BlockFiles(places.directory))

    def look(self, block: str, job: Any) -> JobReport:
        return self.commands.look({block: job})[block]


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Cluster]:
    programs = tmp_path / "bin"
    programs.mkdir()
    for name, words in (("kubectl", kubectl.__file__), ("trio-hub", "-m trio_hub")):
        (programs / name).write_text(f'#!/bin/sh\nexec {sys.executable} {words} "$@"\n')
        (programs / name).chmod(0o700)
    monkeypatch.setenv("PATH", f"{programs}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("KUBE", str(tmp_path / "kube"))
    (tmp_path / "kube").mkdir()
    yield Cluster(tmp_path)
    for pid in processes_with(str(tmp_path / "kube")):
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def test_a_block_on_kubernetes(cluster: Cluster) -> None:
    with command("serve", "--profile-dir", str(cluster.profile)) as hub:
        hub.wait_line("stdout", "trio-hub ready")
        job = cluster.commands.submit("k8s-1f2e3d4c", 1)
        assert job["job"] == "job.batch/trio-hub-k8s-1f2e3d4c"
        (manifest,) = (yaml.safe_load(path.read_text()) for path in (cluster.directory / "kube").glob("job-*"))
        assert manifest["spec"]["activeDeadlineSeconds"] == 4 * 3600
        assert cluster.look("k8s-1f2e3d4c", job) == JobReport(JobState.RUNNING)
        with pytest.raises(LaunchError, match="AlreadyExists"):
            cluster.commands.submit("k8s-1f2e3d4c", 1)
        with ipp.Client(profile_dir=str(cluster.profile), timeout=LIMIT) as client:
            client.wait_for_engines(1, timeout=LIMIT)
            assert client.load_balanced_view().apply_sync(lambda: 6 * 7) == 42
            cluster.commands.cancel("k8s-1f2e3d4c", job)
            wait_until(lambda: not client.ids, "the end of the engine")
        ended = cluster.look("k8s-1f2e3d4c", job)
        assert ended == JobReport(JobState.ENDED, "there is no Job trio-hub-k8s-1f2e3d4c")
        cluster.commands.cancel("k8s-1f2e3d4c", job)


def test_a_pod_without_a_node_waits_and_says_why(cluster: Cluster) -> None:
    cluster.profile.mkdir()
    (cluster.profile / "security").mkdir()
    (cluster.profile / "security" / "ipcontroller-engine.json").write_text("{}")
    (cluster.directory / "kube" / "full").touch()
    job = cluster.commands.submit("k8s-1", 1)
    words = "0/3 nodes are available: 3 Insufficient cpu."
    assert cluster.look("k8s-1", job) == JobReport(JobState.WAITING, words)
    # also the next hub, which does not know whether the submission has succeeded
    assert cluster.look("k8s-1", {}) == JobReport(JobState.WAITING, words)
    cluster.commands.cancel("k8s-1", job)
    assert cluster.look("k8s-1", job).state is JobState.ENDED


class Cloud:
    """Stand-ins for programs: each notes its words in a file, and prints what the test has laid down for it."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.environment = {
            **os.environ,
            "PATH": f"{directory}{os.pathsep}{os.environ['PATH']}",
            "CLOUD": str(directory),
        }
        for name in ("aws", "curl", "shutdown", "sleep", "systemctl", "systemd-run"):
            (directory / name).write_text(
                '#!/bin/sh\nprintf "%s\\n" "${0##*/} $*" >>"$CLOUD/said"\n'
                'answer=$CLOUD/answer-${0##*/}-$1-$2\n[ ! -e "$answer" ] || . "$answer"\n'
            )
            (directory / name).chmod(0o700)

    def answer(self, words: str, script: str) -> None:
        """Lay down what a program does whose command line begins with these three words."""
        (self.directory / f"answer-{words.replace(' ', '-')}").write_text(script)

    def run(self, script: Path, *words: str, **variables: str) -> str:
        environment = {**self.environment, **variables}
        ran = subprocess.run(
            ["bash", str(script), *words], env=environment, capture_output=True, text=True, timeout=LIMIT, check=False
        )
        assert ran.returncode == 0, ran.stderr
        return ran.stdout

    def said(self) -> list[str]:
        return (self.directory / "said").read_text().splitlines()


@pytest.fixture
def cloud(tmp_path: Path) -> Cloud:
    return Cloud(tmp_path)


def test_a_block_of_spot_instances_is_submitted(cloud: Cloud) -> None:
    cloud.answer("aws ec2 run-instances", "echo i-0123")
    variables = {"TRIO_HUB_BLOCK": "spot-1f", "TRIO_HUB_ENGINES": "8", "TRIO_HUB_CONNECTION_FILE": "/p/engine.json"}
    assert cloud.run(SPOT / "engines.sh", "submit", **variables) == "i-0123\n"
    said = "\n".join(cloud.said())
    assert "--value file:///p/engine.json" in said
    assert "--client-token spot-1f" in said
    assert "seq 8" in said
    assert "--block=spot-1f" in said
    assert "__" not in said


@pytest.mark.parametrize(
    ("instance", "state"),
    [
        ("i-1\\tpending\\tpending\\tNone", JobReport(JobState.WAITING)),
        ("i-1\\trunning\\tNone\\tNone", JobReport(JobState.RUNNING)),
        ("i-1\\tshutting-down\\tNone\\tNone", JobReport(JobState.RUNNING)),
        (
            "i-1\\tterminated\\tServer.SpotInstanceTermination\\tServer.SpotInstanceTermination: taken back",
            JobReport(JobState.ENDED, "Server.SpotInstanceTermination: taken back", failed=True),
        ),
        ("i-1\\tterminated\\tClient.UserInitiatedShutdown\\tClient: ended", JobReport(JobState.ENDED)),
        ("", JobReport(JobState.ENDED, "there is no instance of this block")),
    ],
    ids=["pending", "running", "shutting-down", "taken-back", "ended", "none"],
)
def test_the_state_of_a_spot_instance(cloud: Cloud, instance: str, state: JobReport) -> None:
    cloud.answer("aws ec2 describe-instances", f"printf '{instance}\\n'")
    assert user_command(cloud.run(SPOT / "engines.sh", "status", TRIO_HUB_BLOCK="spot-1f")) == state


def test_a_spot_instance_is_terminated_if_there_is_one(cloud: Cloud) -> None:
    cloud.run(SPOT / "engines.sh", "cancel", TRIO_HUB_BLOCK="spot-1f")
    assert [line.split()[2] for line in cloud.said()] == ["describe-instances"]
    cloud.answer("aws ec2 describe-instances", "printf 'i-1\\trunning\\tNone\\tNone\\n'")
    cloud.run(SPOT / "engines.sh", "cancel", TRIO_HUB_BLOCK="spot-1f")
    assert cloud.said()[-1] == "aws ec2 terminate-instances --instance-ids i-1"


def test_an_instance_that_aws_takes_back_stops_its_engines_and_ends(cloud: Cloud) -> None:
    script = cloud.directory / "user-data.sh"
    script.write_text((SPOT / "user-data.sh").read_text().replace("__BLOCK__", "b").replace("__ENGINES__", "2"))
    units = "trio-hub-engine-1 trio-hub-engine-2"
    cloud.answer("aws ssm get-parameter", "echo '{}'")
    # active until somebody stops them; the third look at the metadata has the notice
    cloud.answer("systemctl --quiet is-active", '! grep -q "systemctl stop" "$CLOUD/said"')
    (cloud.directory / "curl").write_text(
        '#!/bin/sh\necho "curl $*" >>"$CLOUD/said"\ncase $* in\n*token) echo secret ;;\n'
        '*) [ "$(grep -c instance-action "$CLOUD/said")" -ge 3 ] ;;\nesac\n'
    )
    cloud.run(script)
    said = cloud.said()
    assert [line.split()[2] for line in said if line.startswith("systemd-run")] == units.split()
    assert said.count("sleep 5") == 3
    assert said.count(f"systemctl stop {units}") == 1
    assert said[-1] == "shutdown -h now"
