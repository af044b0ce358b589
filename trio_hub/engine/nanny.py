"""The nanny: the process that is started, and that has the engine as its child.

The nanny forks the engine before anything heavy is imported, so the nanny needs only a few megabytes. It passes signals
on to the engine. When the engine has died without unregistering, the nanny tells the hub. It ends the processes that
the engine leaves behind, and ends as the engine has ended.
"""

from __future__ import annotations

import os
import signal
import sys
from contextlib import suppress
from typing import TYPE_CHECKING, Any, NoReturn

from .laststate import last_state, open_state
from .options import EngineOptions, OptionError, parse_options

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["main"]

PASSED_ON = (
    *(signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2, signal.SIGCONT),
    signal.SIGWINCH,
)
"""The signals that the nanny passes on to the engine."""
STOPPING = (signal.SIGTTIN, signal.SIGTTOU)
"""The terminal stops background processes with these signals. The engine ignores them, and reading /dev/tty fails."""
ENDING = (signal.SIGTERM, signal.SIGHUP)
"""After one of these signals, the engine has `EngineOptions.kill_grace` seconds to end before it is killed."""
LEFT_BEHIND_GRACE = 0.5
"""Seconds between asking the processes that the engine has left to end, and killing them."""
LEFT_BEHIND_WITHIN = 1.2
"""Seconds after which the nanny no longer waits for the end of these processes: less than a hub that stops waits."""
KILLED_AGAIN = 0.1
"""Seconds until processes that are still there are killed again, with the processes that they have started."""
TELLS_WITHIN = 3000
"""Milliseconds that the message of the engine's death has to reach the hub."""
_BAD_OPTION = 1
"""The exit code for an option that cannot be used, as of ipengine."""
_PR_SET_CHILD_SUBREAPER = 36


def main(arguments: list[str]) -> NoReturn:
    """Run ``trio-hub engine`` with these arguments. It does not return: it is both processes' main function."""
    try:
        options = parse_options(arguments)
    except OptionError as error:
        print(f"trio-hub engine: {error}. See trio-hub engine --help.", file=sys.stderr)
        sys.exit(_BAD_OPTION)
    start(options)


def start(options: EngineOptions) -> NoReturn:
    """Fork the engine and look after it; or, if the options say so, be the engine without a nanny."""
    if not options.nanny:
        from .process import run_engine

        run_engine(options)
    state_file = open_state()
    life_read, life_write = os.pipe()
    # Blocked before the fork, so that no signal comes between it and the handlers of the engine or the nanny.
    signal.pthread_sigmask(signal.SIG_BLOCK, (*PASSED_ON, signal.SIGCHLD))
    engine = os.fork()
    if engine == 0:
        os.close(life_write)
        os.setpgid(0, 0)  # so that Ctrl-C reaches only the nanny, and it finds the processes that the engine leaves
        for number in STOPPING:
            signal.signal(number, signal.SIG_IGN)
        _reset_signals()
        from .process import run_engine

        run_engine(options, state_file, life_read)
    os.close(life_read)
    _adopt_orphans()
    status = _look_after(engine, options)
    state = last_state(state_file)
    # The hub is told first, since processes that are left may need long to end.
    wait_until_told = None
    try:
        if state is not None:
            wait_until_told = _tell_hub(state, _cause(status))
    finally:
        # The hub is told through the SSH tunnels, which end by themselves after that.
        _end_what_is_left(engine, spared=None if state is None else state.get("tunnels"))
    if wait_until_told is not None:
        wait_until_told()
    _end_like(status)


def _reset_signals() -> None:
    """Let the engine's signals through, as in a process that was started."""
    signal.pthread_sigmask(signal.SIG_UNBLOCK, (*PASSED_ON, signal.SIGCHLD))


def _look_after(engine: int, options: EngineOptions) -> int:
    """Pass signals on until the engine has ended. Return its status, as `os.waitpid` does."""
    import time

    deadline = None
    while True:
        left = 3600.0 if deadline is None else max(0.0, deadline - time.monotonic())
        received = signal.sigtimedwait((*PASSED_ON, signal.SIGCHLD), left)
        ended = _reap(engine)
        if ended is not None:
            return ended
        if received is None:
            if deadline is not None:
                _kill(engine, signal.SIGKILL)
                deadline = None
        elif received.si_signo != signal.SIGCHLD:
            _kill(engine, received.si_signo)
            if received.si_signo in ENDING and deadline is None:
                deadline = time.monotonic() + options.kill_grace


def _reap(engine: int) -> int | None:
    """Collect all children that have ended. Return the engine's status if it is among them."""
    status = None
    while True:
        try:
            pid, ended = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return status
        if pid == 0:
            return status
        if pid == engine:
            status = ended


def _kill(pid: int, signum: int) -> None:
    with suppress(ProcessLookupError):  # it has ended, and SIGCHLD is on its way
        os.kill(pid, signum)


def _adopt_orphans() -> None:
    """Become the parent of descendants whose parent ends, to find the processes that the engine leaves behind."""
    with suppress(ImportError, OSError, AttributeError):  # without it, only the engine's process group is found
        import ctypes

        ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def _end_what_is_left(engine: int, spared: int | None = None) -> None:
    """End the processes that the engine has started and left behind, except the process with the id ``spared``.

    It gives up after `LEFT_BEHIND_WITHIN`, since a process may wait for a disk that does not answer, or fork for ever.
    """
    import time

    _signal_group(engine, signal.SIGTERM)
    for pid in _children(spared):
        _kill(pid, signal.SIGTERM)
    began = time.monotonic()
    while left := _children(spared):
        passed = time.monotonic() - began
        if passed >= LEFT_BEHIND_WITHIN:
            return
        wait = LEFT_BEHIND_GRACE - passed
        if wait <= 0:
            _signal_group(engine, signal.SIGKILL)
            for pid in left:
                _kill(pid, signal.SIGKILL)
            wait = KILLED_AGAIN
        signal.sigtimedwait((signal.SIGCHLD,), wait)
        _reap(engine)


def _signal_group(leader: int, signum: int) -> None:
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(leader, signum)


def _children(spared: int | None) -> list[int]:
    try:
        with open(f"/proc/self/task/{os.getpid()}/children") as file:
            return [child for pid in file.read().split() if (child := int(pid)) != spared]
    except OSError:
        return []


def _cause(status: int) -> str:
    """Return why the engine has ended, for people."""
    if os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        try:
            return f"killed by signal {number} ({signal.Signals(number).name})"
        except ValueError:
            return f"killed by signal {number}"
    return f"exit code {os.WEXITSTATUS(status)}"


def _tell_hub(state: dict[str, Any], cause: str) -> Callable[[], None]:
    """Unregister the engine that has died, and say why. Return a function that waits until the hub has been told."""
    from datetime import UTC, datetime
    from secrets import token_hex

    import zmq

    from ..wire.messages import Session

    def now() -> datetime:
        return datetime.now(UTC)

    session = Session(
        state["key"].encode(),
        session_id=token_hex(16),
        now=now,
        packer=state["packer"],
        scheme=state["scheme"],
        username="trio-hub-nanny",
    )
    content = {"id": state["id"], "uuid": state["uuid"], "killed": True, "cause": cause}
    context: zmq.Context[zmq.Socket[Any]] = zmq.Context()
    socket = context.socket(zmq.DEALER)
    socket.linger = TELLS_WITHIN
    socket.ipv6 = "[" in state["url"]
    if state["curve"] is not None:
        socket.curve_serverkey, socket.curve_publickey, socket.curve_secretkey = map(str.encode, state["curve"])
    socket.connect(state["url"])
    socket.send_multipart([bytes(frame) for frame in session.write("unregistration_request", content)])
    socket.close()
    return context.term


def _end_like(status: int) -> NoReturn:
    """End as the engine has ended: with its exit status, or by the same signal."""
    if os.WIFSIGNALED(status):
        import resource

        number = os.WTERMSIG(status)
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        if number not in (signal.SIGKILL, signal.SIGSTOP):
            signal.signal(number, signal.SIG_DFL)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, (number,))
        os.kill(os.getpid(), number)
        os._exit(128 + number)  # a signal that does not end a process by default
    os._exit(os.WEXITSTATUS(status))
