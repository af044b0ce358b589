"""`Hub`: builds the parts, routes everything that arrives to them, and catches every unexpected error."""

from __future__ import annotations

from collections.abc import Callable, Container, Generator, Sequence
from random import Random
from typing import Any, ParamSpec, Unpack

from ..errors import EngineError, HubError, WireError
from ..logs import get_logger
from ..records import Store
from ..wire.frames import Buffer
from ..wire.messages import Message, Session
from .answers import QUEUES
from .connector import EngineConnector
from .intake import STOPPED
from .notices import Notices
from .parts import Parts, Settings
from .ports import Host
from .replies import Reply, content_of

__all__ = ["Hub"]

log = get_logger("trio_hub.hub")

P = ParamSpec("P")

EXPECTED = (HubError, KeyError, IndexError, TypeError, ValueError)
"""The exceptions by which a query handler reports a wrong query."""


class Hub:
    """The hub's core: engines, queues, records and queries, without a socket, a task or a clock.

    The runtime calls the hub with everything that arrives, and carries out the hub's requests to it (`Host`). Each
    method for the runtime is a failure boundary: an unexpected exception is logged and counted (`Notices.failed`), the
    request concerned is answered with an error, and the hub goes on. Where one call handles several requests, or
    follows a commit or an answer of the store, the parts catch the exceptions of each request.

    Args:
        host: access to sockets, tasks and time.
        session: reads and writes messages.
        store: keeps the records.
        rng: random numbers, for schemes of the task queue.
        settings: see `Settings`.
    """

    def __init__(
        self,
        host: Host,
        session: Session,
        store: Store,
        rng: Random,
        **settings: Unpack[Settings],
    ) -> None:
        self.host = host
        self.session = session
        self.store = store
        self.query_handlers: dict[str, Callable[[list[bytes], Message], Any]] = {}
        parts = Parts(host, session, store, rng, queries=self.query_handlers, **settings)
        self.parts = parts
        self.notices, self.replies, self.answers = parts.notices, parts.replies, parts.answers
        self.redelivery, self.owed = parts.redelivery, parts.owed
        self.intake, self.admission, self.routes = parts.intake, parts.admission, parts.routes
        self.engines, self.hearts, self.labels = parts.engines, parts.hearts, parts.labels
        self.tasks, self.direct, self.control = parts.tasks, parts.direct, parts.control
        self.broadcasts, self.gathering, self.output = parts.broadcasts, parts.gathering, parts.output
        self.recovery, self.queries, self.aborting = parts.recovery, parts.queries, parts.aborting
        self.work, self.pooling = parts.work, parts.pooling
        self.goodbyes, self.is_pending, self.result_queues = parts.goodbyes, parts.is_pending, parts.result_queues
        # Not control_out: the nanny of a stock engine calls its answer to a signal_request a "_request".
        self._replies_only = frozenset(parts.result_queues) - {"control_out"}
        self._read = session.read_untrusted
        # Methods for the runtime whose unexpected errors only need to be reported.
        hearts, engines, routes, notices = parts.hearts, parts.engines, parts.routes, parts.notices
        self.handle_pong = guarded(notices, "heartbeat", hearts.handle_pong)
        self.weigh_hearts = guarded(notices, "heartbeat", hearts.weigh_hearts)
        self.purge_unheard = guarded(notices, "restored engines", hearts.purge_unheard)
        self.restore_engines = guarded(notices, "restored engines", parts.recovery.restore_engines)
        self.remember_engines = guarded(notices, "restored engines", parts.recovery.remember_engines)
        self.purge_stalled_registration = guarded(notices, "registration", engines.purge_stalled_registration)
        self.heart_asked = guarded(notices, "end of an engine", parts.goodbyes.heart_asked)
        self.lose_engine = guarded(notices, "end of an engine", engines.lose_engine)
        self.handle_stranded = guarded(notices, "end of an engine", engines.handle_stranded)
        self.give_up_control = guarded(notices, "connection", parts.control.give_up_channel)
        self.engine_connection_lost = guarded(notices, "connection", routes.engine_connection_lost)
        self.monitor_handlers: dict[str, Callable[[list[bytes], Message], None]] = {
            "mux_in": self.direct.save_queue_request,
            "mux_out": self.direct.save_queue_result,
            "task_in": self.tasks.save_task_request,
            "task_out": self.tasks.save_task_result,
            "control_in": self.control.relay_control_request,
            "control_out": self.control.relay_control_result,
            "broadcast_in": self.broadcasts.save_broadcast_request,
            "iopub": self.output.monitor_iopub_message,
            **dict.fromkeys(parts.broadcasts.channels, self.broadcasts.save_broadcast_result),
        }
        self.query_handlers.update(
            {
                "queue_request": self.queries.queue_status,
                "result_request": self.queries.get_results,
                "history_request": self.queries.get_history,
                "db_request": self.queries.db_query,
                "purge_request": self.queries.purge_results,
                "load_request": self.queries.check_load,
                "resubmit_request": self.queries.resubmit_task,
                "abort_request": self.queries.abort_request,
                "shutdown_request": self.queries.shutdown_request,
                "become_dask_request": self.queries.become_dask,
                "stop_distributed_request": self.queries.stop_distributed,
                "registration_request": self.engines.register_engine,
                "unregistration_request": parts.goodbyes.unregister_engine,
                **parts.queries_of_commands,
                "connection_request": self.queries.connection_request,
            }
        )

    # Messages

    def dispatch_monitor_traffic(self, channel: str, frames: Sequence[Buffer]) -> None:
        """Read a message that arrived on a queue or on iopub, and call its handler. Never raises."""
        try:
            if channel == "iopub" and not self.output.is_of_use(frames):
                return
            msg = self._read(frames, lasting=channel == "control_in")
            if not msg.idents and channel != "iopub":  # on iopub they are topics, which may be missing
                raise WireError("no_identity", "no routing identity before the delimiter")
        except WireError as error:
            self.notices.unreadable(channel, error)
            return
        except Exception as error:
            self.notices.failed("reading", error, channel=channel)
            return
        try:
            if channel in self._replies_only and msg.header.msg_type[-6:] != "_reply":
                self.notices.ignore(
                    "not_a_reply", f"{msg.header.msg_type!r} is not a reply", uuid=msg.idents[0], channel=channel
                )
                return
            self.monitor_handlers[channel](msg.idents, msg)
        except Exception as error:
            self._message_failed(channel, msg, error)

    def _message_failed(self, channel: str, msg: Message, error: Exception) -> None:
        """Report the unexpected error of a message, and answer the request that it concerns."""
        if channel in self.result_queues:
            ident, msg_id = msg.idents[0], msg.parent.msg_id
            reason = self.notices.failed(channel, error, task=msg_id, uuid=ident)
            guarded(self.notices, channel, self.result_queues[channel].give_up)(ident, msg_id, reason)
        elif channel == "iopub":
            self.notices.failed(channel, error, task=msg.parent.msg_id)
        else:
            self.admission.failed(channel, error, channel, msg.idents, msg)

    def dispatch_query(self, frames: Sequence[Buffer]) -> None:
        """Read a registration or a query, call its handler, and answer it in any case. Never raises."""
        try:
            msg = self._read(frames, lasting=True)
            if not msg.idents:
                raise WireError("no_identity", "no routing identity before the delimiter")
        except WireError as error:
            self.notices.unreadable("query", error)
            return
        except Exception as error:
            self.notices.failed("reading", error, channel="query")
            return
        handler = self.query_handlers.get(msg.header.msg_type)
        try:
            if handler is None:
                raise KeyError(f"Bad Message Type: {msg.header.msg_type!r}")
            outcome = handler(msg.idents, msg)
            if isinstance(outcome, Generator):
                self.host.run_query(msg, outcome)
        except Exception as error:
            self.answer_query_error(msg, error)
            return
        if isinstance(outcome, Reply):
            self.answer_query(msg, outcome)

    def answer_query(self, msg: Message, reply: Reply) -> None:
        """Send the reply to a query, or an error if the reply cannot be packed or sent. Never raises."""
        try:
            self.replies.reply("query", msg.idents, msg, reply)
        except Exception as error:
            self.answer_query_error(msg, error)

    def answer_query_error(self, msg: Message, error: Exception) -> None:
        """Answer a query with an error. Never raises."""
        if isinstance(error, WireError):
            self.notices.wire_errors[error.kind] += 1
        if not isinstance(error, EXPECTED):
            error = self.notices.failed("query", error, msg_type=msg.header.msg_type, client=msg.header.session)
        reason = f"{type(error).__name__}: {error}"
        client, msg_type = msg.header.session, msg.header.msg_type
        log.warning("refused a query", kind="query_refused", msg_type=msg_type, client=client, error=reason)
        for _ in range(2):
            try:
                self.replies.reply("query", msg.idents, msg, Reply("hub_error", content_of(error)))
            except Exception as unexpected:
                error = self.notices.failed("query", unexpected, msg_type=msg.header.msg_type)
            else:
                return

    # Engines, and the connections to them

    def owes_answers(self, engine: EngineConnector) -> bool:
        """Return whether a client or a record still waits for an answer of a lost engine; True if not known."""
        try:
            return self.engines.owes_answers(engine)
        except Exception as error:
            self.notices.failed("end of an engine", error, engine=engine.id)
            return True

    def flush_route(self, engine: EngineConnector, channel: str) -> bool:
        """Send the messages that wait for an engine on a channel, see `Routes.flush`. False if it cannot be reached."""
        try:
            return self.routes.flush(engine, channel)
        except Exception as error:
            self.notices.failed("connection", error, engine=engine.id, channel=channel)
            return False

    def connection_lost(self, channel: str, ident: bytes | None, others: Container[bytes] = ()) -> None:
        """Handle a broken connection of an engine on a channel; the engine may be alive.

        Args:
            channel: the hub's channel to engines, such as ``"task_out"``.
            ident: the engine of the connection; None if nothing was ever received on the connection.
            others: if `ident` is None, the engines that have other connections on this channel.
        """
        try:
            if ident is None:
                self.routes.some_connection_lost(list(self.engines.alive.values()), channel, others)
            elif (engine := self.engines.by_ident.get(ident)) is not None:
                self.routes.engine_connection_lost(engine, channel)
        except Exception as error:
            self.notices.failed("connection", error, uuid=ident, channel=channel)

    def call_back(self, place: str, call: Callable[..., object], *arguments: Any) -> None:
        """Make a call that a part has asked for, when the store has answered or a timer has ended. Never raises."""
        try:
            call(*arguments)
        except Exception as error:
            self.notices.failed(place, error)

    # Stopping

    def stop_serving(self, *, carried_on: bool = False) -> None:
        """Stop: answer all pending and all later requests with an error, and tell all clients. Idempotent.

        If another hub is to carry on, recorded requests are left to that hub; only requests without a record are
        answered. Clients are not told then, since a stock client that is told closes its connections.
        """
        if self.intake.stopping:
            return
        self.intake.close(carried_on=carried_on)
        error = EngineError(STOPPED)
        guarded(self.notices, "stop", self.admission.stop_waiting)(error)
        for queue in (self.control,) if carried_on else (self.control, self.tasks, self.direct, self.broadcasts):
            guarded(self.notices, "stop", queue.stop)(error)
        if not carried_on:
            self.replies.notify("shutdown_notification", {"status": "ok"})

    # Numbers

    @property
    def submitted(self) -> dict[str, int]:
        """Requests received, by queue."""
        return dict(zip(QUEUES, (self.tasks.submitted, self.direct.submitted, self.broadcasts.submitted), strict=True))

    @property
    def tasks_submitted(self) -> int:
        return sum(self.submitted.values())

    @property
    def tasks_completed(self) -> int:
        return self.answers.count("ok")

    @property
    def tasks_failed(self) -> int:
        return self.answers.count("error")


def guarded(notices: Notices, place: str, call: Callable[P, None]) -> Callable[P, None]:
    """Return a function that makes the call, and reports an unexpected exception instead of raising it."""

    def call_guarded(*args: P.args, **kwargs: P.kwargs) -> None:
        try:
            call(*args, **kwargs)
        except Exception as error:
            notices.failed(place, error)

    return call_guarded
