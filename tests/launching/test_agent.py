"""The process of the launching agent: what it reads and writes, and when it ends."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from trio_hub.launching.commands import Places
from trio_hub.launching.protocol import line, setup

from .support import LIMIT, a_pool


def run(tmp_path: Path, *requests: dict[str, Any], **pool: Any) -> tuple[list[dict[str, Any]], str, int]:
    """Return the answers of an agent to some requests, its log, and its exit status."""
    messages = [setup(a_pool("command", **pool), Places(tmp_path / "pools")), *requests]
    done = subprocess.run(
        [sys.executable, "-m", "trio_hub.launching.agent"],
        input=b"".join(map(line, messages)),
        capture_output=True,
        timeout=LIMIT,
        check=False,
    )
    return [json.loads(text) for text in done.stdout.splitlines()], done.stderr.decode(), done.returncode


def test_it_answers_in_order_and_ends_with_its_input(tmp_path: Path) -> None:
    answers, said, status = run(
        tmp_path,
        {"id": 1, "do": "submit", "block": "p-1", "engines": 2},
        {"id": 2, "do": "dance"},
        {"id": 3, "do": "submit", "block": "../p", "engines": 2},
        {"id": 4, "do": "submit", "block": "p-2"},
        {"id": 5, "do": "check"},
        submit_command="cat; echo noise >&2; echo 17",  # the command must not read the requests
    )
    job = {"launcher": "command", "job": "17", "engines": 2, "submitted": True}
    assert answers == [
        {"id": 1, "answer": job},
        {"id": 2, "error": "the launching agent cannot dance"},
        {"id": 3, "error": "ValueError: '../p' cannot be the name of a block"},
        {"id": 4, "error": "KeyError: 'engines'"},
        {"id": 5, "answer": None},
    ]
    assert status == 0
    assert said.count("a launcher has failed") == 2
    assert not (tmp_path / "p").exists()


def test_without_requests_it_ends(tmp_path: Path) -> None:
    assert run(tmp_path, submit_command="true") == ([], "", 0)


def test_one_that_was_told_nothing_ends() -> None:
    done = subprocess.run([sys.executable, "-m", "trio_hub.launching.agent"], stdin=subprocess.DEVNULL, timeout=LIMIT)
    assert done.returncode == 0
