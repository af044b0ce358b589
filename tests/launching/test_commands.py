"""The command lines of engines, and the shell scripts around them, which are run here with another program."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from trio_hub.launching import commands
from trio_hub.launching.blockfiles import BlockFiles
from trio_hub.launching.commands import Places, block_environment, engine_arguments, engine_program
from trio_hub.launching.processes import find_leader, process_key
from trio_hub.launching.protocol import read_setup, setup

from .support import LIMIT, a_pool


def test_an_engine_of_ours() -> None:
    pool = a_pool(settings={"tags": {"gpu": 2, "memory": "1.5G", "site": "a b"}}, engine_args=("--timeout=60",))
    places = Places(Path("/pools"), Path("/home/lab/profile"), "c")
    assert engine_program(pool) == [sys.executable, *commands.safe_path(), "-m", "trio_hub", "engine"]
    assert engine_arguments(pool, "p-1", places) == [
        *("--block=p-1", "--tag=gpu=2", f"--tag=memory={3 * 2**29}", "--tag=site=a b"),
        *("--profile-dir=/home/lab/profile", "--cluster-id=c", "--timeout=60"),
    ]
    # on a machine with other paths, the launcher tells the engine where its profile is
    assert engine_arguments(pool, "p-1", places, profile=False)[-2:] == ["--tag=site=a b", "--timeout=60"]


def test_a_stock_engine_has_no_tags() -> None:
    pool = a_pool(settings={"tags": {"gpu": 2}}, engine="ipengine", python="/opt/py")
    assert engine_program(pool) == ["/opt/py", "-m", "trio_hub.engine.stock"]
    assert engine_arguments(pool, "p-1", Places(Path("/pools"))) == ["--block=p-1"]


def test_python_does_not_import_from_the_working_directory(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    assert engine_program(a_pool())[1] == "-P"
    monkeypatch.chdir(Path(commands.__file__).parents[2])  # a checkout that is not installed
    assert engine_program(a_pool())[1] == "-m"
    assert "-P" not in engine_program(a_pool(), python="python3")  # of a machine elsewhere


def test_the_variables_of_a_users_commands(tmp_path: Path) -> None:
    pool = a_pool("command", settings={"time_limit": 59.5}, python="/opt/my py")
    found = block_environment(pool, "p-1", 4, Places(tmp_path, tmp_path / "profile", "c"))
    file = f"{tmp_path}/profile/security/ipcontroller-c-engine.json"
    assert found == {
        "TRIO_HUB_POOL": "p",
        "TRIO_HUB_BLOCK": "p-1",
        "TRIO_HUB_ENGINES": "4",
        "TRIO_HUB_ENGINE_COMMAND": f"'/opt/my py' -m trio_hub engine --block=p-1 --file={file}",
        "TRIO_HUB_CONNECTION_FILE": file,
        "TRIO_HUB_TIME_LIMIT": "60",
    }
    assert block_environment(a_pool("command"), "p-1", 4, Places(tmp_path))["TRIO_HUB_CONNECTION_FILE"] == ""


def run(pool: Any, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*engine_program(pool), *arguments], capture_output=True, text=True, timeout=LIMIT, check=False
    )


def test_commands_around_an_engine_keep_its_arguments_and_its_exit_status(tmp_path: Path) -> None:
    # a program that stands for Python
    program = tmp_path / "my python"
    program.write_text('#!/bin/sh\nprintf "%s|" "$LOADED" "$@"; echo; exit 3\n')
    program.chmod(0o755)
    start, stop = 'LOADED="it\'s there"; export LOADED', 'echo "ended with $status"'
    arguments = ["--tag=site=a b", "--tag=odd=$HOME'\"%s"]
    said = "|".join(["-m", "trio_hub", "engine", *arguments, ""])
    wrapped: dict[str, Any] = {"python": str(program), "wrap_command": "env X='a b'"}
    done = run(a_pool(**wrapped, start_command=start), *arguments)
    assert (done.stdout, done.stderr, done.returncode) == (f"it's there|{said}\n", "", 3)
    done = run(a_pool(**wrapped, start_command=start, stop_command=stop), *arguments)
    assert (done.stdout, done.stderr, done.returncode) == (f"it's there|{said}\nended with 3\n", "", 3)
    done = run(a_pool(**wrapped, stop_command=stop), *arguments)
    assert done.stdout == f"|{said}\nended with 3\n"


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGHUP])
def test_a_signal_reaches_an_engine_that_a_command_follows(tmp_path: Path, signum: signal.Signals) -> None:
    script = tmp_path / "program.py"
    # what an engine does: it sets handlers, also for SIGINT, which a shell has its background processes ignore
    script.write_text(
        "import signal, sys, time\nfor number in map(int, sys.argv[1].split()):\n"
        "    signal.signal(number, lambda signum, frame: sys.exit(signum))\n"
        "print('ready', flush=True)\n"
        # not signal.pause(), which misses a signal that comes just before it
        "while True:\n    time.sleep(0.05)\n"
    )
    numbers = " ".join(str(int(number)) for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGHUP))
    wrap = shlex.join([sys.executable, str(script), numbers])
    command = engine_program(a_pool(wrap_command=wrap, stop_command="echo stopped"))
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        process.send_signal(signum)
        assert process.stdout.read() == "stopped\n"
        assert process.wait(LIMIT) == signum


def test_a_signal_that_comes_while_the_engine_is_being_started_is_passed_on(tmp_path: Path) -> None:
    # the shell that is to say that its process has no traps of another shell any more, but does not say it
    (tmp_path / "sh").write_text("#!/bin/sh\necho being started\nexec sleep 3600\n")
    (tmp_path / "sh").chmod(0o755)
    _, *arguments = engine_program(a_pool(stop_command="echo stopped"))
    environment = os.environ | {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
    with subprocess.Popen(
        ["/bin/sh", *arguments], env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "being started\n"
        process.send_signal(signal.SIGTERM)
        assert process.stdout.read() == "stopped\n"
        assert process.wait(LIMIT) == 128 + signal.SIGTERM


def test_what_an_agent_is_told_is_what_the_hub_has(tmp_path: Path) -> None:
    pool = a_pool(
        "mpi",
        settings={"tags": {"gpu": 1, "site": "a"}, "time_limit": 60.0},
        traits={"mpi_args": ["--oversubscribe"]},
        engine_args=("--timeout=60",),
        keep=True,
    )
    for places in (Places(tmp_path, tmp_path / "profile", "c"), Places(tmp_path, connection_file=tmp_path / "file")):
        assert read_setup(setup(pool, places)) == (pool, places)


def test_files_of_blocks(tmp_path: Path) -> None:
    files = BlockFiles(tmp_path / "pools")
    assert files.blocks() == []
    files.write("p-1", {"job": "1"})
    assert files.blocks() == ["p-1"]
    assert files.read("p-1") == {"job": "1"}
    assert (tmp_path / "pools" / "p-1" / "job.json").stat().st_mode & 0o777 == 0o600
    (tmp_path / "pools" / "p-1" / "job.json").write_text("[")
    assert files.read("p-1") is None
    files.remove("p-1")
    files.remove("p-1")
    assert files.blocks() == []
    for name in ("", ".", "..", "a/b", "../a", "a\0"):
        with pytest.raises(ValueError, match="cannot be the name of a block"):
            files.path(name)
        assert files.read(name) is None
        files.remove(name)


def test_a_process_is_told_from_a_later_one_with_its_id() -> None:
    command = ["sh", "-c", "echo ready; read word", "--block=p-7"]
    with subprocess.Popen(command, start_new_session=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        key = process_key(process.pid)
        assert key is not None
        assert process_key(process.pid) == key
        assert process_key(os.getpid()) != key
        assert find_leader("--block=p-7") == process.pid
        assert find_leader("--block=p-8") is None
    assert process_key(process.pid) is None
    assert find_leader("--block=p-7") is None
