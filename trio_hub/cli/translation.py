"""The result of translating ipcontroller's settings: settings of the hub and of the process, and remarks."""

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
"""The defaults of ipcontroller that differ from ours.

A replacement of ipcontroller does not write a database, and does not encrypt connections, unless a setting says so.
"""


@dataclass(frozen=True)
class Given:
    """A value and its source, such as ``--hwm`` or ``TaskScheduler.hwm in /…/ipcontroller_config.py``."""

    value: Any
    label: str
    in_file: bool = False


@dataclass
class Translation:
    """The translation of a command line and its config files. `settings` has the names of `HubConfig`'s fields."""

    settings: dict[str, Given] = field(default_factory=dict)
    process: dict[str, Given] = field(default_factory=dict)
    """Settings of the process: ``work_dir``, ``log_to_file``, ``clean_logs``, ``auto_create``…"""
    remarks: list[str] = field(default_factory=list)
    """The settings that have no effect, each as "source: reason"."""
    notes: list[str] = field(default_factory=list)
    """Effects that users may not expect."""
    sqlite: dict[str, Given] = field(default_factory=dict)
    """The settings of ``SQLiteDB``: ``filename`` and ``location``."""
    files: list[Path] = field(default_factory=list)
    """The config files that were read."""
    environ: dict[str, str] = field(default_factory=dict)

    def config(self) -> HubConfig:
        """Return the settings of the hub. Raises `ConfigError`."""
        given = {name: given.value for name, given in self.settings.items()}
        return load_config(given, self.environ, None, defaults=DEFAULTS)

    def set(self, name: str, value: object, label: str, *, shown: object = None) -> None:
        """Check and set a setting.

        Args:
            name: The name of the setting.
            value: Its value.
            label: The source of the value.
            shown: The value as the user has written it, if that differs from `value`.

        Raises:
            ConfigError: The value cannot be used. The message names `label`.
        """
        try:
            checked = RULES[name].check(value)
        except (ValueError, TypeError) as error:
            what = "not usable" if name in SECRET else shown_value(name, value if shown is None else shown)
            because = f" ({error})" if str(error) else ""
            raise ConfigError(f"{label} is {what}{because}: expected {RULES[name].accepts}") from None
        self.settings[name] = Given(checked, label)

    def add_ports(self, name: str, ports: Sequence[int], label: str) -> None:
        """Append ports to a setting that is a list of ports."""
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
        """Return one text with all remarks and notes; empty if there are none."""
        told = ["these settings have no effect here: " + "; ".join(self.remarks)] if self.remarks else []
        return ". ".join(told + self.notes)
