"""A real Slurm of one node on this machine, with nothing of it outside a temporary directory.

As a program, it runs a command with this Slurm, and ends the Slurm after it::

    python tests/slurm/node.py bash
    python tests/slurm/node.py -- sbatch --wait job.sbatch

The programs are those of Debian's packages ``slurmctld``, ``slurmd``, ``slurm-client`` and ``munge``. They get their
settings, key, socket, ports and state from the temporary directory, so a Slurm that this machine has is not affected.
Any user may run it; jobs run as this user.

The tests use `running`: a process of its own, the supervisor, is the parent of the daemons. It ends them, the jobs and
all processes of the jobs when its standard input ends, so also when the process that started it is killed. This module
needs only the standard library, since the supervisor may run with any Python.
"""

from __future__ import annotations

import argparse
import ctypes
import getpass
import os
import random
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

__all__ = ["CPUS", "free_ports", "missing", "running"]

CPUS = 8
"""As many CPUs as Slurm believes that the node has, so as many engines can run at once."""

LIMIT = 30.0
"""Seconds within which Slurm must have started. It takes one or two."""

SETTINGS = """
ClusterName=tests
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={controller_port}
SlurmdPort={node_port}
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
AuthInfo=socket={directory}/munge.socket
CredType=cred/munge
StateSaveLocation={directory}/state
SlurmdSpoolDir={directory}/spool
SlurmctldPidFile={directory}/slurmctld.pid
SlurmdPidFile={directory}/slurmd.pid
MpiDefault=none
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
ReturnToService=2
# The node has more CPUs than the machine.
SlurmdParameters=config_overrides
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
# By default, Slurm collects jobs for seconds before it decides.
SchedulerParameters=batch_sched_delay=0,sched_interval=1,sched_min_interval=0,bf_interval=1
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
KillWait=5
NodeName=node1 NodeHostname={host} NodeAddr=127.0.0.1 CPUs={cpus} RealMemory=4000
PartitionName=short Nodes=node1 PriorityTier=10 PreemptMode=OFF Default=YES
PartitionName=tiny Nodes=node1 PriorityTier=10 PreemptMode=OFF MaxCPUsPerNode=2
PartitionName=urgent Nodes=node1 PriorityTier=20 PreemptMode=OFF
PartitionName=cheap Nodes=node1 PriorityTier=1 PreemptMode=CANCEL
PartitionName=requeue Nodes=node1 PriorityTier=1 PreemptMode=REQUEUE
"""
"""The file slurm.conf. A job of ``urgent`` preempts those of ``cheap``, which are cancelled, and those of ``requeue``,
which wait again. In ``tiny``, jobs have at most two CPUs together."""

PR_SET_CHILD_SUBREAPER = 36


def program(name: str) -> str | None:
    """Return the path of a program; also of a daemon, which is not on every user's PATH."""
    return shutil.which(name, path=os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/sbin"]))


def missing() -> str:
    """Return why there can be no Slurm on this machine; empty if there can."""
    lacking = [name for name in ("slurmctld", "slurmd", "sbatch", "munged", "setpriv") if program(name) is None]
    if lacking:
        return f"{', '.join(lacking)} not found (Debian: apt-get install slurmctld slurmd slurm-client munge)"
    return ""


def free_ports(number: int) -> list[int]:
    """Return free ports below 32768. The system gives ports from 32768 on to programs that ask for any free port."""
    found: list[int] = []
    for port in random.sample(range(20000, 32000), 12000):
        with socket.socket() as one, suppress(OSError):
            one.bind(("", port))
            found.append(port)
        if len(found) == number:
            return found
    raise RuntimeError("all ports are in use")


class Daemons:
    """munged, slurmctld and slurmd, as children of this process, which adopts the processes that jobs leave."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.settings = directory / "slurm.conf"
        self.environment = {**os.environ, "SLURM_CONF": str(self.settings)}
        self._running: list[subprocess.Popen[bytes]] = []

    def start(self) -> None:
        self.directory.chmod(0o755)  # munged wants its socket to be usable by everybody
        for name in ("state", "spool", "log"):
            (self.directory / name).mkdir()
        controller_port, node_port = free_ports(2)
        self.settings.write_text(
            SETTINGS.format(
                host=socket.gethostname().partition(".")[0],
                user=getpass.getuser(),
                directory=self.directory,
                cpus=CPUS,
                controller_port=controller_port,
                node_port=node_port,
            )
        )
        key = self.directory / "munge.key"
        key.touch(0o600)
        key.write_bytes(secrets.token_bytes(32))
        munge_socket = self.directory / "munge.socket"
        files = {"key-file": key, "socket": munge_socket}
        files |= {f"{name}-file": self.directory / f"munged.{name}" for name in ("pid", "seed")}
        files["log-file"] = self.directory / "log" / "munged.log"
        munged = self._start("munged", "-F", *(f"--{name}={path}" for name, path in files.items()))
        self._wait(munge_socket.exists, munged)
        self._start("slurmctld", "-D", "-i")
        self._start("slurmd", "-D")
        self._wait(self._node_is_idle, *self._running)

    def _start(self, name: str, *arguments: str) -> subprocess.Popen[bytes]:
        path = program(name)
        assert path is not None
        with (self.directory / "log" / f"{name}.output").open("wb") as output:
            started = subprocess.Popen(
                # if this process is killed, so are the daemons
                ["setpriv", "--pdeathsig", "KILL", path, *arguments],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                cwd=self.directory,
                env=self.environment,
                start_new_session=True,  # a Ctrl-C in the terminal is for the command
            )
        self._running.append(started)
        return started

    def _wait(self, condition: Callable[[], bool], *needed: subprocess.Popen[bytes]) -> None:
        deadline = time.monotonic() + LIMIT
        while not condition():
            if time.monotonic() > deadline or any(daemon.poll() is not None for daemon in needed):
                raise RuntimeError(f"Slurm did not start:\n{self.told()}")
            time.sleep(0.05)

    def _node_is_idle(self) -> bool:
        sinfo = ["sinfo", "--noheader", "--format=%T"]
        asked = subprocess.run(sinfo, env=self.environment, capture_output=True, text=True, check=False)
        return asked.stdout.strip() == "idle"

    def told(self) -> str:
        """Return the last lines of what each daemon has printed."""
        outputs = sorted((self.directory / "log").iterdir())
        return "\n".join(f"--- {path.name}\n{path.read_text(errors='replace')[-2000:]}" for path in outputs)

    def stop(self) -> None:
        """End the daemons, then all that is left of the jobs, without asking Slurm, which may not answer."""
        for daemon in reversed(self._running):
            daemon.terminate()
        for daemon in reversed(self._running):
            try:
                daemon.wait(5.0)
            except subprocess.TimeoutExpired:
                daemon.kill()
                daemon.wait()
        while left := children():
            for process in left:
                with suppress(ProcessLookupError):
                    os.kill(process, signal.SIGKILL)
            os.wait()  # its own children, if it had any, are ours now


def children() -> list[int]:
    """Return the processes whose parent is this one."""
    return [int(pid) for pid in Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()]


def supervise(command: Sequence[str], folder: Path | None) -> int:
    """Run a command with a Slurm. Without a command, print the Slurm's directory, and wait for the end of the input."""

    def stop(*_: object) -> None:
        raise SystemExit(1)

    for signum in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(signum, stop)
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    directory = Path(tempfile.mkdtemp(prefix="slurm-", dir="/tmp"))
    daemons = Daemons(directory)
    made = folder is not None and not folder.exists()
    try:
        if folder is not None and made:
            folder.mkdir()
        try:
            daemons.start()
        except RuntimeError as error:
            print(error, file=sys.stderr)
            return 1
        if not command:
            print(directory, flush=True)
            with suppress(KeyboardInterrupt):
                sys.stdin.read()
            return 0
        signal.signal(signal.SIGINT, lambda *_: None)  # the command decides; it does not inherit a handler
        with subprocess.Popen(command, env=daemons.environment) as ran:
            try:
                return ran.wait()
            finally:
                ran.terminate()
    finally:
        for signum in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
            signal.signal(signum, signal.SIG_IGN)
        daemons.stop()
        shutil.rmtree(directory)
        if folder is not None and made:
            shutil.rmtree(folder)


@contextmanager
def running(environment: Mapping[str, str] | None = None) -> Iterator[Path]:
    """Have a supervisor run a Slurm during the block. Give its directory, in which ``slurm.conf`` is.

    Raises:
        RuntimeError: Slurm did not start. The text is what its daemons have printed.
    """
    with subprocess.Popen(
        [sys.executable, __file__],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
        start_new_session=True,  # signals to the tests, such as Ctrl-C, must not reach it
    ) as supervisor:
        assert supervisor.stdin is not None
        assert supervisor.stdout is not None
        assert supervisor.stderr is not None
        ready = supervisor.stdout.readline().strip()
        if not ready:
            raise RuntimeError(supervisor.stderr.read())
        try:
            yield Path(ready)
        finally:
            supervisor.stdin.close()


def main() -> int:
    parser = argparse.ArgumentParser(description="Run a command with a real Slurm of one node.")
    parser.add_argument("--folder", type=Path, help="a folder that exists while Slurm runs, such as /data")
    parser.add_argument("command", nargs=argparse.REMAINDER, help="by default, wait for the end of the input")
    options = parser.parse_args()
    command = options.command[1:] if options.command[:1] == ["--"] else options.command
    lacking = missing()
    if lacking:
        print(lacking, file=sys.stderr)
        return 1
    return supervise(command, options.folder)


if __name__ == "__main__":
    sys.exit(main())
