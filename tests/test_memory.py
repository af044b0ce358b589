"""The C library's memory: blocks that are freed are used again."""

import resource
import subprocess
import sys

import pytest

from trio_hub import memory

SIZE = 4 << 20
PROGRAM = f"""
import ctypes, resource, sys
ctypes.CDLL(None).prctl(41, 1, 0, 0, 0)  # PR_SET_THP_DISABLE: with huge pages, there are far fewer faults
from trio_hub.memory import give_back, keep_freed
if sys.argv[1] == "keep":
    keep_freed()
small = []
for number in range(40):
    block = bytearray({SIZE})
    del block
    if number == 19:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
give_back()
"""
needs_glibc = pytest.mark.skipif(memory._mallopt is None, reason="only the GNU C library has these settings")


def faults(mode: str, **environ: str) -> int:
    """Return how many pages the system had to find for twenty blocks of 4 MiB, one after the other."""
    run = subprocess.run([sys.executable, "-c", PROGRAM, mode], env=environ, capture_output=True, text=True, check=True)
    return int(run.stdout)


@needs_glibc
def test_freed_blocks_are_used_again() -> None:
    assert faults("keep") < SIZE // resource.getpagesize()


@needs_glibc
def test_the_users_settings_are_kept() -> None:
    """Here, every block comes from the system, and goes back to it."""
    assert faults("keep", MALLOC_MMAP_THRESHOLD_="65536") >= 20 * SIZE // resource.getpagesize() // 2


def test_it_does_nothing_with_another_c_library(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "_mallopt", None)
    monkeypatch.setattr(memory, "_malloc_trim", None)
    memory.keep_freed()
    memory.give_back()
