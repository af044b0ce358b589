"""The trait ``options`` of the launcher for Slurm, which ipyparallel's own template leaves out."""

from __future__ import annotations

from pathlib import Path

from trio_hub.config.pools import parse_pool
from trio_hub.launching.blockfiles import BlockFiles
from trio_hub.launching.commands import Places
from trio_hub.launching.stock import StockLaunchers


def preview(directory: Path, **traits: str) -> str:
    pool = parse_pool({"name": "a", "launcher": "slurm", "max": 1, "traits": traits})
    places = Places(directory, profile_dir=directory)
    return StockLaunchers(pool, places, BlockFiles(directory)).preview("a-1", 1)


def test_options_are_given_to_sbatch(tmp_path: Path) -> None:
    assert "sbatch --job-name=trio-hub-a-1 --exclusive '--comment=two words' /" in preview(
        tmp_path, options="--exclusive --comment='two words'"
    )


def test_a_template_of_the_user_has_its_own_place_for_options(tmp_path: Path) -> None:
    shown = preview(tmp_path, options="--exclusive", batch_template="#!/bin/sh\n#SBATCH {options}\nsrun {program}\n")
    assert "sbatch --job-name=trio-hub-a-1 /" in shown
    assert "#SBATCH --exclusive\n" in shown
