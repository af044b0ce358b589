"""Connection files: they are written completely or not at all, and only their owner can read them."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from trio_hub.config import connectionfiles as connection
from trio_hub.config.connectionfiles import (
    connection_paths,
    read_connection_file,
    remove_connection_file,
    write_connection_file,
)
from trio_hub.errors import ConnectionFileError

INFO: dict[str, Any] = {"key": "secret", "registration": 4000, "broadcast": [4001], "curve_serverkey": None}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return connection_paths(tmp_path / "profile")[0]


@contextmanager
def umask(mask: int) -> Iterator[None]:
    before = os.umask(mask)
    try:
        yield
    finally:
        os.umask(before)


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def names_in(path: Path) -> list[str]:
    return sorted(entry.name for entry in path.iterdir())


@pytest.mark.parametrize(("cluster_id", "base"), [("", "ipcontroller"), ("mine", "ipcontroller-mine")])
def test_paths_are_where_stock_clients_and_engines_look(cluster_id: str, base: str) -> None:
    client, engine = connection_paths(Path("profile"), cluster_id)
    assert client == Path(f"profile/security/{base}-client.json")
    assert engine == Path(f"profile/security/{base}-engine.json")


def test_what_is_written_is_read(path: Path) -> None:
    write_connection_file(path, INFO)
    assert read_connection_file(path) == INFO
    write_connection_file(path, INFO | {"key": "another"})
    assert read_connection_file(path)["key"] == "another"
    assert names_in(path.parent) == [path.name]


@pytest.mark.parametrize("mask", [0, 0o022, 0o077])
def test_only_the_owner_can_read_it_at_any_moment(path: Path, mask: int, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[str, int]] = []

    def look() -> None:
        seen.extend((entry.name, mode_of(entry)) for entry in path.parent.iterdir())

    # between any two steps that change what lies on the disk
    for module, name in ((os, "open"), (os, "fsync"), (os, "replace"), (json, "dumps")):
        monkeypatch.setattr(module, name, watched(getattr(module, name), look))
    monkeypatch.setattr(connection, "open", watched(open, look), raising=False)
    path.parent.mkdir(parents=True)
    with umask(mask):
        write_connection_file(path, INFO)
    look()
    assert {mode for _, mode in seen} == {0o600}
    assert {name for name, _ in seen} == {path.name, f".{path.name}.{os.getpid()}.partial"}


def watched(call: Any, look: Any) -> Any:
    def watched_call(*args: Any, **kwargs: Any) -> Any:
        look()
        result = call(*args, **kwargs)
        look()
        return result

    return watched_call


@pytest.mark.parametrize("mask", [0, 0o022])
def test_a_directory_made_for_it_is_the_owners_too(path: Path, mask: int) -> None:
    """Otherwise another user could replace the file."""
    with umask(mask):
        write_connection_file(path, INFO)
    assert mode_of(path.parent) == 0o700


def test_a_file_that_all_could_read_is_replaced_by_one_that_they_cannot(path: Path) -> None:
    path.parent.mkdir(parents=True)
    path.write_text("{}")
    path.chmod(0o666)
    with path.open() as opened_by_another:
        write_connection_file(path, INFO)
        assert opened_by_another.read() == "{}", "an open file shows nothing of the new one"
    assert mode_of(path) == 0o600


def test_what_a_crash_left_behind_is_not_written_into(path: Path) -> None:
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    partial.parent.mkdir(parents=True)
    partial.write_text("half")
    partial.chmod(0o666)
    with partial.open() as opened_by_another:
        write_connection_file(path, INFO)
        assert opened_by_another.read() == "half"
    assert mode_of(path) == 0o600
    assert names_in(path.parent) == [path.name]


@pytest.mark.parametrize("step", ["fsync", "replace"])
def test_whole_or_not_at_all(path: Path, step: str, monkeypatch: pytest.MonkeyPatch) -> None:
    write_connection_file(path, INFO)

    def full(*args: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, step, full)
        with pytest.raises(ConnectionFileError, match="No space left on device"):
            write_connection_file(path, INFO | {"key": "another"})
    assert read_connection_file(path) == INFO
    assert names_in(path.parent) == [path.name]


def test_what_is_not_json_leaves_nothing_behind(path: Path) -> None:
    write_connection_file(path, INFO)
    with pytest.raises(TypeError):
        write_connection_file(path, {"key": b"bytes"})
    assert read_connection_file(path) == INFO
    assert names_in(path.parent) == [path.name]


def test_a_directory_that_cannot_be_written_is_named(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path.parent.mkdir(parents=True)
    path.parent.chmod(0o500)

    def refuse(*args: object) -> None:  # as the system does for users other than root
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(ConnectionFileError, match="Permission denied") as caught:
        write_connection_file(path, INFO)
    assert str(path) in str(caught.value)
    assert "--profile-dir" in str(caught.value)


def test_a_directory_that_cannot_be_made_is_named(path: Path) -> None:
    path.parent.parent.write_text("a file, where a directory should be")
    with pytest.raises(ConnectionFileError) as caught:
        write_connection_file(path, INFO)
    assert str(path) in str(caught.value)
    assert "--profile-dir" in str(caught.value)


def test_a_missing_file_is_named(path: Path) -> None:
    with pytest.raises(ConnectionFileError, match="Is the hub running") as caught:
        read_connection_file(path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("text", [b"", b"{", b"[]", b"null", b"\xff\xfe\xfd", b"[" * 100_000], ids=range(6))
def test_a_damaged_file_is_named(path: Path, text: bytes) -> None:
    path.parent.mkdir(parents=True)
    path.write_bytes(text)
    with pytest.raises(ConnectionFileError, match="is damaged") as caught:
        read_connection_file(path)
    assert str(path) in str(caught.value)
    remove_connection_file(path, INFO)
    assert path.exists(), "nobody knows whose it is"


def test_it_is_removed_only_while_it_is_ours(path: Path) -> None:
    remove_connection_file(path, INFO)  # the file does not exist
    write_connection_file(path, INFO)
    remove_connection_file(path, INFO | {"registration": 4002})
    assert path.exists(), "another hub has taken over"
    remove_connection_file(path, INFO)
    assert not path.exists()
