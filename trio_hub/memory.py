"""Tells the C library what to do with freed memory."""

from __future__ import annotations

import ctypes
import os

__all__ = ["give_back", "keep_freed"]

_TRIM_THRESHOLD, _TOP_PAD, _MMAP_THRESHOLD = -1, -2, -3  # the parameters of mallopt(3)
_LARGEST_REUSED = 32 << 20  # the greatest value that the GNU C library accepts as a threshold
_KEPT = 64 << 20
_AT_A_TIME = 16 << 20
_CHOSEN = ("MALLOC_TRIM_THRESHOLD_", "MALLOC_TOP_PAD_", "MALLOC_MMAP_THRESHOLD_", "MALLOC_MMAP_MAX_", "GLIBC_TUNABLES")

_libc = ctypes.CDLL(None)
# Both exist only in the GNU C library.
_mallopt = getattr(_libc, "mallopt", None)
_malloc_trim = getattr(_libc, "malloc_trim", None)


def keep_freed() -> None:
    """Let the C library keep up to 64 MiB of freed memory at the end of each of its heaps, to use it again.

    By default, the memory of a message of some megabytes goes back to the system when the message is freed. For the
    next message, the system then has to find and clear each page again, which takes longer than to copy the message.
    These settings are those that the C library itself takes once a block of 32 MiB was freed. Settings in the
    environment are kept.
    """
    if _mallopt is not None and not any(name in os.environ for name in _CHOSEN):
        _mallopt(_MMAP_THRESHOLD, _LARGEST_REUSED)
        _mallopt(_TRIM_THRESHOLD, _KEPT)
        _mallopt(_TOP_PAD, _AT_A_TIME)


def give_back() -> None:
    """Give freed memory back to the system, as far as no objects are left in the same blocks of memory."""
    if _malloc_trim is not None:
        _malloc_trim(0)
