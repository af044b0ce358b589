"""Clients' queries: each handler gets the sender's identities and the message, and returns the reply.

A handler that has to wait, for the store for instance, is a generator: it yields an awaitable and is sent its result.
So the handlers are plain synchronous code, and only the runtime waits.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable, Generator, Sequence
from datetime import datetime
from itertools import chain
from typing import Any

from ..logs import get_logger
from ..records import Store, parse_query
from ..records.record import TaskRecord
from ..wire.frames import Buffer
from ..wire.messages import Header, Message, Session
from .answers import Answers
from .connector import EngineConnector
from .engines import Engines, engine_named
from .events import HubShutdownRequested, RecordsPurged, RequestsAborted, RequestsResubmitted
from .notices import Notices
from .owed import OwedResults
from .ports import Host, RunningQuery
from .records import HUB_NOTES, init_record
from .redelivery import Redelivery
from .replies import Reply
from .results import buffers_for, result_of
from .tasks import TaskQueue

__all__ = ["Queries", "list_of_text"]

log = get_logger("trio_hub.hub")

NOT_REPEATED = ("after", "follow", HUB_NOTES)
"""Metadata that a resubmitted task does not have: dependencies, which were met the first time, and the hub's notes."""


class Queries:
    """Answers clients' queries.

    Args:
        host, session, store: access to the runtime, to messages and records.
        notices: passes on events.
        now: the current time, aware and in UTC.
        redelivery, owed, answers, engines, tasks: the parts of the hub below.
        abort: aborts requests for a client, and returns the msg_ids of those that no engine has.
        is_pending: whether a request with a msg_id waits for its answer, in any queue.
    """

    def __init__(
        self,
        host: Host,
        session: Session,
        store: Store,
        notices: Notices,
        now: Callable[[], datetime],
        *,
        redelivery: Redelivery,
        owed: OwedResults,
        answers: Answers,
        engines: Engines,
        tasks: TaskQueue,
        abort: Callable[[Header, Sequence[str]], list[str]],
        is_pending: Callable[[str], bool],
    ) -> None:
        self._host = host
        self._session = session
        self._store = store
        self._notices = notices
        self._now = now
        self._redelivery = redelivery
        self._owed = owed
        self._answers = answers
        self._engines = engines
        self._tasks = tasks
        self._abort = abort
        self._is_pending = is_pending

    def connection_request(self, client_id: list[bytes], msg: Message) -> Reply:
        """Reply with the uuids of all engines by id. The addresses are in the client's connection file."""
        engines = {str(engine.id): engine.uuid for engine in self._engines.alive.values()}
        if self._engines.changes.client_asked(msg.header.session):  # later requests of this client are pings
            log.info("client connected", client=msg.header.session)
        return Reply("connection_reply", {"status": "ok", "engines": engines})

    def queue_status(self, client_id: list[bytes], msg: Message) -> RunningQuery:
        """Reply with the outstanding and completed requests of the engines that the client names.

        Per engine: ``queue`` (direct requests) and ``tasks`` that are outstanding, and ``completed``; as counts, or
        with ``verbose`` as msg_ids. ``unassigned`` are the tasks that no engine has yet.
        """
        content = self._session.content(msg)
        engines = _named_engines(self._engines, content.get("targets"))
        reply: dict[str, Any] = {"status": "ok"}
        if not content.get("verbose"):
            for engine in engines:
                tasks = len(engine.worker.running) if engine.worker else 0
                reply[str(engine.id)] = {
                    "queue": len(engine.mux) + len(engine.broadcast),
                    "completed": engine.completed,
                    "tasks": tasks,
                }
            reply["unassigned"] = len(self._tasks.scheduler.tasks) - self._tasks.scheduler.running
            return Reply("queue_reply", reply)
        completed: dict[str, list[str]] = {engine.uuid: [] for engine in engines}
        query = parse_query({"engine_uuid": {"$in": list(completed)}, "completed": {"$ne": None}})
        for record in (yield self._store.find(query, ("engine_uuid",))):
            completed[record["engine_uuid"]].append(record["msg_id"])
        for engine in engines:
            reply[str(engine.id)] = {
                "queue": [*engine.mux.pending, *engine.broadcast.pending],
                "completed": completed[engine.uuid],
                "tasks": list(engine.worker.running) if engine.worker else [],
            }
        reply["unassigned"] = [task.msg_id for task in self._tasks.scheduler.tasks.values() if task.worker is None]
        return Reply("queue_reply", reply)

    def check_load(self, client_id: list[bytes], msg: Message) -> Reply:
        """Reply with the number of outstanding requests per engine, by id."""
        engines = _named_engines(self._engines, self._session.content(msg).get("targets"))
        return Reply("load_reply", {"status": "ok"} | {str(engine.id): len(engine.pending) for engine in engines})

    def get_results(self, client_id: list[bytes], msg: Message) -> RunningQuery:
        """Reply with the results of requests; with ``status_only``, only with the pending and the completed msg_ids."""
        content = self._session.content(msg)
        msg_ids = sorted(wanted := Counter(list_of_text(content.get("msg_ids"), "msg_ids")))
        status_only = bool(content.get("status_only"))
        # Found before the store is asked, since a request may finish meanwhile.
        live = {msg_id for msg_id in msg_ids if self._is_pending(msg_id) or msg_id in self._answers.unsaved}
        asked = [msg_id for msg_id in msg_ids if msg_id not in live]
        # A client that asks for its own result does not have it: the previous hub ended before the result had left.
        self._redelivery.asked_about(msg.header.session, live)
        records: dict[str, TaskRecord] = yield self._store.get(asked)
        pending: list[str] = []
        completed: list[str] = []
        reply: dict[str, Any] = {"status": "ok", "pending": pending, "completed": completed}
        buffers: list[Buffer] = []
        for msg_id in msg_ids:
            record = records.get(msg_id)
            if record is None and msg_id not in live:
                raise KeyError(f"No such message: {msg_id}")
            if record is None or record.completed is None:
                pending.append(msg_id)
            else:
                completed.append(msg_id)
                if not status_only:
                    result = reply[msg_id] = result_of(record)
                    values = buffers_for(record, result, is_stock=msg.header.is_stock, is_alone=len(msg_ids) == 1)
                    buffers += wanted[msg_id] * values  # a stock client reads one value per occurrence of a msg_id
        if status_only:
            self._owed.asked_about(msg.header.session, [records[msg_id] for msg_id in completed])
        return Reply("result_reply", reply, buffers)

    def get_history(self, client_id: list[bytes], msg: Message) -> RunningQuery:
        """Reply with all msg_ids in the store, in the order of submission."""
        history = yield self._store.history()
        return Reply("history_reply", {"status": "ok", "history": history})

    def db_query(self, client_id: list[bytes], msg: Message) -> RunningQuery:
        """Reply with the records that match a query.

        The buffers of the records follow the content. The content has the number of buffers of each record.
        """
        content = self._session.content(msg)
        query = parse_query({} if content.get("query") is None else content["query"])
        keys = None if content.get("keys") is None else list_of_text(content["keys"], "keys")
        records: list[dict[str, Any]] = yield self._store.find(query, keys)
        requests: list[Sequence[Buffer]] = [record.pop("buffers", None) or () for record in records]
        results: list[Sequence[Buffer]] = [record.pop("result_buffers", None) or () for record in records]
        reply = {
            "status": "ok",
            "records": records,
            "buffer_lens": list(map(len, requests)) if keys and "buffers" in keys else None,
            "result_buffer_lens": list(map(len, results)) if keys and "result_buffers" in keys else None,
        }
        # a client reads the request buffers of a record first, then its result buffers
        of_records = chain.from_iterable(zip(requests, results, strict=True))
        return Reply("db_reply", reply, list(chain.from_iterable(of_records)))

    def purge_results(self, client_id: list[bytes], msg: Message) -> RunningQuery:
        """Drop records of finished requests: all, or the records of the given msg_ids and engines."""
        content = self._session.content(msg)
        msg_ids = content.get("msg_ids") or []
        if msg_ids == "all":
            queries: list[dict[str, Any]] = [{"completed": {"$ne": None}}]
        else:
            msg_ids = list_of_text(msg_ids, "msg_ids")
            pending = next((msg_id for msg_id in msg_ids if self._is_pending(msg_id)), None)
            if pending is not None:
                raise IndexError(f"msg pending: {pending!r}")
            engine_ids = content.get("engine_ids")
            names_engines = engine_ids not in (None, [])  # 0 is an engine's id
            engines = _named_engines(self._engines, engine_ids) if names_engines else []
            queries = [{"msg_id": {"$in": msg_ids}}] if msg_ids else []
            queries += [{"engine_uuid": engine.uuid, "completed": {"$ne": None}} for engine in engines]
        purged = 0
        for query in map(parse_query, queries):
            purged += yield self._store.drop(query)
        self._notices.client_did(RecordsPurged, msg.header, purged)
        return Reply("purge_reply", {"status": "ok"})

    def resubmit_task(self, client_id: list[bytes], msg: Message) -> RunningQuery:
        """Run finished or pending requests again, as new tasks, and reply with the new msg_ids."""
        msg_ids = list_of_text(self._session.content(msg).get("msg_ids"), "msg_ids")
        resubmitted = yield from self.resubmit(msg_ids)
        self._notices.client_did(RequestsResubmitted, msg.header, len(resubmitted))
        return Reply("resubmit_reply", {"status": "ok", "resubmitted": resubmitted})

    def resubmit(self, msg_ids: list[str]) -> Generator[Awaitable[Any], Any, dict[str, str]]:
        """Run requests again, and return their new msg_ids by the old ones. Yields awaitables, like a query.

        Raises:
            KeyError: one of the requests has no record.
        """
        records: dict[str, TaskRecord] = yield self._store.get(msg_ids)
        missing = [msg_id for msg_id in msg_ids if msg_id not in records or records[msg_id].header is None]
        if missing:
            raise KeyError(f"No such msg(s): {missing!r}")
        return {msg_id: self._resubmit(records[msg_id]) for msg_id in dict.fromkeys(msg_ids)}

    def _resubmit(self, old_record: TaskRecord) -> str:
        old = old_record.as_dict(("header", "metadata", "content"))
        msg_id = self._session.new_msg_id()
        header = old["header"] | {"msg_id": msg_id, "date": self._now().isoformat()}
        metadata = {key: value for key, value in (old["metadata"] or {}).items() if key not in NOT_REPEATED}
        frames = self._session.write(
            header["msg_type"], old["content"], metadata=metadata, buffers=old_record.buffers or (), header=header
        )
        task_message = self._session.read_trusted([], frames)
        task_metadata = self._session.task_metadata(task_message)
        record = init_record(task_message, self._session.packer, queue="task", now=self._now, label=task_metadata.label)
        task = self._tasks.make_task([], task_message, task_metadata)
        self._store.update(old_record.msg_id, {"resubmitted": msg_id})
        self._tasks.record_and_submit(record, task, task_message, task_metadata.label)
        return msg_id

    def abort_request(self, client_id: list[bytes], msg: Message) -> Reply:
        """Abort requests that no engine has yet, and reply with their msg_ids. Stock clients ask only engines."""
        msg_ids = list_of_text(self._session.content(msg).get("msg_ids"), "msg_ids")
        aborted = self._abort(msg.header, msg_ids)
        if aborted:
            self._notices.client_did(RequestsAborted, msg.header, len(aborted))
        return Reply("abort_reply", {"status": "ok", "aborted": aborted})

    def shutdown_request(self, client_id: list[bytes], msg: Message) -> Reply:
        """Stop the hub in good order, since a client asks for it. The hub tells all clients."""
        self._notices.client_did(HubShutdownRequested, msg.header)
        self._host.stop("a client's shutdown_request", for_good=True)
        return Reply("shutdown_reply", {"status": "ok"})

    def become_dask(self, client_id: list[bytes], msg: Message) -> RunningQuery:
        """Start a Dask scheduler unless one runs, and reply with its address. The client makes engines its workers."""
        scheduler_args = self._session.content(msg).get("scheduler_args")
        if scheduler_args is None:
            scheduler_args = {}
        if not isinstance(scheduler_args, dict):
            raise TypeError(f"scheduler_args must be a dict, not {str(scheduler_args)[:100]!r}")
        scheduler = yield self._host.become_dask(scheduler_args)
        return Reply("become_dask_reply", {"status": "ok"} | scheduler)

    def stop_distributed(self, client_id: list[bytes], msg: Message) -> RunningQuery:
        """End the Dask scheduler, if one runs."""
        yield self._host.stop_dask()
        return Reply("stop_distributed_reply", {"status": "ok"})


def _named_engines(registry: Engines, targets: Any) -> list[EngineConnector]:
    """Return the engines that targets name: None for all, or an id, a uuid, or a list of these."""
    if targets is None:
        return list(registry.alive.values())
    if isinstance(targets, (int, str)):
        targets = [targets]
    if not isinstance(targets, list):
        raise TypeError(f"targets must be engine ids or uuids, not {targets!r}")
    engines = []
    bad = []
    for target in targets:
        engine = engine_named(registry, target)
        if engine is None:
            bad.append(target)
        else:
            engines.append(engine)
    if bad:
        raise IndexError(f"No Such Engine: {bad!r}")
    if not engines:
        raise IndexError("No Engines Registered")
    return engines


def list_of_text(value: Any, name: str) -> list[str]:
    """Return what a query names, one text or a list of texts, as a list. Raises `TypeError` for any other value."""
    if isinstance(value, str):
        return [value]
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise TypeError(f"{name} must be a list of texts, not {str(value)[:100]!r}")
    return value
