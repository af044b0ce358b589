"""The main thread of an engine, which carries out requests one after the other."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from types import FrameType, ModuleType
from typing import Any

from ..logs import get_logger
from ..wire.frames import Buffer
from ..wire.packers import Packer
from . import hooks
from .canned import Namespace
from .jobs import Answer, Job, Jobs
from .output import Printed, Publication
from .pickling import Pickling
from .tracebacks import error_reply

__all__ = ["Worker", "catch_signals", "kernel_info", "signal_main_thread"]

log = get_logger("trio_hub.engine")

_FORKED_CHILD_ENDED = 0
_PYTHON = sys.version.split()[0]


class Stopped(SystemExit):
    """The engine has been told to end while user code runs."""


class Worker:
    """Carries out jobs in the main thread.

    Args:
        uuid: the engine's name.
        jobs: gives the jobs, and takes them back when they are done.
        printed: takes what user code prints and publishes.
        packer: packs the contents of published messages.
        kernel: makes the part that uses IPython, when it is first needed.
    """

    def __init__(
        self,
        uuid: str,
        jobs: Jobs,
        printed: Printed,
        packer: Packer,
        kernel: Callable[[Worker], Any],
    ) -> None:
        self.uuid = uuid
        self.engine_id = -1
        self.jobs = jobs
        self.printed = printed
        self.packer = packer
        self.module = ModuleType("__main__")
        self.module.__dict__["__builtins__"] = __builtins__
        self.namespace: Namespace = self.module.__dict__
        self._make_kernel = kernel
        self._kernel: Any = None
        self._making_kernel = False
        self._pickling = Pickling(self.namespace)
        self._interruptible = False
        self._running: Job | None = None
        """The job that runs, or the last one."""
        self._pid = os.getpid()

    # The loop

    def run(self) -> None:
        """Carry out jobs until there are no more."""
        while True:
            try:
                job = self.jobs.next()
                if job is None:
                    return
                self._carry_out(job)
            except KeyboardInterrupt:
                log.info("ignored an interrupt that came when nothing ran")
            except Stopped:
                return

    def _carry_out(self, job: Job) -> None:
        self.printed.parent = job.message.raw_header
        self._running = job
        job.started = datetime.now(UTC).isoformat()
        try:
            self._interruptible = True
            if job.interrupted:
                self._interruptible = False
                raise KeyboardInterrupt
            answer = self._answer(job)
            self._interruptible = False
        except Stopped:
            self._interruptible = False
            raise
        except BaseException as error:  # an interrupt, or a fault of ours: the request is answered in any case
            self._interruptible = False
            answer = Answer(error_reply(error, self.engine_info("engine")), [], {})
        if os.getpid() != self._pid:
            # User code has forked, and the child came back: there must not be two engines.
            os._exit(_FORKED_CHILD_ENDED)
        for stream in (sys.stdout, sys.stderr):
            with suppress(Exception):  # user code may have put anything there
                stream.flush()
        self.jobs.finish(job, answer)

    def _answer(self, job: Job) -> Answer | None:
        msg_type = job.msg_type
        if msg_type == "apply_request":
            return self._apply(job)
        if msg_type == "kernel_info_request":
            return Answer(kernel_info(), [], {})
        if msg_type == "clear_request":
            self._clear()
            return Answer({"status": "ok"}, [], {})
        answer: Answer | None = self.kernel.answer(job)
        return answer

    def interrupt(self, signum: int, frame: FrameType | None) -> None:
        """Interrupt user code, unless the signal is meant for another job. The handler of SIGINT.

        The system may merge signals, and user code may have handled earlier ones. So one call takes all aims.
        """
        if self.jobs.aims and not self._is_meant():
            log.info("ignored an interrupt that was meant for another request, which has ended or not begun")
            return
        if self._interruptible:
            self._interruptible = False  # one interrupt per request: a second one would hit the engine's own code
            if not self.printed.defers(interrupt := KeyboardInterrupt()):
                raise interrupt
            return
        log.warning("ignored SIGINT, since nothing runs; SIGTERM ends an engine")

    def _is_meant(self) -> bool:
        """Return whether one of the signals is meant for the job that runs. A job that is beginning will look, too."""
        aims, is_meant = self.jobs.aims, False
        while aims:
            job = aims.popleft()
            job.interrupted = True
            is_meant = is_meant or job is self._running
        return is_meant

    def stop(self) -> None:
        """Stop user code, if some runs: raise `Stopped` in it. For a signal handler."""
        if self._interruptible:
            self._interruptible = False
            if not self.printed.defers(stopped := Stopped()):
                raise stopped

    # apply

    def _apply(self, job: Job) -> Answer:
        try:
            function, args, kwargs = self._pickling.unpack_call(job.message.buffers)
            result = function(*args, **kwargs)
            return Answer({"status": "ok"}, self._pickling.pack_result(result), {})
        except Stopped:
            raise
        except BaseException as error:
            content = error_reply(error, self.engine_info("apply"))
            shown = {name: content[name] for name in ("traceback", "ename", "evalue")}
            self.publish("error", shown)
            return Answer(content, [], {})

    def engine_info(self, method: str) -> dict[str, Any]:
        return {"engine_uuid": self.uuid, "engine_id": self.engine_id, "method": method}

    def publish(self, msg_type: str, content: Any, *, topic: str = "", buffers: Sequence[Buffer] = ()) -> None:
        """Publish a message that belongs to the request that runs."""
        packed = self.packer.pack(content)
        self.printed.publish(Publication(msg_type, topic or msg_type, packed, self.printed.parent, list(buffers)))

    def _clear(self) -> None:
        """Empty the user's namespace."""
        if self._kernel is not None:
            self._kernel.clear()
            return
        for name in [name for name in self.namespace if name not in _KEPT]:
            del self.namespace[name]

    # IPython

    @property
    def kernel(self) -> Any:
        """The part that uses IPython, which is loaded now if it was not. For the main thread."""
        if self._kernel is None and not self._making_kernel:
            self._making_kernel = True
            try:
                self._kernel = self._make_kernel(self)
            finally:
                self._making_kernel = False
        return self._kernel

    def get_ipython(self) -> Any:
        """Return IPython's shell; None while the shell is being made. User code calls it by this name.

        In another thread than the main one, the shell is not made.
        """
        if self._kernel is None and threading.current_thread() is not threading.main_thread():
            return None
        kernel = self.kernel
        return None if kernel is None else kernel.shell

    def prepare_namespace(self) -> None:
        """Use the user's namespace as the namespace of ``__main__``, where pickles and functions look for names."""
        self.namespace["get_ipython"] = self.get_ipython
        sys.modules["__main__"] = self.module
        hooks.install(self.get_ipython)

    def run_startup(self, code: str, filename: str) -> None:
        """Run code in the user's namespace, before the first request."""
        if _is_python(code, filename):
            exec(compile(code, filename, "exec"), self.namespace)
        else:
            self.get_ipython().run_cell(code)


def _is_python(code: str, filename: str) -> bool:
    """Return whether code is plain Python, without the magic commands of IPython."""
    if filename.endswith(".ipy"):
        return False
    try:
        compile(code, filename, "exec")
    except SyntaxError:
        return filename.endswith(".py")
    return True


_KEPT = frozenset(("__name__", "__doc__", "__package__", "__loader__", "__spec__", "__builtins__", "get_ipython"))


def kernel_info() -> dict[str, Any]:
    """Return the content of the answer to a ``kernel_info_request``."""
    from .. import __version__

    return {
        "status": "ok",
        "protocol_version": "5.3",
        "implementation": "trio-hub",
        "implementation_version": __version__,
        "language_info": {
            "name": "python",
            "version": _PYTHON,
            "mimetype": "text/x-python",
            "codemirror_mode": {"name": "ipython", "version": 3},
            "pygments_lexer": "ipython3",
            "nbconvert_exporter": "python",
            "file_extension": ".py",
        },
        "banner": f"An engine of trio-hub {__version__}, Python {_PYTHON}",
        "help_links": [],
        "supported_features": [],
    }


def catch_signals(worker: Worker, stop: Callable[[int], None], drain: Callable[[int], bool]) -> None:
    """Set the engine's signal handlers.

    In a process that user code has forked, the signals that end an engine do what they do without a handler: the forked
    process has no thread of the sockets that could drain or end it. These signals wait while Python forks, since Python
    forgets the signals that its handlers have noted when a forked process begins.

    Args:
        worker: runs user code.
        stop: ends the engine. It is called for SIGHUP, before user code is stopped.
        drain: drains the engine. It is called for SIGTERM and SIGUSR1. If it returns False, the engine ends as after
            SIGHUP.
    """

    def on_stop(signum: int, frame: FrameType | None) -> None:
        stop(signum)
        worker.stop()

    def on_drain(signum: int, frame: FrameType | None) -> None:
        if not drain(signum):
            on_stop(signum, frame)

    signal.signal(signal.SIGINT, worker.interrupt)
    handlers = {signal.SIGHUP: on_stop, signal.SIGTERM: on_drain, signal.SIGUSR1: on_drain}
    for signum, handler in handlers.items():
        signal.signal(signum, handler)
    masks = threading.local()  # of each thread that forks

    def before_fork() -> None:
        masks.before = signal.pthread_sigmask(signal.SIG_BLOCK, handlers)

    def after_fork() -> None:
        signal.pthread_sigmask(signal.SIG_SETMASK, masks.before)

    def in_forked_process() -> None:
        for signum, handler in handlers.items():
            if signal.getsignal(signum) is handler:  # user code may have set others
                signal.signal(signum, signal.SIG_DFL)
        after_fork()

    os.register_at_fork(before=before_fork, after_in_parent=after_fork, after_in_child=in_forked_process)


def signal_main_thread(signum: int) -> None:
    """Send a signal to the main thread, so that it interrupts the system call in which user code may wait there."""
    main = threading.main_thread().ident
    assert main is not None
    signal.pthread_kill(main, signum)
