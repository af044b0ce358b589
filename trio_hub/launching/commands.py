"""The command line of an engine that belongs to a block. Nothing here starts a process."""

from __future__ import annotations

import math
import shlex
import sys
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from ..config.connectionfiles import connection_paths
from ..config.pools import STOCK_ENGINE, Pool

__all__ = ["Places", "block_environment", "engine_arguments", "engine_program", "job_name", "safe_path"]

_WITH_STOP = """\
started= early=
pass_on() { early="$early $1"; [ -z "$started" ] || send; }
send() { signals=$early; early=; for signal in $signals; do kill -s "$signal" "$!"; done; }
trap "pass_on HUP" HUP
trap "pass_on INT" INT
trap "pass_on TERM" TERM
trap "pass_on USR1" USR1
trap "started=yes; send" USR2
sh -c 'kill -s USR2 "$0"; exec "$@"' $$ %(command)s "$@" &
engine=$!
while :; do
    if [ "$early" ]; then sleep 1; send; fi
    wait "$engine"
    status=$?
    kill -0 "$engine" 2>/dev/null || break
done
wait "$engine"
last=$?
[ "$last" = 127 ] || status=$last
trap "" HUP INT TERM USR1
%(stop)s
exit "$status\""""
"""A shell script that runs an engine, passes signals on to the engine, and runs a command after it has ended.

A process that a shell has just started still has the traps of the shell, and loses a signal that comes then. So the
process runs another shell first, which has no traps and says so with SIGUSR2. Signals that came before are passed on
then, or a second later, since bash may miss one of two signals that come at the same time.

A signal interrupts ``wait``. If the engine ends at the same moment, its exit status is that of the last ``wait``.
Otherwise the last ``wait`` finds no such process, and returns 127.
"""


@dataclass(frozen=True, slots=True)
class Places:
    """Where the blocks of a pool find their hub, and where the facts about them are kept.

    - ``directory``: each block has a directory in it, with the facts about its job and its batch script;
    - ``profile_dir``: the hub's profile directory, whose connection file the engines read; None: there is none;
    - ``cluster_id``: the hub's cluster id; may be empty;
    - ``connection_file``: the connection file for engines of a hub that has no profile directory.
    """

    directory: Path
    profile_dir: Path | None = None
    cluster_id: str = ""
    connection_file: Path | None = None

    def connection_path(self) -> str:
        """Return the path of the connection file for engines; empty if there is none."""
        if self.connection_file is not None:
            return str(self.connection_file)
        if self.profile_dir is None:
            return ""
        return str(connection_paths(self.profile_dir, self.cluster_id)[1])


def job_name(block: str) -> str:
    """Return the name that the job of a block has in the batch system."""
    return f"trio-hub-{block}"


def engine_program(pool: Pool, *, python: str = "") -> list[str]:
    """Return the program that runs an engine of the pool, without the arguments of `engine_arguments`.

    ``wrap_command``, ``start_command`` and ``stop_command`` are included. A program that runs a shell passes all
    further arguments on to the engine.

    Args:
        pool: the pool.
        python: the Python that runs the engine, if the pool does not name one; empty: the Python that runs the hub.
    """
    interpreter = [pool.python or python] if pool.python or python else [sys.executable, *safe_path()]
    module = ["trio_hub.engine.stock"] if pool.engine == STOCK_ENGINE else ["trio_hub", "engine"]
    words = [*shlex.split(pool.wrap_command), *interpreter, "-m", *module]
    if pool.stop_command:
        script = _WITH_STOP % {"command": shlex.join(words), "stop": pool.stop_command}
        return ["sh", "-c", _after(pool.start_command, script), "engine"]
    if pool.start_command:
        return ["sh", "-c", _after(pool.start_command, f'exec {shlex.join(words)} "$@"'), "engine"]
    return words


def _after(start_command: str, script: str) -> str:
    return f"{start_command}\n{script}" if start_command else script


def engine_arguments(pool: Pool, block: str, places: Places, *, profile: bool = True) -> list[str]:
    """Return the arguments of each engine of a block: its block, its tags, and where its hub is.

    Args:
        pool: the pool.
        block: the name of the block.
        places: where the hub is.
        profile: whether the engine sees the hub's files under the same paths. An engine that ssh starts does not; the
            launcher tells it the paths through its environment.
    """
    arguments = [f"--block={block}"]
    if pool.engine != STOCK_ENGINE:
        arguments += [f"--tag={name}={_amount(value)}" for name, value in pool.settings.offers]
    if profile and places.connection_file is not None:
        arguments.append(f"--file={places.connection_file}")
    elif profile and places.profile_dir is not None:
        arguments.append(f"--profile-dir={places.profile_dir}")
        if places.cluster_id:
            arguments.append(f"--cluster-id={places.cluster_id}")
    return [*arguments, *pool.engine_args]


def _amount(value: float | str) -> str:
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value)


def block_environment(pool: Pool, block: str, engines: int, places: Places) -> dict[str, str]:
    """Return the variables that the shell commands of the launcher ``command`` get, without ``TRIO_HUB_JOB``."""
    limit = pool.settings.time_limit
    # no arguments for a profile: the engine may run where the hub's profile is not, with a copy of the connection file
    places = Places(places.directory, connection_file=Path(path) if (path := places.connection_path()) else None)
    return {
        "TRIO_HUB_POOL": pool.name,
        "TRIO_HUB_BLOCK": block,
        "TRIO_HUB_ENGINES": str(engines),
        "TRIO_HUB_ENGINE_COMMAND": shlex.join([*engine_program(pool), *engine_arguments(pool, block, places)]),
        "TRIO_HUB_CONNECTION_FILE": path,
        "TRIO_HUB_TIME_LIMIT": "" if limit is None else str(math.ceil(limit)),
    }


def safe_path() -> list[str]:
    """Return the option by which Python does not import from the working directory.

    Otherwise a user's ``queue.py`` there would keep engines from starting. The option is left out if this package
    itself is in the working directory, as in a checkout where it is not installed.
    """
    package = Path(__file__).parents[1]
    with suppress(OSError):  # the working directory may be gone
        if package.parent == Path.cwd():
            return []
    return ["-P"]
