"""Runs a benchmark as a user does."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

__all__ = ["printed_by"]

ROOT = Path(__file__).parents[2]
LIMIT = 240.0
"""Seconds within which a benchmark with few rounds must end. It takes a tenth on a machine that is otherwise idle."""


def printed_by(module: str, *options: str) -> str:
    """Run a benchmark in the environment of this process, check that it succeeds, and return what it prints."""
    done = subprocess.run(
        [sys.executable, "-m", module, *options],
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=LIMIT,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout
