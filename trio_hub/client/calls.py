"""Calls of functions on engines: sending, withdrawing, and reading their replies."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from ..errors import RemoteError
from ..wire.frames import Buffer, Frames
from ..wire.tracebacks import traceback_text
from .hubconnection import HubConnection, HubReply, Pending
from .notifying import Engines
from .packing import unpack_value_untrusted, unpack_values_untrusted

__all__ = ["Calls", "PackedResult", "content_of", "value_of"]


class Calls:
    """Starts and withdraws calls, without waiting.

    Args:
        link: the client's connection to the hub.
        engines: the engines that the client knows.
    """

    def __init__(self, link: HubConnection, engines: Engines) -> None:
        self._link = link
        self._engines = engines

    def start(
        self,
        call: Sequence[Buffer],
        *,
        to: str | None = None,
        among: Sequence[str] | None = None,
        rules: Mapping[str, Any] | None = None,
    ) -> Pending:
        """Send a call.

        Args:
            call: the buffers that `pack_call` has returned.
            to: the uuid of the engine to be called directly. By default the hub chooses an engine.
            among: the uuids of the engines that the hub may choose from. By default these are all engines.
            rules: the rules of a load-balanced call, as `sent_rules` returns them.

        Raises:
            HubLostError: the hub is away.
        """
        if to is not None:
            return self._link.ask("mux", "apply_request", {}, to=to, buffers=call, repeatable=False)
        metadata: dict[str, Any] | None = None if among is None else {"targets": list(among)}
        if rules:
            metadata = {**(metadata or {}), "rules": rules}
        return self._link.ask("task", "apply_request", {}, metadata=metadata, buffers=call)

    def withdraw(self, calls: Iterable[Pending]) -> None:
        """Keep calls from beginning, and ignore their replies. The hub interrupts those that run if their rules say so.

        This never waits, so that a cancelled task can do it.
        """
        unfinished = [pending for pending in calls if not pending.done]
        self.refuse(unfinished)
        for pending in unfinished:
            self._link.give_up(pending)

    def refuse(self, calls: Iterable[Pending]) -> None:
        """Keep calls from beginning. Each call is still answered: as aborted, or, if it runs already, with its result.

        The hub drops the calls that it still has. Each engine that may have a call, or may get it later, is told to
        refuse the call. For a load-balanced call these are all engines, since another hub may not abort calls.
        """
        queued: list[str] = []
        by_engine: dict[str, list[str]] = {}
        for pending in calls:
            if pending.to is None:
                queued.append(pending.msg_id)
            for uuid in self._engines.uuids.values() if pending.to is None else (pending.to,):
                by_engine.setdefault(uuid, []).append(pending.msg_id)
        if self._link.lost is None:
            if queued:
                self._link.give_up(self._link.ask("registration", "abort_request", {"msg_ids": queued}))
            for uuid, msg_ids in by_engine.items():
                self._link.give_up(self._link.ask("control", "abort_request", {"msg_ids": msg_ids}, to=uuid))


class PackedResult(NamedTuple):
    """The result of a successful request, as it came from the engines.

    - ``buffers``: a pickle, followed by the large buffers that are not in the pickle, in order. Empty if the request
      was not a call, but code to be executed. For a gathered broadcast: the buffers of each engine, in the order of its
      targets.
    - ``counts``: for a gathered broadcast, the number of buffers of each engine; otherwise None.
    """

    buffers: Frames
    counts: list[int] | None = None

    def value(self) -> Any:
        """Unpickle the value; for a gathered broadcast, a list of values. Raises `SerializationError`."""
        if self.counts is None:
            return unpack_value_untrusted(self.buffers)
        return unpack_values_untrusted(self.buffers, self.counts)


def content_of(reply: HubReply) -> dict[str, Any]:
    """Return the content of a reply. Raises `RemoteError` if the content reports an error."""
    content = reply.content
    status = content.get("status")
    if status == "ok":
        return content
    if status == "aborted":
        raise RemoteError("TaskAborted", "the call was aborted before it began")
    engine_info = content.get("engine_info")
    engine = engine_info.get("engine_id") if isinstance(engine_info, dict) else None
    raise RemoteError(
        str(content.get("ename", "")),
        str(content.get("evalue", "")),
        traceback_text(content.get("traceback")),
        engine if isinstance(engine, int) else None,
    )


def value_of(reply: HubReply) -> Any:
    """Return the value that a call has returned. Raises `RemoteError` and `SerializationError`."""
    content_of(reply)
    return unpack_value_untrusted(reply.buffers)
