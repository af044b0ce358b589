"""File systems that lack what a hub needs, and those on the network."""

from __future__ import annotations

import errno
import mmap
import os
from pathlib import Path

import pytest

from tests.runtime.support import within_limit
from trio_hub import ConfigError, ConnectionFileError, HubConfig, HubError, serve_hub
from trio_hub.databases import filesystems
from trio_hub.databases.filesystems import file_system_of, is_on_the_network, lacking
from trio_hub.testing import open_hub

MOUNTS = """\
22 1 0:20 / / rw,relatime shared:1 - ext4 /dev/vda1 rw
30 22 0:25 / /home rw shared:2 - nfs4 server:/home rw,vers=4.2
31 30 0:26 / /home/me/local\\040disk rw - xfs /dev/vdb rw
32 22 0:27 / /mnt rw - ext4 /dev/vdc rw
33 22 0:28 / /mnt rw - fuse.sshfs me@server: rw
nonsense
"""


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/home/me/.ipython/profile_default", "nfs4"),
        ("/home", "nfs4"),
        ("/homes/me", "ext4"),
        ("/home/me/local disk/db", "xfs"),
        ("/mnt/x", "fuse.sshfs"),
        ("/var/tmp", "ext4"),
    ],
)
def test_the_file_system_of_a_path(path: str, kind: str) -> None:
    assert file_system_of(Path(path), MOUNTS) == kind


def test_this_system_tells(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert file_system_of(Path("/proc/self")) == "proc"
    assert file_system_of(tmp_path / "not" / "there")
    monkeypatch.setattr(filesystems, "MOUNTS", tmp_path / "none")
    assert file_system_of(tmp_path) == ""


@pytest.mark.parametrize("kind", ["nfs", "nfs4", "cifs", "smb3", "lustre", "gpfs", "beegfs", "fuse", "fuse.sshfs"])
def test_those_on_the_network(kind: str) -> None:
    assert is_on_the_network(kind)


@pytest.mark.parametrize("kind", ["ext4", "xfs", "btrfs", "tmpfs", "overlay", "fuseblk", ""])
def test_those_that_are_not(kind: str) -> None:
    assert not is_on_the_network(kind)


@pytest.mark.parametrize(
    ("db", "remedy"), [("sqlite", "--db sqlite:////var/tmp"), ("memory", "--profile-dir /var/tmp")]
)
async def test_a_hub_on_the_network_says_so_once(
    db: str, remedy: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    mounts = tmp_path / "mountinfo"
    mounts.write_text(f"1 1 0:1 / / rw - ext4 x rw\n2 1 0:2 / {tmp_path} rw - nfs server:/x rw\n")
    monkeypatch.setattr(filesystems, "MOUNTS", mounts)
    async with within_limit(), open_hub(HubConfig(profile_dir=tmp_path / "profile", db=db)):
        pass
    assert caplog.text.count("on a network file system") == 1
    assert "type=nfs" in caplog.text
    assert remedy in caplog.text


async def test_on_a_local_disk_nothing_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async with within_limit(), open_hub(HubConfig(profile_dir=tmp_path)):
        pass
    assert "network" not in caplog.text


@pytest.mark.parametrize(
    ("db", "error"),
    [("sqlite", ConfigError), ("memory", ConnectionFileError)],  # the files of sent results, and of seen messages
)
async def test_without_shared_memory_the_file_system_is_named(
    db: str, error: type[HubError], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = mmap.mmap

    def no_map(descriptor: int, size: int) -> mmap.mmap:
        if descriptor == -1:  # memory without a file
            return real(descriptor, size)
        raise OSError(errno.ENODEV, os.strerror(errno.ENODEV))

    monkeypatch.setattr(mmap, "mmap", no_map)
    async with within_limit():
        with pytest.raises(error, match=r"its file system cannot share memory .*--profile-dir /var/tmp/"):
            await serve_hub(HubConfig(profile_dir=tmp_path, db=db))


def test_other_errors_are_not_blamed_on_the_file_system() -> None:
    assert lacking(OSError(errno.EACCES, "")) == ""
    assert "has no file locks" in lacking(OSError(errno.ENOLCK, ""))
