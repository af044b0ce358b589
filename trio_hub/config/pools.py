"""The setting ``pools``: the ``[[pool]]`` tables of the file of settings, checked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ..pools.settings import PoolSettings

__all__ = ["Pool"]


@dataclass(frozen=True, slots=True)
class Pool:
    """One pool of engines: how large it may be, and how its blocks are started.

    - ``settings``: what its size depends on;
    - ``launcher``: ``local``, ``command``, or the name of an entry point of ``ipyparallel.engine_launchers``;
    - ``traits``: the traits of that launcher, such as ``{"queue": "short"}``;
    - ``engine``: ``trio-hub``, or ``ipengine`` for the stock engine;
    - ``engine_args``: further arguments of the engine's command;
    - ``python``: the Python that runs engines on the nodes; empty: the hub's own;
    - ``start_command``, ``stop_command``: shell commands that run on a node before and after each engine;
    - ``wrap_command``: words in front of the engine's command, such as ``apptainer exec image.sif``;
    - ``submit_command``, ``cancel_command``, ``status_command``: shell commands of the launcher ``command``;
    - ``keep``: whether blocks stay when the hub stops.
    """

    settings: PoolSettings
    launcher: str = "local"
    traits: Mapping[str, Any] = field(default_factory=dict)
    engine: str = "trio-hub"
    engine_args: tuple[str, ...] = ()
    python: str = ""
    start_command: str = ""
    stop_command: str = ""
    wrap_command: str = ""
    submit_command: str = ""
    cancel_command: str = ""
    status_command: str = ""
    keep: bool = False

    @property
    def name(self) -> str:
        return self.settings.name
