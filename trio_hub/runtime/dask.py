"""The hub's Dask scheduler: a process that the hub starts when a client asks for it, and ends when the hub stops."""

from __future__ import annotations

import importlib.util
import json
import shutil
import subprocess
import sys
import tempfile
from collections import Counter, deque
from typing import Any
from urllib.parse import urlsplit

import trio

from ..config import HubConfig
from ..errors import HubError
from ..logs import get_logger
from ..services import Failures, failed

__all__ = ["DaskError", "DaskSupervisor", "scheduler_options"]

log = get_logger("trio_hub.runtime")

START_TIMEOUT = 60.0
"""Seconds within which a scheduler must be ready. It needs 2 s, and far more on a slow network file system."""
LOOK_AGAIN = 0.05
"""Seconds between two checks for the file that a scheduler writes when it is ready."""
LAST_LINES = 50
"""The number of lines of its output that are kept: enough for a traceback and the traceback of its cause."""
LONGEST_LINE = 1000
LAST_WORDS = 1.0
"""Seconds for which the hub still reads the output of a process that has ended."""

# Dask's own command, with one addition: the process also ends when the hub is killed. Its standard input is a pipe to
# which the hub writes nothing. The pipe is closed when the hub has ended.
PROGRAM = """
import os, signal, threading

def end_with_the_hub():
    os.read(0, 1)
    os.kill(os.getpid(), signal.SIGTERM)

threading.Thread(target=end_with_the_hub, daemon=True).start()
from distributed.cli.dask_scheduler import main
main()
"""

# A client's scheduler_args: the option of Dask's command, and the types that JSON may give it.
_OPTIONS: dict[str, tuple[str, tuple[type, ...]]] = {
    "host": ("--host", (str,)),
    "ip": ("--host", (str,)),
    "port": ("--port", (int,)),
    "interface": ("--interface", (str,)),
    "protocol": ("--protocol", (str,)),
    "dashboard": ("", (bool,)),
    "dashboard_address": ("--dashboard-address", (str, int)),
    "http_prefix": ("--dashboard-prefix", (str,)),
    "idle_timeout": ("--idle-timeout", (str, int, float)),
}
_EVERYWHERE = ("*", "0.0.0.0", "[::]")


class DaskError(HubError):
    """There is no Dask scheduler. The text says why."""


def scheduler_options(scheduler_args: dict[str, Any], config: HubConfig) -> list[str]:
    """Return the options of ``dask scheduler`` for a client's ``scheduler_args``.

    By default, the scheduler listens at the hub's address, on a port that the system chooses, without a dashboard.

    Raises:
        TypeError, ValueError: an argument is unknown, or its value cannot be used. The message names the argument.
    """
    args = {name: value for name, value in scheduler_args.items() if value is not None}
    for name, value in args.items():
        if name not in _OPTIONS:
            raise TypeError(f"scheduler_args: {name!r} is unknown; known are {', '.join(_OPTIONS)}")
        types = _OPTIONS[name][1]
        if type(value) not in types:
            wanted = " or ".join(kind.__name__ for kind in types)
            raise TypeError(f"scheduler_args: {name} must be of type {wanted}, not {str(value)[:100]!r}")
    if not 0 <= args.setdefault("port", 0) < 2**16:
        raise ValueError(f"scheduler_args: port must be from 0 to 65535, not {args['port']}")
    if len(args.keys() & {"host", "ip", "interface"}) > 1:
        raise ValueError("scheduler_args: give one of host, ip and interface")
    address = config.client_address
    here = address if address == config.engine_address and address not in _EVERYWHERE else ""
    if not args.keys() & {"host", "ip", "interface"}:
        args["host"] = here
    if args.pop("dashboard", "dashboard_address" in args):
        args.setdefault("dashboard_address", f"{here}:8787")
        options = ["--dashboard"]
    else:  # Dask still starts a web server: let it listen locally, on any free port
        args["dashboard_address"] = "127.0.0.1:0"
        options = ["--no-dashboard"]
    # name and value in one argument, so that no value can be taken for an option
    return options + [f"{_OPTIONS[name][0]}={value}" for name, value in args.items()]


class DaskSupervisor:
    """Starts, supervises and ends the Dask scheduler. There is at most one.

    Args:
        nursery: runs the task of the scheduler. When it is cancelled, the scheduler is ended.
        config: the hub's addresses; ``stop_grace`` is the time in seconds between SIGTERM and SIGKILL.
        hurried: when this event is set, there is no grace.
        start_timeout: seconds within which the scheduler must be ready.
        failures: counts unexpected errors of the supervisor.
    """

    def __init__(
        self,
        nursery: trio.Nursery,
        config: HubConfig,
        hurried: trio.Event,
        *,
        start_timeout: float = START_TIMEOUT,
        failures: Failures | None = None,
    ) -> None:
        self.failures: Failures = Counter() if failures is None else failures
        self.nursery = nursery
        self.config = config
        self.hurried = hurried
        self.start_timeout = start_timeout
        self._current: _Scheduler | None = None

    async def start(self, scheduler_args: dict[str, Any]) -> dict[str, Any]:
        """Return the ``address``, ``ip`` and ``port`` of the running scheduler, or of a new one once it is ready.

        Raises:
            DaskError: the scheduler could not be started, or was not ready in time. The text ends with its last output.
            TypeError, ValueError: see `scheduler_options`.
        """
        options = scheduler_options(scheduler_args, self.config)
        while self._current is not None and (self._current.dying or self._current.scope.cancel_called):
            await self._current.ended.wait()
        if self._current is None:
            if importlib.util.find_spec("distributed") is None:
                raise DaskError(
                    "Dask is not installed where the hub runs. Install it there, and on the engines and clients, for "
                    f"instance with: {sys.executable} -m pip install distributed"
                )
            self._current = _Scheduler()
            self.nursery.start_soon(self._live, self._current, options, name="Dask scheduler")
        scheduler = self._current
        await scheduler.settled.wait()
        if scheduler.address is None:
            raise DaskError(scheduler.story(scheduler.failure))
        return scheduler.address

    async def stop(self) -> None:
        """End the scheduler, if one runs, and wait until it has ended."""
        scheduler = self._current
        if scheduler is not None:
            scheduler.fail("was stopped before it was ready")
            scheduler.scope.cancel()
            await scheduler.ended.wait()

    async def _live(self, scheduler: _Scheduler, options: list[str]) -> None:
        """Run a scheduler from its start to its end. Set its events, on which others wait."""
        try:
            # A private directory: no other user may write the address to which clients send their work.
            with (
                scheduler.scope,
                tempfile.TemporaryDirectory(prefix="trio-hub-dask-", ignore_cleanup_errors=True) as directory,
            ):
                await self._run(scheduler, options, trio.Path(directory, "scheduler.json"))
            if scheduler.address is not None and scheduler.scope.cancelled_caught:
                log.info("the Dask scheduler has been stopped", address=scheduler.address["address"])
        except OSError as error:
            scheduler.fail(f"cannot be run: {error}")
        except Exception as error:  # a client that asks again gets a new one
            scheduler.fail(f"failed: {type(error).__name__}: {error}")
            failed("Dask scheduler", error, self.failures)
        finally:
            scheduler.fail("was not ready when the hub stopped")
            self._current = None
            scheduler.settled.set()
            scheduler.ended.set()

    async def _run(self, scheduler: _Scheduler, options: list[str], file: trio.Path) -> None:
        """Run the process until it ends. If cancelled, end the process first."""
        # The process has a session of its own: a Ctrl-C in the terminal reaches only the hub.
        process = await trio.lowlevel.open_process(
            [sys.executable, "-c", PROGRAM, f"--scheduler-file={file}", *options],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._await_ready, scheduler, file)
                nursery.start_soon(scheduler.listen, process.stdout)
                status = await process.wait()
                scheduler.dying = True
                with trio.move_on_after(LAST_WORDS):
                    await scheduler.output_ended.wait()
                self._note_end(scheduler, status)
                nursery.cancel_scope.cancel()
        finally:
            with trio.CancelScope(shield=True):
                if process.returncode is None:
                    await self._end(scheduler, process)
                await process.stdin.aclose()
                await process.stdout.aclose()

    async def _await_ready(self, scheduler: _Scheduler, file: trio.Path) -> None:
        """Wait for the file that Dask writes once its scheduler listens."""
        with trio.move_on_after(self.start_timeout):
            while True:
                try:
                    scheduler.address = _address_in(await file.read_text(errors="replace"))
                    break
                except (OSError, json.JSONDecodeError):  # the file is missing or incomplete
                    await trio.sleep(LOOK_AGAIN)
                except DaskError as error:
                    scheduler.fail(str(error))
                    break
        if scheduler.address is None:
            scheduler.fail(f"was not ready within {self.start_timeout:g} seconds")
            scheduler.scope.cancel()
            return
        shutil.rmtree(file.parent, ignore_errors=True)  # now, so that it does not stay behind if the hub is killed
        log.info("a Dask scheduler is listening", address=scheduler.address["address"])
        scheduler.settled.set()

    def _note_end(self, scheduler: _Scheduler, status: int) -> None:
        how = f"exit code {status}" if status >= 0 else f"signal {-status}"
        if scheduler.address is None:
            scheduler.fail(f"ended before it was ready ({how})")
        elif status == 0:
            log.info("the Dask scheduler has ended by itself", address=scheduler.address["address"])
        else:
            log.warning(
                "the Dask scheduler died", address=scheduler.address["address"], status=how, said=scheduler.last_words
            )

    async def _end(self, scheduler: _Scheduler, process: trio.Process) -> None:
        assert process.stdout is not None
        process.terminate()
        with trio.move_on_after(self.config.stop_grace) as grace:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(_cancel_when, self.hurried, grace)
                nursery.start_soon(scheduler.listen, process.stdout)  # a full pipe would keep the process from ending
                await process.wait()
                nursery.cancel_scope.cancel()
        if process.returncode is None:
            log.warning("the Dask scheduler did not end after SIGTERM, and is killed")
            process.kill()
            await process.wait()


class _Scheduler:
    """The state of a scheduler's process."""

    def __init__(self) -> None:
        self.address: dict[str, Any] | None = None
        """The address of the scheduler, in several forms; None until the scheduler is ready."""
        self.failure = ""
        """Why the scheduler is not ready; empty if it is ready, or may become ready."""
        self.scope = trio.CancelScope()
        self.dying = False
        """Whether the process of the scheduler has ended."""
        self.settled = trio.Event()
        """Set when the scheduler is ready, or will never be ready."""
        self.output_ended = trio.Event()
        self.ended = trio.Event()
        self._output: deque[str] = deque(maxlen=LAST_LINES)

    def fail(self, why: str) -> None:
        """Note why the scheduler is not ready. Only the first reason counts."""
        self.failure = self.failure or why

    def story(self, what: str) -> str:
        said = self.last_words
        return f"the Dask scheduler {what}" + (f"; it said last:\n{said}" if said else "")

    @property
    def last_words(self) -> str:
        return "\n".join(self._output)

    async def listen(self, stream: trio.abc.ReceiveStream) -> None:
        """Read and log the output of the process until its end. Keep the last lines."""
        rest = b""
        async for chunk in stream:
            *lines, rest = (rest + chunk).split(b"\n")
            if len(rest) > LONGEST_LINE:
                lines, rest = [*lines, rest], b""
            self._hear(lines)
        self._hear([rest])
        self.output_ended.set()

    def _hear(self, lines: list[bytes]) -> None:
        for line in lines:
            if text := line[:LONGEST_LINE].decode(errors="replace").rstrip():
                log.info("output of the Dask scheduler", said=text)
                self._output.append(text)


def _address_in(identity: str) -> dict[str, Any]:
    """Return the address for clients, from the file that a scheduler has written."""
    found = json.loads(identity)
    address = found.get("address") if isinstance(found, dict) else None
    try:
        parts = urlsplit(address if isinstance(address, str) else "")
        ip, port = parts.hostname, parts.port
    except ValueError:
        ip = port = None
    if not ip or not port:
        raise DaskError(f"has no address that others can use: {str(address)[:100]!r}")
    return {"address": address, "ip": ip, "port": port}


async def _cancel_when(event: trio.Event, scope: trio.CancelScope) -> None:
    await event.wait()
    scope.cancel()
