"""Load the modules that serve a hub only when they are needed, since ``--help`` needs neither Trio nor ZeroMQ."""

from __future__ import annotations

import gc
from collections.abc import Callable

from ..config import HubConfig

__all__ = ["load_run_hub"]


def load_run_hub() -> Callable[[HubConfig], int]:
    """Load and return `trio_hub.cli.running.run_hub`.

    Garbage collection is off meanwhile, which makes the start a tenth faster. The loaded objects are never freed, so
    later collections skip them too.
    """
    gc.disable()
    try:
        from .running import run_hub

        gc.freeze()
    finally:
        gc.enable()
    return run_hub
