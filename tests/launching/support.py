"""Pools for tests, and programs that behave as those of Slurm do."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from trio_hub.config.pools import Pool
from trio_hub.pools.settings import PoolSettings

LIMIT = 60.0
"""Seconds after which a wait of a test fails. The value is large, since machines that run tests are busy."""

_SLURM = """\
#!/bin/sh
# jobs are files: ID contains "NAME|STATE|REASON"
cd "$FAKE_SLURM" || exit 2
tool=${0##*/}
echo "$tool $*" >> calls
[ ! -e "$tool.fails" ] || { cat "$tool.fails" >&2; exit 1; }
for word; do
    case $word in
    --jobs=*) jobs=$(echo "${word#*=}" | tr , ' ') ;;
    --name=*|--job-name=*) name=${word#*=} ;;
    esac
    last=$word
done
case $tool in
sbatch)
    [ ! -e odd ] || { echo "well"; echo "sbatch: warning: an odd plugin" >&2; exit 0; }
    id=$(( $(cat last 2>/dev/null || echo 4710) + 1 )); echo "$id" > last
    echo "$name|PENDING|Resources" > "$id"
    env > "$id.env"; cp "$last" "$id.script"
    [ ! -e lost ] || { cat lost >&2; exit 1; }
    [ ! -e hang ] || { echo $$ > pid; mv pid hanging; exec sleep 600; }
    echo "sbatch: info: a word for people" >&2
    echo "Submitted batch job $id" ;;
squeue)
    if [ -n "$jobs" ]; then
        known=no
        for id in $jobs; do
            [ -e "$id" ] || continue
            known=yes
            line=$(cat "$id"); state=${line#*|}
            case $state in PENDING*|RUNNING*) echo "$id|$state" ;; esac
        done
        [ "$known" = yes ] || { echo "slurm_load_jobs error: Invalid job id specified" >&2; exit 1; }
    else
        for id in [0-9]*; do
            case $id in *.*) continue ;; esac
            [ -e "$id" ] && [ "$(cut -d'|' -f1 "$id")" = "$name" ] && echo "$id"
        done
        exit 0
    fi ;;
scontrol)
    [ -e "$last" ] || { echo "slurm_load_jobs error: Invalid job id specified" >&2; exit 1; }
    echo "JobId=$last JobName=x $(sed 's/.*|\\(.*\\)|\\(.*\\)/JobState=\\1 Reason=\\2/' "$last") ExitCode=0:0" ;;
scancel)
    [ -e "$last" ] || { echo "scancel: error: Kill job error on job id $last: Invalid job id specified" >&2; exit 1; }
    echo "$(cut -d'|' -f1 "$last")|CANCELLED|None" > "$last" ;;
esac
"""


class FakeSlurm:
    """A directory with the jobs of a batch system that is not there."""

    def __init__(self, directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.directory = directory / "slurm"
        tools = directory / "bin"
        self.directory.mkdir()
        tools.mkdir()
        for tool in ("sbatch", "squeue", "scontrol", "scancel"):
            (tools / tool).write_text(_SLURM)
            (tools / tool).chmod(0o755)
        monkeypatch.setenv("FAKE_SLURM", str(self.directory))
        monkeypatch.setenv("PATH", str(tools), prepend=os.pathsep)

    def put(self, job: str, state: str, reason: str = "None") -> None:
        """Give a job another state."""
        name = (self.directory / job).read_text().partition("|")[0] if (self.directory / job).exists() else "other"
        (self.directory / job).write_text(f"{name}|{state}|{reason}\n")

    def write(self, name: str, text: str = "") -> None:
        """Make a file on which the behaviour depends: ``sbatch.fails``, ``odd``, ``lost``, ``hang``."""
        (self.directory / name).write_text(text)

    def remove(self, name: str) -> None:
        (self.directory / name).unlink()

    def read(self, name: str) -> str:
        return (self.directory / name).read_text()

    def calls(self, tool: str) -> list[str]:
        path = self.directory / "calls"
        lines = path.read_text().splitlines() if path.exists() else []
        return [line for line in lines if line.startswith(f"{tool} ")]


def a_pool(launcher: str = "slurm", *, settings: dict[str, Any] | None = None, **options: Any) -> Pool:
    return Pool(PoolSettings("p", **{"max": 8, "engines_per_block": 4, **(settings or {})}), launcher, **options)
