"""The requests of a soak's clients, and the check of their answers."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from tests.crash.work import FAILING, result_of
from trio_hub.wire.frames import Buffer, to_bytes

from .engines import ALWAYS_FAILING

NAMES_AN_ENGINE = re.compile(
    r"Engine \d+ died while running task \S+: .+"
    r"|Engine \d+ is not registered any more: .+ \(uuid \w+\)"
    r"|Engine \w+ is not registered \(any more\)"
    r"|.+ while \S+ was under way, and its result was lost: engine \d+ has had the request, .+",
    re.DOTALL,
)
"""The errors of requests whose engine is gone. Each names the engine, and the cause if it is known."""
MANY = 100
"""Retries that no task can use up."""
SHORT, LONG = 0.2, 600.0
"""Timeouts of tasks, in seconds. The long one is never over."""
STOPPED = "the hub has been stopped"


@dataclass
class Request:
    """One request, and the facts that may excuse an error as its answer.

    Args:
        queue: ``task``, ``mux`` or ``broadcast``.
        buffer: the buffer of the request, from which the right result follows.
        at: when the request was sent last, by Trio's clock.
        metadata: the metadata of the request.
        target: the uuid of the engine, for a direct request or a share of a broadcast.
        gathered: the uuids of the engines of a gathered broadcast.
        parent: the msg_id of the broadcast, for a share.
    """

    queue: str
    buffer: bytes
    at: float
    metadata: dict[str, Any] = field(default_factory=dict)
    target: str = ""
    gathered: tuple[str, ...] = ()
    parent: str = ""
    depends_on: tuple[str, ...] = ()
    aborted: bool = False
    sent_again: bool = False
    outcome: str = ""
    """How the request ended: the status or the name of the error; empty while it is open."""
    purged: bool = False

    def wrong(
        self,
        content: dict[str, Any],
        buffers: list[Buffer],
        failed: Callable[[str], bool],
        hub_stopped: bool,
    ) -> str:
        """Return what is wrong with an answer; an empty text if the answer is right.

        Args:
            content, buffers: of the answer.
            failed: whether another request, on which this one depends, has failed or was lost.
            hub_stopped: whether a hub was stopped since this request was sent.
        """
        values = list(map(to_bytes, buffers))
        if self.gathered:
            errors: dict[str, Any] = content.get("errors", {})
            if content["status"] == "ok" or errors:
                if not errors.keys() <= set(self.gathered):
                    return "errors of engines that were not asked"
                if values != [result_of(self.buffer)] * (len(self.gathered) - len(errors)):
                    return f"wrong values {values}"
            reasons = [self._wrong_error(error, failed, hub_stopped) for error in errors.values()]
            if content["status"] == "ok" or errors:
                return next(filter(None, reasons), "")
        if content["status"] == "ok":
            if self.buffer.startswith(ALWAYS_FAILING):
                return "a success of a request that fails"
            return "" if values == [result_of(self.buffer)] else f"wrong values {values}"
        return self._wrong_error(content, failed, hub_stopped)

    def _wrong_error(self, content: dict[str, Any], failed: Callable[[str], bool], hub_stopped: bool) -> str:
        if content["status"] == "aborted" or content["ename"] == "TaskAborted":
            return "" if self.aborted else "aborted, and nobody asked for that"
        ename, evalue = content["ename"], content["evalue"]
        is_right = False  # a task that is to be aborted is not tried again
        if ename == "RuntimeError":
            is_right = self.buffer.startswith(ALWAYS_FAILING) or (self.aborted and self.buffer.startswith(FAILING))
        elif ename == "EngineError":
            may_die = self.aborted or self.metadata.get("retries", 0) < MANY
            is_right = bool(may_die and NAMES_AN_ENGINE.fullmatch(evalue)) or (hub_stopped and evalue == STOPPED)
        elif ename in ("ImpossibleDependency", "InvalidDependency"):
            is_right = any(map(failed, self.depends_on))
            if ename == "ImpossibleDependency":
                # its engines are gone, or the requests that it follows ran on several engines
                is_right = is_right or not self.metadata.keys().isdisjoint(("targets", "follow"))
        elif ename == "TaskTimeout":
            is_right = self.metadata.get("timeout") == SHORT
        return "" if is_right else f"{ename}: {evalue}"

    @property
    def status(self) -> str:
        """The kind of request, for the figures."""
        if self.queue == "broadcast":
            return "gathered" if self.gathered else "share"
        if self.queue == "mux":
            return "direct"
        if self.buffer.startswith(FAILING):
            return "task that fails once"
        return "task with " + " and ".join(self.metadata) if self.metadata else "task"
