"""The commands with each task database."""

from __future__ import annotations

import json
import signal
import socket
import sqlite3
import tomllib
from contextlib import closing
from pathlib import Path

import pytest

from trio_hub.databases.sqlite.database import open_sqlite

from .process import command, run


def test_a_hub_keeps_its_records_in_its_profile(tmp_path: Path) -> None:
    with command("serve", f"--profile-dir={tmp_path}", "--cluster-id=two", "--keep=30d") as hub:
        hub.wait_line("stdout", "^trio-hub ready: ")
        assert (tmp_path / "db" / "tasks-two.sqlite").stat().st_mode & 0o777 == 0o600
        hub.signal(signal.SIGTERM)
        assert hub.wait() == 0
    with closing(sqlite3.connect(tmp_path / "db" / "tasks-two.sqlite")) as file:
        assert file.execute("PRAGMA quick_check").fetchall() == [("ok",)]


def test_a_hub_in_ipcontrollers_place_keeps_them_in_memory(tmp_path: Path) -> None:
    with command("ipcontroller", f"--profile-dir={tmp_path}") as hub:
        hub.wait_line("stdout", "^trio-hub ready: ")
        assert not (tmp_path / "db").exists()
        hub.signal(signal.SIGTERM)
        assert hub.wait() == 0


# Unusable databases


def assert_refused(tmp_path: Path, *arguments: str, message: str, name: str = "serve") -> None:
    """Check that the command ends with the code for bad settings and one message, and leaves nothing behind."""
    code, out, err = run(name, f"--profile-dir={tmp_path / 'profile'}", *arguments)
    assert code == 2
    assert not out
    (line,) = (line for line in err.splitlines() if " CRITICAL " in line or " ERROR " in line)
    assert message in line
    assert "Traceback" not in err
    assert list((tmp_path / "profile").rglob("ipcontroller*.json")) == []


def made_by_a_hub(path: Path) -> Path:
    open_sqlite(path).close()
    return path


def test_a_damaged_file_is_refused(tmp_path: Path) -> None:
    path = made_by_a_hub(tmp_path / "tasks.sqlite")
    content = bytearray(path.read_bytes())
    content[8192:] = b"\xff" * len(content[8192:])
    path.write_bytes(content)
    assert_refused(tmp_path, f"--db=sqlite:///{path}", message=f"db: {path}: ")
    assert path.read_bytes() == content
    path.write_bytes(content[:10_000])
    assert_refused(
        tmp_path, f"--db=sqlite:///{path}", message="the file is shorter than it should be, so it is damaged"
    )


def test_a_file_of_another_program_is_refused_and_left_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "tasks.db"
    with closing(sqlite3.connect(path)) as theirs:
        theirs.execute("CREATE TABLE 'ipython-tasks' (msg_id text PRIMARY KEY)")
    before = path.read_bytes()
    message = f"db: {path}: the SQLite database of another program; name another file"
    assert_refused(tmp_path, f"--db=sqlite:///{path}", message=message)
    assert path.read_bytes() == before
    path = path.rename(tmp_path / "mine.db")
    assert_refused(
        tmp_path, "--sqlitedb", f"--SQLiteDB.filename={path}", message=f"db: {path}: the SQLite", name="ipcontroller"
    )
    assert path.read_bytes() == before


def test_what_is_no_database_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "tasks.sqlite"
    path.write_text("Dear diary")
    assert_refused(tmp_path, f"--db=sqlite:///{path}", message=f"db: {path}: not an SQLite database; name another file")
    assert path.read_text() == "Dear diary"


def test_the_file_of_another_hub_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "tasks.sqlite"
    with command("serve", f"--profile-dir={tmp_path / 'other'}", f"--db=sqlite:///{path}") as hub:
        hub.wait_line("stdout", "^trio-hub ready: ")
        assert_refused(tmp_path, f"--db=sqlite:///{path}", message=f"db: {path}: another hub keeps its records in this")
        hub.signal(signal.SIGTERM)
        assert hub.wait() == 0


def test_a_server_that_is_away_is_told_without_the_password(tmp_path: Path) -> None:
    pytest.importorskip("psycopg")
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]  # after the block, nobody listens on this port
    url = f"postgresql://me:sesame@127.0.0.1:{port}/records"
    message = f"db: the database postgresql://me@127.0.0.1:{port}/records cannot be opened: "
    assert_refused(tmp_path, f"--db={url}", message=message)
    _, _, err = run("serve", f"--profile-dir={tmp_path / 'profile'}", f"--db={url}", "--log-level=debug")
    assert "sesame" not in err


# trio-hub config show


@pytest.mark.parametrize(
    ("arguments", "database"),
    [
        ([], "sqlite:///{profile}/db/tasks.sqlite"),
        (["--cluster-id=two"], "sqlite:///{profile}/db/tasks-two.sqlite"),
        (["--db=memory"], "memory"),
        (["--ipcontroller"], "memory"),
        (["--ipcontroller", "--sqlitedb"], "sqlite:///{profile}/db/tasks.sqlite"),
        (["--ipcontroller", "--sqlitedb", "--SQLiteDB.filename=x.db"], "sqlite:///{profile}/x.db"),
    ],
)
def test_the_database_is_shown_as_it_will_be(tmp_path: Path, arguments: list[str], database: str) -> None:
    code, out, err = run("config", "show", *arguments, env={"IPYTHONDIR": str(tmp_path)})
    assert (code, err) == (0, "")
    assert tomllib.loads(out)["db"] == database.format(profile=tmp_path / "profile_default")
    assert list(tmp_path.iterdir()) == []


def test_how_long_records_are_kept_has_a_short_option(tmp_path: Path) -> None:
    code, out, _ = run("config", "show", "--keep", "30d", env={"IPYTHONDIR": str(tmp_path)})
    assert code == 0
    assert "db_keep = 2592000.0  # --db-keep" in out.splitlines()


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("postgresql://me:sesame@h/d", "postgresql://me:***@h/d"),
        ("postgresql:///d?user=me&password=sesame", "postgresql:///d?user=me&password=***"),
    ],
)
def test_passwords_are_not_shown(tmp_path: Path, url: str, shown: str) -> None:
    env = {"IPYTHONDIR": str(tmp_path), "TRIO_HUB_DB": url}
    code, out, _ = run("config", "show", env=env)
    assert code == 0
    assert f"# db is {shown}  # TRIO_HUB_DB" in out.splitlines()
    _, as_json, _ = run("ipcontroller", "--show-config-json", env=env)
    assert json.loads(as_json)["db"] == {"value": shown, "from": "TRIO_HUB_DB"}
    assert "sesame" not in out + as_json
    _, _, err = run("config", "show", env=env | {"TRIO_HUB_DB": url.replace("postgresql", "mysql")})
    assert "TRIO_HUB_DB is 'mysql://" in err
    assert "sesame" not in err
