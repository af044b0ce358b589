"""What a command checks before it starts a hub, and the packages that messages name."""

from __future__ import annotations

import importlib.metadata
import os
import re
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from trio_hub.cli import before, running
from trio_hub.cli.before import check_settings
from trio_hub.config import HubConfig
from trio_hub.dashboard.serve import PACKAGES
from trio_hub.errors import ConfigError
from trio_hub.runtime import enginecommand


@pytest.fixture
def roomy(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """A machine without limits, but for those that a test sets."""
    monkeypatch.setattr(before, "open_files_limit", lambda: None)
    monkeypatch.setattr(before, "memory_available", lambda: None)
    monkeypatch.setattr(before, "_number_in", lambda path: None)
    return monkeypatch


def test_settings_that_can_be_used(tmp_path: Path, roomy: pytest.MonkeyPatch) -> None:
    check_settings(HubConfig())
    check_settings(HubConfig(profile_dir=tmp_path / "not" / "there", engines=100_000))
    check_settings(HubConfig(profile_dir=tmp_path, engines=1, engine_command=(sys.executable, "engine.py")))


@pytest.mark.parametrize(
    ("limits", "told"),
    [
        (
            {"open_files_limit": lambda: 1024},
            r"about 115: the limit on open files is 1,024 \(ulimit -n\)\. Start fewer",
        ),
        ({"_number_in": lambda path: 400}, "about 200: the system allows 400 processes, and an engine needs two"),
        ({"memory_available": lambda: 150 << 20}, "about 10: 150 MiB of memory are free, and engines need 15 MiB each"),
    ],
)
def test_more_engines_than_the_machine_has_room_for(
    roomy: pytest.MonkeyPatch, limits: dict[str, Any], told: str
) -> None:
    for name, limit in limits.items():
        roomy.setattr(before, name, limit)
    with pytest.raises(ConfigError, match=f"^engines is 1000, but this machine has room for {told}"):
        check_settings(HubConfig(engines=1000))


def test_the_memory_that_other_programs_need_as_engines_is_not_known(roomy: pytest.MonkeyPatch) -> None:
    roomy.setattr(before, "memory_available", lambda: 1)
    check_settings(HubConfig(engines=1000, engine_command=(sys.executable, "engine.py")))
    check_settings(HubConfig(engines=1000, reuse=True))  # they may run already


def test_stock_engines_without_ipyparallel(roomy: pytest.MonkeyPatch) -> None:
    roomy.setattr(enginecommand, "find_spec", lambda name: None)
    roomy.setattr(shutil, "which", lambda name: None)
    with pytest.raises(ConfigError, match="ipyparallel is not installed where the hub runs: install it with pip inst"):
        check_settings(HubConfig(engines=2, engine_command=("ipengine",)))
    roomy.setattr(shutil, "which", lambda name: f"/usr/bin/{name}")
    check_settings(HubConfig(engines=2, engine_command=("ipengine",)))


def test_a_profile_that_this_user_may_not_write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    with pytest.raises(ConfigError, match=f"^profile_dir is {tmp_path}, but this user may not write there: choose"):
        check_settings(HubConfig(profile_dir=tmp_path))
    with pytest.raises(ConfigError, match=f"/deep, but {tmp_path} exists, and this user may not write there"):
        check_settings(HubConfig(profile_dir=tmp_path / "deep"))
    with pytest.raises(ConfigError, match=r"^profile_dir is /not-there, but / exists, and this user may not write"):
        check_settings(HubConfig(profile_dir=Path("/not-there")))


@contextmanager
def as_nobody() -> Iterator[None]:
    """Give up root's rights during the block, since root may see and write everything."""
    is_root = os.geteuid() == 0
    if is_root:
        os.setresuid(65534, 65534, 0)
    try:
        yield
    finally:
        if is_root:
            os.setresuid(0, 0, 0)


@pytest.mark.parametrize("name", ["locked/profile", "link"])
def test_a_profile_that_this_user_may_not_see(tmp_path: Path, name: str) -> None:
    locked = tmp_path / "locked"
    locked.mkdir()
    (tmp_path / "link").symlink_to(locked / "profile")
    locked.chmod(0)
    with as_nobody(), pytest.raises(ConfigError, match=f"^profile_dir is {tmp_path / name}, but "):
        check_settings(HubConfig(profile_dir=tmp_path / name))


@pytest.mark.parametrize(
    ("started_as", "on_path", "shown"),
    [
        ("/venv/bin/trio-hub", None, "/venv/bin/trio-hub"),
        (".venv/bin/trio-hub", None, ".venv/bin/trio-hub"),
        (".venv/bin/trio-hub", "/venv/bin/trio-hub", "trio-hub"),
        ("/site-packages/trio_hub/__main__.py", None, "trio-hub"),
    ],
)
def test_the_command_that_adds_engines_is_one_that_the_shell_finds(
    monkeypatch: pytest.MonkeyPatch, started_as: str, on_path: str | None, shown: str
) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: on_path)
    assert running._program(started_as) == shown


@pytest.mark.parametrize(
    ("extra", "packages"),
    [
        ("dashboard", PACKAGES),
        ("postgres", "psycopg[binary]"),
        ("cluster", "ipyparallel"),
        ("client", "cloudpickle"),
        ("dask", "distributed"),
    ],
)
def test_messages_name_the_packages_of_an_extra(extra: str, packages: str) -> None:
    needed = {
        re.split(r"[<>=;! ]", one)[0]
        for one in importlib.metadata.requires("trio-hub") or ()
        if re.search(rf"extra == .{extra}.$", one)
    }
    assert needed == set(packages.split())


def test_no_message_and_no_page_names_an_extra_of_a_package_that_no_index_has() -> None:
    root = Path(__file__).parents[2]
    pages = [root / "README.md", *(root / "docs").rglob("*.md"), *(root / "trio_hub").rglob("*.py")]
    found = [path.name for path in pages if re.search(r"pip install '?trio-hub", path.read_text("utf-8"))]
    assert found == []
