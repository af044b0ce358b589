"""A real Slurm for the tests of this directory, and of others that import its fixtures."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from . import node
from .support import Slurm

__all__ = ["slurm", "slurm_node"]


@pytest.fixture(scope="session")
def slurm_node() -> Iterator[Path]:
    """The directory of a running Slurm. Without Slurm's programs, skip the test; in CI, fail it."""
    lacking = node.missing()
    if lacking and os.environ.get("CI") == "true":
        pytest.fail(lacking)
    if lacking:
        pytest.skip(lacking)
    with node.running() as directory:
        yield directory


@pytest.fixture
def slurm(slurm_node: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Slurm]:
    """A Slurm without jobs, which all processes of the test use. The test must leave no job."""
    found = Slurm(slurm_node)
    for name in set(os.environ) - set(found.environment):
        monkeypatch.delenv(name)
    for name, value in found.environment.items():
        monkeypatch.setenv(name, value)
    yield found
    left = found.jobs()
    found.cancel_all()
    assert not left, "the test left these jobs"
