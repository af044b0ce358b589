"""ipyparallel's launchers as the agent uses them: settings that cannot be used, scripts, and what is asked for."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from trio_hub.launching.blockfiles import BlockFiles
from trio_hub.launching.commands import Places
from trio_hub.launching.launcher import LaunchError
from trio_hub.launching.stock import StockLaunchers
from trio_hub.launching.stockpreview import masked

from .support import a_pool

BATCH = {"slurm": "sbatch", "pbs": "qsub", "sge": "qsub", "lsf": "bsub", "htcondor": "condor_submit"}


def launchers(tmp_path: Path, *, profile: bool = True, **pool: Any) -> StockLaunchers:
    directory = tmp_path / "pools"
    if profile:
        places = Places(directory, tmp_path / "profile", "c")
    else:
        places = Places(directory, connection_file=tmp_path / "engine.json")
    return StockLaunchers(a_pool(**pool), places, BlockFiles(directory))


@pytest.mark.parametrize(
    ("pool", "message"),
    [
        ({"launcher": "slrum"}, "there is no launcher slrum: did you mean slurm"),
        ({"launcher": "x"}, "there is no launcher x: there are batch, command, htcondor, "),
        ({"traits": {"que": "short"}}, "the launcher slurm has no trait que: did you mean queue"),
        ({"traits": {"engine_cmd": ["x"]}}, "engine_cmd is set by the pool's settings"),
        ({"launcher": "sshproxy"}, "the launcher sshproxy does not run a command of ours"),
        ({"launcher": "winhpc"}, "the launcher winhpc does not run a command of ours"),
    ],
)
def test_settings_that_cannot_be_used(tmp_path: Path, pool: dict[str, Any], message: str) -> None:
    with pytest.raises(LaunchError, match=message):
        launchers(tmp_path, **pool)


def test_a_trait_of_another_type(tmp_path: Path) -> None:
    with pytest.raises(LaunchError, match="The 'queue' trait of a SlurmEngineSetLauncher instance expected a unicode"):
        launchers(tmp_path, traits={"queue": 3}).preview("p-1", 4)


def test_ssh_needs_a_profile(tmp_path: Path) -> None:
    with pytest.raises(LaunchError, match="the launcher ssh needs a hub with a profile directory"):
        launchers(tmp_path, profile=False, launcher="ssh")


def test_a_config_file_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "profile").mkdir()
    (tmp_path / "profile" / "ipcluster_config.py").write_text("c.SlurmLauncher.queue = nothing\n")
    with pytest.raises(LaunchError, match=r"cannot read .*ipcluster_config.py: name 'nothing' is not defined"):
        launchers(tmp_path)


def test_the_settings_of_the_profile_apply(tmp_path: Path) -> None:
    (tmp_path / "profile").mkdir()
    (tmp_path / "profile" / "ipcluster_config.py").write_text(
        "c.SlurmLauncher.account = 'lab'\nc.SlurmLauncher.queue = 'long'\n"
        "c.EngineLauncher.engine_args = ['--timeout=60']\n"
    )
    script = launchers(tmp_path, traits={"queue": "short"}).preview("p-1", 2)
    assert "#SBATCH --account=lab\n" in script
    assert "#SBATCH --partition=short\n" in script
    assert " engine --timeout=60 --block=p-1 " in script


@pytest.mark.parametrize("ours", ["", "trio-hub-"])
@pytest.mark.parametrize("system", BATCH)
def test_the_script_of_a_block(tmp_path: Path, system: str, ours: str) -> None:
    pool = launchers(
        tmp_path, launcher=ours + system, settings={"time_limit": 5400.5}, wrap_command="apptainer exec 'a b.sif'"
    )
    text = pool.preview("p-1", 4)
    line = next(line for line in text.splitlines() if line.startswith(BATCH[system]))
    script = f"{tmp_path}/pools/p-1/{system}_engine"
    assert re.fullmatch(rf"{BATCH[system]}( --job-name=| -batch-name|( <)?).*{script}\w*(.sbatch)?", line)
    limits = {
        "slurm": "#SBATCH --time=1:30:01",
        "pbs": "#PBS -l walltime=1:30:01",
        "sge": "#$ -l h_rt=5401",
        "lsf": "#BSUB -W 91",
        "htcondor": "periodic_remove = JobStatus == 2 && time() - EnteredCurrentStatus > 5401",
    }
    assert limits[system] in text.splitlines()
    arguments = f"--block=p-1 --profile-dir={tmp_path}/profile --cluster-id=c"
    assert re.search(rf"apptainer exec 'a b.sif' \S+python\S*( -P)? -m trio_hub engine {arguments}\n", text)
    assert f"export IPP_PROFILE_DIR={tmp_path}/profile\n" in text
    numbers = {"slurm": "#SBATCH --ntasks=4", "lsf": "#BSUB -J trio-hub-p-1[1-4]", "htcondor": "queue 4"}
    assert numbers.get(system, f"{'#$' if system == 'sge' else '#PBS'} -t 1-4") in text.splitlines()
    assert not (tmp_path / "pools").exists()  # nothing was submitted or written


def test_a_template_of_the_site(tmp_path: Path) -> None:
    template = "#!/bin/sh\n# {block} for {time_limit} s\nsrun -n {n} {program_and_args}\n"
    pool = launchers(
        tmp_path, traits={"batch_template": template, "namespace": {"more": 1}}, settings={"time_limit": 60}
    )
    assert "\n# p-1 for 60 s\nsrun -n 4 " in pool.preview("p-1", 4)
    assert "#SBATCH" not in pool.preview("p-1", 4)


def test_a_hub_without_a_profile(tmp_path: Path) -> None:
    text = launchers(tmp_path, profile=False, engine="ipengine").preview("p-1", 4)
    assert re.search(rf" -m trio_hub.engine.stock --block=p-1 --file={tmp_path}/engine.json\n", text)


def test_processes_on_this_machine_and_on_others(tmp_path: Path) -> None:
    line = launchers(tmp_path, launcher="mpi").preview("p-1", 4).splitlines()[-1]
    assert re.match(r"mpiexec -n 4 \S+python\S*( -P)? -m trio_hub engine --mpi --block=p-1 --profile-dir=", line)
    pool = launchers(
        tmp_path,
        launcher="ssh",
        python="/opt/py",
        traits={"engines": {"a": 2, "u@b": {"n": 3, "ssh_args": ["-x"]}, "c": 1}},
    )
    lines = [line for line in pool.preview("p-1", 4).splitlines() if "export" not in line]
    engine = "/opt/py -m trio_hub engine --block=p-1"
    assert lines == [f"ssh a -- {engine}"] * 2 + [f"ssh u@b -- {engine}"] * 2
    with pytest.raises(LaunchError, match="has 6 free slots on the hosts of its trait engines, and the block needs 7"):
        pool.preview("p-1", 7)


def test_no_secret_is_shown(tmp_path: Path) -> None:
    pool = launchers(tmp_path, traits={"environment": {"LAB_TOKEN": "hush it's", "PLACE": "here"}})
    text = pool.preview("p-1", 4)
    assert "hush" not in text
    assert "export LAB_TOKEN=***\nexport PLACE=here\n" in text
    assert masked("it's a key", {"A_KEY": "it's"}) == "*** a key"


def test_a_block_gets_the_hosts_that_others_have_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pool = launchers(tmp_path, launcher="ssh", traits={"engines": {"a": 2, "b": {"n": 2}}})
    pool.files.write("p-1", {"submitted": True})
    monkeypatch.setitem(pool._live, "p-1", type("Started", (), {"launchers": {"a/0": 1, "a/1": 1, "b/0": 1}}))
    launcher = pool._make("p-2", look_only=True)
    pool._reserve(launcher, "p-2", 1)
    assert launcher.engines == {"b": {"n": 1}}
