"""The engine's process: the main thread with user code, and the thread that owns the sockets."""

from __future__ import annotations

import faulthandler
import os
import secrets
import signal
import sys
import threading
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any, NoReturn, TextIO

import trio

from ..errors import HubError
from ..logs import get_logger
from ..memory import keep_freed
from ..wire.packers import packer_named
from .address import HubAddress, profile_directory, read_address, wait_for_file
from .draining import Signals
from .engine import Engine
from .jobs import Jobs
from .laststate import write_state
from .logs import set_up_logs
from .options import BLOCK, EngineOptions
from .output import OutputStream, Printed, Redirection
from .turns import InterruptedTurn, ShellReader, Turn
from .worker import Worker, catch_signals, signal_main_thread

__all__ = ["run_engine"]

log = get_logger("trio_hub.engine")

OK, FAILED, NOT_REGISTERED = 0, 1, 255
"""Exit codes, as of ipengine."""
ENDS_WITHIN = 2.0
"""Seconds that the process has to end after the engine has unregistered, since user code may never return."""
SOCKETS_END_WITHIN = 5.0
"""Seconds that the thread of the sockets has to send the remaining messages and to end."""


class _Sockets:
    """The thread of the sockets, and how other threads reach it."""

    def __init__(self) -> None:
        self.printed = Printed(self.on_printed)
        self.turn = Turn(self.printed)
        self.token: trio.lowlevel.TrioToken | None = None
        self.engine: Engine | None = None
        self.scope = trio.CancelScope()
        """The scope of the time before there is an engine."""
        self.status = OK
        self.ready = threading.Event()
        """Set when the engine has registered for the first time, or has ended."""
        self.signals = Signals()

    def soon(self, call: Callable[[], None]) -> None:
        """Make a call in the thread of the sockets; do nothing if that thread has ended. For any thread."""
        if self.token is not None:
            with suppress(trio.RunFinishedError):
                self.token.run_sync_soon(call, idempotent=True)

    def deliver(self) -> None:
        """Send the answers of all finished jobs. For a thread that has the turn."""
        if self.engine is not None:
            self.engine.dispatcher.deliver()

    def on_printed(self) -> None:
        if self.engine is not None:
            self.soon(self.engine.dispatcher.on_printed)

    def stop(self, reason: str) -> None:
        """End the engine. For any thread, and for signal handlers."""

        def end() -> None:
            if self.engine is not None:
                self.engine.stop(reason)
            else:
                self.scope.cancel()

        self.soon(end)

    def drain(self, signum: int) -> bool:
        """Drain the engine after SIGTERM or SIGUSR1. Return False if it is to end at once. For signal handlers."""
        engine, reason = self.engine, _reason(signum)
        at_once = signum == signal.SIGTERM and self.signals.ends_at_once(time.monotonic())
        if at_once or engine is None or not engine.can_drain:
            return False
        draining = engine.draining
        self.soon(partial(draining.within_grace if signum == signal.SIGTERM else draining.begin, reason))
        return True

    def stop_work(self) -> None:
        """Stop the user code that runs in the main thread. For the thread of the sockets."""
        self.signals.at_once = True
        signal_main_thread(signal.SIGTERM)


def _reason(signum: int) -> str:
    return f"it received signal {signum}"


def run_engine(options: EngineOptions, to_nanny: int | None = None, lifeline: int | None = None) -> NoReturn:
    """Run an engine, and end the process.

    Args:
        options: the engine's options.
        to_nanny: a descriptor to which the engine writes its state, if it has a nanny.
        lifeline: a descriptor that is at its end of file when the nanny has died.
    """
    keep_freed()
    os.environ.pop(BLOCK, None)  # engines that user code starts are not of this block
    _close_input()
    faulthandler.enable(os.dup(2))
    redirection = Redirection()
    log_stream = set_up_logs(options, redirection.log)
    _name_config_files(options)
    if options.unused:
        log.warning("some options of ipengine do not apply here, and are ignored", what=" ".join(options.unused))
    sockets = _Sockets()
    printed, reader = sockets.printed, ShellReader(sockets.turn)
    jobs = Jobs(sockets.turn, reader, sockets.deliver)
    uuid = _new_uuid()
    worker = Worker(uuid, jobs, printed, packer_named("json"), partial(_kernel, options))
    catch_signals(worker, lambda signum: sockets.stop(_reason(signum)), sockets.drain)
    thread = threading.Thread(
        target=_run_sockets,
        args=(sockets, options, uuid, jobs, reader, redirection, worker, log_stream, to_nanny, lifeline),
        name="sockets",
        daemon=True,
    )
    if options.work_dir:
        os.chdir(options.work_dir)
    sys.path.insert(0, "")
    os.environ.setdefault("PYDEVD_DISABLE_FILE_VALIDATION", "1")
    if options.mpi:
        _rank(options)
    worker.prepare_namespace()
    sys.stdout = OutputStream("stdout", printed, 1)
    sys.stderr = OutputStream("stderr", printed, 2)
    thread.start()
    sockets.ready.wait()
    if worker.engine_id >= 0:
        _start_up(options, worker)
        try:
            worker.run()
        except InterruptedTurn:
            with suppress(Exception):  # user code may have closed the log
                log.critical("the engine has failed", exc_info=True)
            os._exit(FAILED)  # without unregistering: the nanny tells the hub
    _end(sockets, printed, redirection, thread)


def _close_input() -> None:
    """Give this process and its children an empty input, so that user code that reads stdin never waits.

    Nobody answers an engine at a terminal: its nanny has the terminal, and the terminal stops other readers.
    """
    empty = os.open(os.devnull, os.O_RDONLY)
    if empty == 0:  # the process was started without an input
        os.set_inheritable(0, True)
    else:
        os.dup2(empty, 0)
        os.close(empty)
    if sys.stdin is None:
        sys.stdin = open(0, encoding="utf-8", closefd=False)  # noqa: SIM115


def _end(sockets: _Sockets, printed: Printed, redirection: Redirection, thread: threading.Thread) -> NoReturn:
    """End the process, as Python does, but in bounded time."""
    thread.join(SOCKETS_END_WITHIN)
    printed.close()
    sys.stdout, sys.stderr = sys.__stdout__, sys.__stderr__
    redirection.undo()
    _end_by_force(sockets.status)
    sys.exit(sockets.status)


def _end_by_force(status: int) -> None:
    """End the process in a while if it has not ended by then: threads and exit handlers may never return."""
    timer = threading.Timer(ENDS_WITHIN, os._exit, (status,))
    timer.daemon = True
    timer.start()


def _new_uuid() -> str:
    """Return a name in the form of stock engines' names, so that programs that sort or cut such names work."""
    text = secrets.token_hex(16)
    return f"{text[:8]}-{text[8:]}"


def _rank(options: EngineOptions) -> None:
    """Ask for the MPI rank as the engine's id, and wait a little, so that thousands do not register at once."""
    from mpi4py import MPI  # type: ignore[import-not-found,unused-ignore]

    if MPI.COMM_WORLD.Get_size() > 1 and options.id is None:
        options.id = MPI.COMM_WORLD.Get_rank()
    if options.id is not None and options.id >= 100:
        time.sleep(options.id * options.mpi_registration_delay)


def _kernel(options: EngineOptions, worker: Worker) -> Any:
    from .ipython import Kernel

    with _existing_directory():
        return Kernel(worker, options.shell)


@contextmanager
def _existing_directory() -> Generator[None, None, None]:
    """Be in a directory that exists during the block, since IPython cannot start in one that user code has removed."""
    here = None
    try:
        os.getcwd()
    except FileNotFoundError:
        here = os.open(os.curdir, os.O_RDONLY)
        os.chdir("/")
    try:
        yield
    finally:
        if here is not None:
            os.fchdir(here)
            os.close(here)


def _start_up(options: EngineOptions, worker: Worker) -> None:
    """Run the code that a new engine runs first, in the order of stock engines.

    A failure is logged, and the engine works on, as stock engines do.
    """
    pieces = [(options.mpi_init, "<mpi>")] if options.mpi and options.mpi_init else []
    files = [os.environ.get("PYTHONSTARTUP")]
    files += sorted(str(path) for path in (profile_directory(options) / "startup").glob("*.*py"))
    files.append(options.startup_script)
    for path in filter(None, files):
        try:
            pieces.append((Path(path).read_text(encoding="utf-8"), path))
        except OSError as error:
            log.error("cannot read a startup file", file=path, error=error)
    if options.startup_command:
        pieces.append((options.startup_command, "<startup command>"))
    for code, filename in pieces:
        try:
            worker.run_startup(code, filename)
        except BaseException as error:
            log.error("the startup code has failed", file=filename, error=error, exc_info=True)


def _name_config_files(options: EngineOptions) -> None:
    """Log the config files of ipengine that the profile has, since they are not read."""
    for path in sorted(profile_directory(options).glob("ipengine_config.*")):
        log.warning("the config file is not read: give its settings on the command line", file=str(path))


# The thread of the sockets


def _run_sockets(
    sockets: _Sockets,
    options: EngineOptions,
    uuid: str,
    jobs: Jobs,
    reader: ShellReader,
    redirection: Redirection,
    worker: Worker,
    log_stream: TextIO,
    to_nanny: int | None,
    lifeline: int | None,
) -> None:
    printed = sockets.printed

    def told(state: dict[str, Any] | None) -> None:
        if to_nanny is not None:
            with suppress(OSError):  # user code may have closed it
                write_state(to_nanny, state)

    def registered(engine_id: int) -> None:
        if options.log_level in ("DEBUG", "INFO"):
            # Scripts wait for this line of ipengine's.
            with suppress(OSError, ValueError):
                print(f"Completed registration with id {engine_id}", file=log_stream)
        worker.engine_id = engine_id
        sockets.ready.set()

    async def main() -> None:
        sockets.token = trio.lowlevel.current_trio_token()
        with sockets.scope:
            address = await _address(options)
        if sockets.scope.cancelled_caught:
            return
        worker.packer = packer_named(address.packer)
        printed.parent = worker.packer.pack({})
        engine = Engine(
            options,
            uuid,
            address,
            jobs,
            printed,
            redirection,
            reader,
            told=told,
            registered=registered,
            stop_work=sockets.stop_work,
        )
        sockets.engine = engine
        async with trio.open_nursery() as nursery:
            if lifeline is not None:
                nursery.start_soon(_watch_nanny, lifeline, engine)
            await engine.run()
            nursery.cancel_scope.cancel()

    sockets.status = FAILED
    try:
        trio.run(main, instruments=[sockets.turn])
        sockets.status = OK
    except* HubError as group:
        sockets.status = NOT_REGISTERED
        log.critical("the engine ends", error=_single(group))
    except* Exception:
        with suppress(Exception):  # user code may have closed the log, too
            log.critical("the engine has failed", exc_info=True)
        os._exit(FAILED)  # without unregistering: the nanny tells the hub
    finally:
        printed.close()
        jobs.end()
        sockets.ready.set()
        _end_by_force(sockets.status)


def _single(error: BaseException) -> BaseException:
    while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    return error


async def _address(options: EngineOptions) -> HubAddress:
    if options.connection_info:
        return await read_address(options.connection_info, "IPP_CONNECTION_INFO", options)
    path = await wait_for_file(options)
    return await read_address(path.read_bytes(), str(path), options)


async def _watch_nanny(lifeline: int, engine: Engine) -> None:
    """End the engine when its nanny has died: a user who kills the nanny means the engine."""
    while True:
        await trio.lowlevel.wait_readable(lifeline)
        try:
            if os.read(lifeline, 1) == b"":
                engine.stop("its nanny was killed", killed=True)
                return
        except OSError:  # user code has closed it
            return
