"""Loading what serves a hub: late, since it brings Trio and ZeroMQ, which ``--help`` does without; and quickly."""

from __future__ import annotations

import gc
from collections.abc import Callable

from ..config import HubConfig

__all__ = ["load_run_hub"]


def load_run_hub() -> Callable[[HubConfig], int]:
    """`trio_hub.cli.running.run_hub`.

    What is loaded stays, and to look for cycles in it again and again would take a tenth of a start. So that is left,
    and the collector never looks at it later either.
    """
    gc.disable()
    try:
        from .running import run_hub

        gc.freeze()
    finally:
        gc.enable()
    return run_hub
