"""Passes requests to the main thread, and sends answers, output and states."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
import trio

from ..errors import WireError
from ..logs import get_logger
from ..wire.frames import Frames
from ..wire.messages import Message, Session
from .jobs import Job, Jobs
from .output import Printed, Publication, Redirection, Text

__all__ = ["Dispatcher"]

log = get_logger("trio_hub.engine")

FIRST_DELAY = 0.02
"""Seconds that output waits for more, unless the call ends before: a loop that prints makes 50 messages a second."""
RETRY = 0.01
"""Seconds until output that ZeroMQ did not take is offered again."""
QUIET_CLIENT = b'"trio-hub-client'
"""How the username begins in requests of `trio_hub.connect`: it may go on with ``/`` and the name of a user.

That client does not listen to output, so that it needs no idle status.
"""


class RequestMetadata(msgspec.Struct, frozen=True, gc=False):
    """The metadata of a request that its answer repeats."""

    is_broadcast: bool = False
    is_coalescing: bool = False
    original_msg_id: str = ""
    label: Any = None


class Dispatcher:
    """Turns requests into jobs, and finished jobs into replies.

    All methods are for a thread that has the turn (`trio_hub.engine.turns.Turn`).

    Args:
        uuid: the engine's name.
        session: reads and writes messages.
        send: sends frames on a channel; returns False if ZeroMQ does not take them.
        jobs: takes requests, and gives them back with their answers.
        printed: the output that is not sent yet.
        redirection: the pipes that catch the output of subprocesses and libraries in C.
    """

    def __init__(
        self,
        uuid: str,
        session: Session,
        send: Callable[[str, Frames], bool],
        jobs: Jobs,
        printed: Printed,
        redirection: Redirection,
    ) -> None:
        self.uuid = uuid
        self.engine_id = -1
        self.send = send
        self._jobs = jobs
        self._printed = printed
        self._redirection = redirection
        self._stuck = False
        self.hub_publishes_idle = False
        """Whether the hub publishes the idle status of a request for which this engine has published nothing."""
        self._published_for: dict[bytes, bool] = {}
        """For each request without a reply, by its packed header: whether anything was published for the request."""
        self._due = trio.Event()
        self._hub_is_back = trio.Event()
        self.use(session)

    def use(self, session: Session) -> None:
        """Read and write messages with this session from now on."""
        self.session = session
        self._metadata = session.packer.decoder(RequestMetadata)

    # Requests

    def on_shell(self, frames: Frames) -> None:
        """Pass a request to the main thread."""
        message = self.read(frames)
        if message is not None:
            self._published_for.setdefault(message.raw_header, False)
            self._jobs.put(Job(message, "shell"))

    def read(self, frames: Frames) -> Message | None:
        """Return a message; None if it cannot be read, or if it names no sender to be answered."""
        try:
            message = self.session.read_untrusted(frames)
        except WireError as error:
            log.warning("a message that cannot be read was dropped", error=error)
            return None
        return message if message.idents else None

    # Answers

    def deliver(self) -> None:
        """Send the answers of all jobs that are finished, each after all that was printed before it."""
        finished = self._jobs.finished
        while finished and not self._stuck:
            self._redirection.drain(self._printed)
            if not self.flush():
                return
            self._reply(finished.popleft())

    def _reply(self, job: Job) -> None:
        message, answer = job.message, job.answer
        header = message.raw_header
        published = self._published_for.pop(header, True)
        wants_idle = QUIET_CLIENT not in header
        if answer is not None:
            status = answer.content.get("status", "ok")
            asked = self._asked(message)
            metadata = {
                "started": job.started or self.session.now().isoformat(),
                "dependencies_met": True,
                "engine": self.uuid,
                "is_broadcast": asked.is_broadcast,
                "is_coalescing": asked.is_coalescing,
                "original_msg_id": asked.original_msg_id,
                "label": asked.label,
                "status": status,
            }
            if status == "error":
                metadata["dependencies_met"] = answer.content.get("ename") != "UnmetDependency"
                metadata["engine_info"] = {"engine_uuid": self.uuid, "engine_id": self.engine_id}
            elif status == "ok" and wants_idle and not published and self.hub_publishes_idle:
                # The hub has no output of this request that the status might overtake.
                metadata["idle_topic"] = f"engine.{self.engine_id}.status"
                wants_idle = False
            metadata |= answer.metadata
            reply = self.session.write(
                job.msg_type.removesuffix("_request") + "_reply",
                answer.content,
                parent=header,
                metadata=metadata,
                buffers=answer.buffers,
            )
            self.send(job.channel, [*message.idents, *reply])
        if wants_idle:
            self.publish("status", {"execution_state": "idle"}, parent=header)

    def _asked(self, message: Message) -> RequestMetadata:
        if len(message.raw_metadata) <= 2:
            return _NOTHING_ASKED
        try:
            return self._metadata(message.raw_metadata)
        except WireError:
            return _NOTHING_ASKED

    # Output

    def publish(self, msg_type: str, content: dict[str, Any], *, parent: bytes) -> None:
        """Publish a message after everything that was printed; keep it if ZeroMQ does not take it now."""
        if self._stuck or self._printed.is_held or not self._publish(msg_type, msg_type, content, parent):
            packed = self.session.packer.pack(content)
            self._printed.publish(Publication(msg_type, msg_type, packed, parent, []))
            self._stuck = True
            self._printed.wake()

    def report(self, msg_type: str, content: dict[str, Any]) -> None:
        """Publish a message that belongs to no request, unless the hub is away, or ZeroMQ does not take it now."""
        if not self._stuck and not self._printed.is_held:
            self._publish(msg_type, msg_type, content, b"{}")

    def _publish(self, msg_type: str, topic: str, content: dict[str, Any], parent: bytes) -> bool:
        """Publish a message now. Return False if ZeroMQ does not take it."""
        self._note_publication(parent)
        frames = self.session.write(msg_type, content, parent=parent, metadata={"engine": self.uuid})
        return self.send("iopub", [self._topic(topic), *frames])

    def _note_publication(self, parent: bytes) -> None:
        if parent in self._published_for:
            self._published_for[parent] = True

    def _topic(self, topic: str) -> bytes:
        return f"engine.{self.engine_id}.{topic}".encode()

    def flush(self) -> bool:
        """Publish everything that was printed. Return False if that is not possible now, and try again later.

        ZeroMQ may not take all of it, or the hub may be away: ZeroMQ would drop what nobody has subscribed to.
        """
        printed = self._printed
        if printed.is_held and not printed.is_empty:
            self._stuck = True
            printed.wake()
            return False
        while (piece := printed.take()) is not None:
            if isinstance(piece, Text):
                content = {"name": piece.name, "text": piece.text}
                sent = self._publish("stream", piece.name, content, piece.parent)
            else:
                self._note_publication(piece.parent)
                session = self.session
                pack = session.packer.pack
                metadata = pack({"engine": self.uuid})
                parts: Frames = [pack(session.new_header(piece.msg_type)), piece.parent, metadata, piece.content]
                sent = self.send("iopub", [self._topic(piece.topic), *session.seal(parts, piece.buffers)])
            if not sent:
                printed.put_back(piece)
                self._stuck = True
                self._printed.wake()
                return False
        return True

    def on_printed(self) -> None:
        """Publish soon: there is output, after there was none."""
        self._due.set()

    async def publish_output(self) -> None:
        """Publish the output of a call while the call runs, and the output that ZeroMQ did not take before."""
        while True:
            await self._due.wait()
            self._due = trio.Event()
            if not self._stuck:
                await trio.sleep(FIRST_DELAY)
            while not self.flush():
                if self._printed.is_held:
                    await self._hub_is_back.wait()
                else:
                    await trio.sleep(RETRY)  # ZeroMQ tells nobody when it has room again
            if self._stuck:
                self._stuck = False
                self.deliver()

    def hold_output(self) -> None:
        """Keep output, and the answers that come after it, until `release_output` is called: the hub is away."""
        if not self._printed.is_held:
            self._hub_is_back = trio.Event()
            self._printed.hold()

    def release_output(self) -> None:
        """Publish the output that was kept, and send the answers that come after it: the hub is back."""
        self._printed.release()
        self._hub_is_back.set()

    async def read_pipe(self, descriptor: int) -> None:
        """Read the output of subprocesses and libraries in C from a pipe, until user code closes the pipe."""
        while descriptor in self._redirection.pipes:
            await trio.lowlevel.wait_readable(descriptor)
            while self._printed.is_full:  # noqa: ASYNC110 - happens only when output is too much for the hub
                await trio.sleep(RETRY)
            self._redirection.read(descriptor, self._printed)


_NOTHING_ASKED = RequestMetadata()
