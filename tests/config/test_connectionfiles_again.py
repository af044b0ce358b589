"""Connection files that another hub takes up must be complete and belong together."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from trio_hub.config.connectionfiles import connection_paths, read_connection_files, write_connection_file
from trio_hub.errors import ConnectionFileError


def infos() -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the contents of the clients' and of the engines' connection file."""
    common: dict[str, Any] = {
        "ssh": "",
        "interface": "tcp://127.0.0.1",
        "key": "secret",
        "curve_serverkey": None,
        "location": "here",
        "pack": "json",
        "unpack": "json",
        "signature_scheme": "hmac-sha256",
        "registration": 1,
        "control": 2,
        "mux": 3,
        "task": 4,
        "iopub": 5,
    }
    return common | {"notification": 6, "broadcast": 7}, common | {"hb_ping": 8, "hb_pong": 9, "broadcast": [10, 11]}


def written(directory: Path, client: dict[str, Any], engine: dict[str, Any]) -> tuple[Path, Path]:
    paths = connection_paths(directory)
    for path, info in zip(paths, (client, engine), strict=True):
        write_connection_file(path, info)
    return paths


def test_both_files_are_read(tmp_path: Path) -> None:
    client, engine = infos()
    assert read_connection_files(*written(tmp_path, client, engine)) == (client, engine)


def test_where_there_are_none_there_is_nothing_to_take_up(tmp_path: Path) -> None:
    assert read_connection_files(*connection_paths(tmp_path)) is None


@pytest.mark.parametrize("index", [0, 1])
def test_one_file_alone_is_not_enough(tmp_path: Path, index: int) -> None:
    paths = written(tmp_path, *infos())
    paths[index].unlink()
    with pytest.raises(ConnectionFileError, match=f"{re.escape(str(paths[index]))} .* it is missing"):
        read_connection_files(*paths)


@pytest.mark.parametrize("side", ["client", "engine"])
@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"key": None}, "'key' is missing"),
        ({"key": ""}, "no key"),
        ({"location": 5}, "'location' is missing or is not a text"),
        ({"interface": "ipc:///tmp/x"}, "TCP only"),
        ({"unpack": "msgpack"}, "'pack' and 'unpack' differ"),
        ({"ssh": 5}, "'ssh' is not a text"),
        ({"curve_serverkey": []}, "'curve_serverkey' is not a text"),
        ({"mux": 0}, "'mux' is 0, not a port"),
        ({"mux": 65536}, "not a port"),
        ({"task": True}, "'task' is True"),
        ({"broadcast": "x"}, "'broadcast' is 'x'"),
    ],
)
def test_what_is_wrong_with_a_file_is_named(tmp_path: Path, side: str, change: dict[str, Any], complaint: str) -> None:
    client, engine = infos()
    (client if side == "client" else engine).update(change)
    paths = written(tmp_path, client, engine)
    with pytest.raises(ConnectionFileError, match=re.escape(complaint)) as caught:
        read_connection_files(*paths)
    assert str(paths[side == "engine"]) in str(caught.value)
    assert "or remove both, and the hub writes new ones" in str(caught.value)


@pytest.mark.parametrize("ports", [[], [0], 7, [1, "2"]])
def test_engines_have_a_list_of_broadcast_ports(tmp_path: Path, ports: Any) -> None:
    client, engine = infos()
    with pytest.raises(ConnectionFileError, match="not a list of ports"):
        read_connection_files(*written(tmp_path, client, engine | {"broadcast": ports}))


@pytest.mark.parametrize(
    "change", [{"key": "other"}, {"registration": 99}, {"signature_scheme": "hmac-sha512"}, {"curve_serverkey": "k"}]
)
def test_files_that_do_not_belong_together(tmp_path: Path, change: dict[str, Any]) -> None:
    client, engine = infos()
    with pytest.raises(ConnectionFileError, match="differs from the one in"):
        read_connection_files(*written(tmp_path, client, engine | change))
