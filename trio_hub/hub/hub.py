"""`Hub`: where every message arrives, and finds the method that is for it."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from typing import Any

from ..errors import WireError
from ..logs import get_logger
from ..wire.frames import Buffer
from ..wire.messages import Message
from .queries import Queries
from .state import Reply, content_of

__all__ = ["Hub"]

log = get_logger("trio_hub.hub")


class Hub(Queries):
    """The hub's core: engines, queues, records and queries, without a socket, a task or a clock.

    The runtime hands it what arrives (`dispatch_query`, `dispatch_monitor_traffic`, `handle_pong`) and carries
    out what it asks for (`Host`). Arguments: see `HubState`.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.monitor_handlers: dict[str, Callable[[list[bytes], Message], None]] = {
            "mux_in": self.save_queue_request,
            "mux_out": self.save_queue_result,
            "task_in": self.save_task_request,
            "task_out": self.save_task_result,
            "control_in": self.relay_control_request,
            "control_out": self.relay_control_result,
            "broadcast_in": self.save_broadcast_request,
            "iopub": self.monitor_iopub_message,
        }
        for channel in self.broadcast_channels:
            self.monitor_handlers[channel] = self.save_broadcast_result
        # Not control_out: the nanny of a stock engine calls its answer to a signal_request a "_request".
        self.result_channels = frozenset(("mux_out", "task_out", *self.broadcast_channels))
        self.query_handlers: dict[str, Callable[[list[bytes], Message], Any]] = {
            "queue_request": self.queue_status,
            "result_request": self.get_results,
            "history_request": self.get_history,
            "db_request": self.db_query,
            "purge_request": self.purge_results,
            "load_request": self.check_load,
            "resubmit_request": self.resubmit_task,
            "abort_request": self.abort_request,
            "shutdown_request": self.shutdown_request,
            "become_dask_request": self.become_dask,
            "stop_distributed_request": self.stop_distributed,
            "registration_request": self.register_engine,
            "unregistration_request": self.unregister_engine,
            "connection_request": self.connection_request,
        }

    def dispatch_monitor_traffic(self, channel: str, frames: Sequence[Buffer]) -> None:
        """A message arrived on a queue or on iopub: read it once, relay and record it."""
        try:
            msg = self.session.read_untrusted(frames, lasting=channel == "control_in")
            if not msg.idents and channel != "iopub":  # where they are topics, and may be missing
                raise WireError("no_identity", "no routing identity before the delimiter")
        except WireError as error:
            self.unreadable(channel, error)
            return
        if channel in self.result_channels and msg.header.msg_type[-6:] != "_reply":
            self.ignore("not_a_reply", f"{msg.header.msg_type!r} is no reply", uuid=msg.idents[0], channel=channel)
            return
        self.monitor_handlers[channel](msg.idents, msg)

    def dispatch_query(self, frames: Sequence[Buffer]) -> None:
        """A registration or a client's query arrived: route it, and answer it whatever happens."""
        try:
            msg = self.session.read_untrusted(frames, lasting=True)
            if not msg.idents:
                raise WireError("no_identity", "no routing identity before the delimiter")
        except WireError as error:
            self.unreadable("query", error)
            return
        handler = self.query_handlers.get(msg.header.msg_type)
        try:
            if handler is None:
                raise KeyError(f"Bad Message Type: {msg.header.msg_type!r}")
            outcome = handler(msg.idents, msg)
        except Exception as error:
            self.answer_query_error(msg, error)
            return
        if isinstance(outcome, Generator):
            self.host.run_query(msg, outcome)
        elif isinstance(outcome, Reply):
            self.answer_query(msg, outcome)

    def answer_query(self, msg: Message, reply: Reply) -> None:
        """Send the reply to a query, or, if it cannot be packed, say so."""
        try:
            self.reply("query", msg.idents, msg, reply)
        except (TypeError, ValueError) as error:
            self.answer_query_error(msg, error)

    def answer_query_error(self, msg: Message, error: Exception) -> None:
        """Answer a query that could not be carried out."""
        if isinstance(error, WireError):
            self.wire_errors[error.kind] += 1
        log.warning(
            "refused a query",
            kind="query_refused",
            msg_type=msg.header.msg_type,
            client=msg.header.session,
            error=f"{type(error).__name__}: {error}",
        )
        self.reply("query", msg.idents, msg, Reply("hub_error", content_of(error)))
