"""The control channel: requests that are carried out while user code runs."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Callable
from typing import Any

import trio

from ..errors import WireError
from ..logs import get_logger
from ..wire.frames import Frames
from ..wire.messages import Message
from .dispatch import Dispatcher
from .jobs import Job, Jobs
from .worker import kernel_info, signal_main_thread

__all__ = ["Control"]

log = get_logger("trio_hub.engine")

ANSWER_LEAVES = 0.1
"""Seconds that the answer to a ``signal_request`` has to leave, before the signal ends the process."""
LETHAL = {signal.SIGKILL, signal.SIGSTOP, signal.SIGSEGV, signal.SIGABRT, signal.SIGQUIT}
"""Signals that end or stop the process at once, since the engine has no handlers for them."""


class Control:
    """Carries out control requests. All methods are for the thread of the sockets.

    Args:
        dispatcher: reads messages, and sends answers.
        jobs: the requests for the main thread.
        shut_down: called when a client asks the engine to end.
    """

    def __init__(self, dispatcher: Dispatcher, jobs: Jobs, shut_down: Callable[[], None]) -> None:
        self._dispatcher = dispatcher
        self._jobs = jobs
        self._shut_down = shut_down
        self._due_to_die = trio.Event()
        self._to_die_of = 0

    def on_message(self, frames: Frames) -> None:
        """Carry out a control request, or pass it to the main thread if its type is unknown here."""
        message = self._dispatcher.read(frames)
        if message is None:
            return
        msg_type = message.header.msg_type
        handler = {
            "abort_request": self._abort,
            "signal_request": self._signal,
            "interrupt_request": self._interrupt,
            "usage_request": self._usage,
            "shutdown_request": self._shutdown,
        }.get(msg_type)
        try:
            if msg_type == "kernel_info_request":
                self._answer_control(message, kernel_info())
            elif handler is None:
                self._jobs.put(Job(message, "control"))
            else:
                handler(message, self._dispatcher.session.content(message))
        except (WireError, LookupError, TypeError, ValueError, OSError) as error:
            log.warning("a control request failed", what=msg_type, error=error)
            content = {"status": "error", "ename": type(error).__name__, "evalue": str(error), "traceback": []}
            self._answer_control(message, content)

    def _abort(self, message: Message, content: dict[str, Any]) -> None:
        msg_ids = content.get("msg_ids")
        if not msg_ids:
            self._jobs.abort_all()
        for msg_id in [msg_ids] if isinstance(msg_ids, str) else msg_ids or ():
            self._jobs.abort(str(msg_id))
        self._answer_control(message, {"status": "ok"})

    def _signal(self, message: Message, content: dict[str, Any]) -> None:
        number = content["sig"]
        number = signal.Signals[number] if isinstance(number, str) else int(number)
        if number == signal.SIGINT and content.get("msg_id") is not None:
            self._interrupt(message, content)
            return
        os.kill(os.getpid(), 0 if number in LETHAL else number)  # raises if there is no such signal
        self._answer_control(message, {"status": "ok"})
        if number in LETHAL:
            self._to_die_of = int(number)
            self._due_to_die.set()

    async def die_as_told(self) -> None:
        """Send this process a signal that ends it at once, when the answer to the request has left."""
        await self._due_to_die.wait()
        await trio.sleep(ANSWER_LEAVES)
        os.kill(os.getpid(), self._to_die_of)

    def _interrupt(self, message: Message, content: dict[str, Any]) -> None:
        """Interrupt the call that runs; if the request names a ``msg_id``, only if that request runs.

        With ``withdraw``, a request that has not begun, or not come yet, never begins. The answer says what was done:
        ``did`` is ``"interrupted"``, ``"withdrawn"`` or ``"nothing"``.
        """
        msg_id = content.get("msg_id")
        if msg_id is not None and not isinstance(msg_id, str):
            raise TypeError("msg_id must be a text")
        if msg_id is None or self._jobs.aim(msg_id):
            did = "interrupted"
        elif not content.get("withdraw"):
            did = "nothing"
        elif self._jobs.abort(msg_id) or not self._jobs.aim(msg_id):
            did = "withdrawn"
        else:  # the main thread has begun it at this moment
            did = "interrupted"
        self._answer_control(message, {"status": "ok", "did": did})
        if did == "interrupted":
            signal_main_thread(signal.SIGINT)

    def _usage(self, message: Message, content: dict[str, Any]) -> None:
        usage = {"hostname": socket.gethostname(), "pid": os.getpid(), "cpu_count": os.cpu_count()}
        self._answer_control(message, usage | {"kernel_memory": _memory()})

    def _shutdown(self, message: Message, content: dict[str, Any]) -> None:
        done = {"status": "ok", "restart": bool(content.get("restart"))}
        self._answer_control(message, done)
        self._dispatcher.publish("shutdown_reply", done, parent=message.raw_header)
        self._shut_down()

    def _answer_control(self, message: Message, content: dict[str, Any]) -> None:
        msg_type = message.header.msg_type.removesuffix("_request") + "_reply"
        metadata = {"engine": self._dispatcher.uuid}
        reply = self._dispatcher.session.write(msg_type, content, parent=message.raw_header, metadata=metadata)
        self._dispatcher.send("control", [*message.idents, *reply])


def _memory() -> int:
    """Return the bytes of memory that this process uses, its part of shared memory included; 0 if unknown."""
    try:
        with open("/proc/self/smaps_rollup") as file:
            return next(int(line.split()[1]) * 1024 for line in file if line.startswith("Pss:"))
    except (OSError, StopIteration):
        return 0
