from __future__ import annotations

import os

import pytest


@pytest.fixture(scope="session")
def full_size() -> bool:
    """Return whether tests that have two sizes run in full size: with many CRASH_ROUNDS, as in `nox -s crash`."""
    return int(os.environ.get("CRASH_ROUNDS", "0")) > 2
