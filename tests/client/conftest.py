from __future__ import annotations

from collections.abc import Iterator

import pytest

from trio_hub import Executor

from .background import Background, background, connected


@pytest.fixture(scope="module")
def cluster() -> Iterator[Background]:
    """A cluster of two engines for the tests that change nothing about it."""
    with background(2) as cluster:
        yield cluster


@pytest.fixture
def executor(cluster: Background) -> Iterator[Executor]:
    with connected(cluster) as executor:
        yield executor
