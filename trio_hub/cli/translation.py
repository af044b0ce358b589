"""What becomes of ipcontroller's settings: ours, the process's, and remarks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from ..config import RULES, HubConfig, load_config, shown_value
from ..errors import ConfigError

__all__ = ["SECRET", "Given", "Translation"]

SECRET = {entry.name for entry in fields(HubConfig) if entry.metadata["secret"]}
DEFAULTS: dict[str, object] = {"db": "memory", "curve": False}
"""The defaults of ipcontroller that are other than ours.

A drop-in writes no database that nobody asked for; and the engines and clients of an ipcontroller are not encrypted
unless somebody asks for that.
"""


@dataclass(frozen=True)
class Given:
    """A value, and where it was found: ``--hwm``, ``TaskScheduler.hwm in /…/ipcontroller_config.py``."""

    value: Any
    label: str
    in_file: bool = False


@dataclass
class Translation:
    """What a command line and its config files come to. `settings` are under the names of `HubConfig`'s fields."""

    settings: dict[str, Given] = field(default_factory=dict)
    process: dict[str, Given] = field(default_factory=dict)
    """What concerns the process and not the hub: ``work_dir``, ``log_to_file``, ``clean_logs``, ``auto_create``…"""
    remarks: list[str] = field(default_factory=list)
    """What is not done, each as "where: why"."""
    notes: list[str] = field(default_factory=list)
    """What is done in another way than one might think."""
    sqlite: dict[str, Given] = field(default_factory=dict)
    """Which file ``SQLiteDB`` was to have: its ``filename``, its ``location``."""
    files: list[Path] = field(default_factory=list)
    """The config files that were read."""
    environ: dict[str, str] = field(default_factory=dict)

    def config(self) -> HubConfig:
        """The settings of the hub. Raises `ConfigError`."""
        given = {name: given.value for name, given in self.settings.items()}
        return load_config(given, self.environ, None, defaults=DEFAULTS)

    def set(self, name: str, value: object, label: str, *, shown: object = None) -> None:
        """Give a setting, checked. `shown` is the value as it was written, where that is another.

        Raises:
            ConfigError: naming `label`.
        """
        try:
            checked = RULES[name].check(value)
        except (ValueError, TypeError) as error:
            what = "not usable" if name in SECRET else shown_value(name, value if shown is None else shown)
            because = f" ({error})" if str(error) else ""
            raise ConfigError(f"{label} is {what}{because}: expected {RULES[name].accepts}") from None
        self.settings[name] = Given(checked, label)

    def add_ports(self, name: str, ports: Sequence[int], label: str) -> None:
        """Append to a pool."""
        if not ports:
            return
        before = self.settings.get(name)
        if before is None:
            self.set(name, tuple(ports), label)
        else:
            self.set(name, (*before.value, *ports), f"{before.label}, {label}")

    def remark(self, label: str, why: str) -> None:
        self.remarks.append(f"{label}: {why}")

    def warning(self) -> str:
        """The one warning about all that is not done, or not as one might think; empty if there is nothing."""
        told = ["these have no effect here: " + "; ".join(self.remarks)] if self.remarks else []
        return ". ".join(told + self.notes)
