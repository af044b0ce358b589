"""Clients' queries: each handler gets the sender's identities and the message, and gives the reply.

A handler that has to wait, for the store say, is a generator: it yields what is to be awaited and is sent what
comes of it. So all of it is plain synchronous code, and the waiting is the runtime's.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Generator, Sequence
from datetime import datetime
from itertools import chain
from typing import Any

from ..logs import get_logger
from ..store import Store, parse_query
from ..store.record import TaskRecord
from ..wire.frames import Buffer
from ..wire.messages import Message, Session
from .answers import Answers
from .connector import EngineConnector
from .engines import Engines
from .owed import OwedResults
from .ports import Host, Query
from .records import init_record
from .redelivery import Redelivery
from .replies import Reply
from .tasks import TaskQueue

__all__ = ["Queries"]

log = get_logger("trio_hub.hub")


class Queries:
    """Answers clients' queries.

    Args:
        host, session, store: the ways to the runtime, to messages and records.
        now: the current time, aware and in UTC.
        redelivery, owed, answers, engines, tasks: the parts of the hub below.
        is_pending: whether a request of a msg_id is waiting for its answer, in whichever queue.
    """

    def __init__(
        self,
        host: Host,
        session: Session,
        store: Store,
        now: Callable[[], datetime],
        *,
        redelivery: Redelivery,
        owed: OwedResults,
        answers: Answers,
        engines: Engines,
        tasks: TaskQueue,
        is_pending: Callable[[str], bool],
    ) -> None:
        self._host = host
        self._session = session
        self._store = store
        self._now = now
        self._redelivery = redelivery
        self._owed = owed
        self._answers = answers
        self._engines = engines
        self._tasks = tasks
        self._is_pending = is_pending

    def connection_request(self, client_id: list[bytes], msg: Message) -> Reply:
        """The engines there are, by id; where to connect is in the client's connection file."""
        engines = {str(engine.id): engine.uuid for engine in self._engines.alive.values()}
        log.info("client connected", client=msg.header.session)
        return Reply("connection_reply", {"status": "ok", "engines": engines})

    def queue_status(self, client_id: list[bytes], msg: Message) -> Query:
        """What the engines asked for have before and behind them.

        For each: ``queue`` (direct requests) and ``tasks`` that are outstanding, and ``completed``; counts, or
        with ``verbose`` msg_ids. ``unassigned`` are the tasks that no engine has yet.
        """
        content = self._session.content(msg)
        engines = self._validate_targets(content.get("targets"))
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
        """How many requests each engine has outstanding, by id."""
        engines = self._validate_targets(self._session.content(msg).get("targets"))
        return Reply("load_reply", {"status": "ok"} | {str(engine.id): len(engine.pending) for engine in engines})

    def get_results(self, client_id: list[bytes], msg: Message) -> Query:
        """The results of one or more requests, or with ``status_only`` whether they are there."""
        content = self._session.content(msg)
        msg_ids = sorted(set(_list_of_text(content.get("msg_ids"), "msg_ids")))
        status_only = bool(content.get("status_only"))
        # as of now: one may finish while the store is asked
        live = {msg_id for msg_id in msg_ids if self._is_pending(msg_id) or msg_id in self._answers.unsaved}
        asked = [msg_id for msg_id in msg_ids if msg_id not in live]
        # who asks for its own result does not have it, though the hub before had sent it: that was killed too soon
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
                    reply[msg_id] = _result_of(record)
                    buffers.extend(record.result_buffers or ())
        if status_only:
            self._owed.asked_about(msg.header.session, [records[msg_id] for msg_id in completed])
        return Reply("result_reply", reply, buffers)

    def get_history(self, client_id: list[bytes], msg: Message) -> Query:
        """All msg_ids in the store, by time of submission."""
        history = yield self._store.history()
        return Reply("history_reply", {"status": "ok", "history": history})

    def db_query(self, client_id: list[bytes], msg: Message) -> Query:
        """The records that match a query; buffers travel behind the content, and their numbers in it."""
        content = self._session.content(msg)
        query = parse_query({} if content.get("query") is None else content["query"])
        keys = None if content.get("keys") is None else _list_of_text(content["keys"], "keys")
        records: list[dict[str, Any]] = yield self._store.find(query, keys)
        requests: list[Sequence[Buffer]] = [record.pop("buffers", None) or () for record in records]
        results: list[Sequence[Buffer]] = [record.pop("result_buffers", None) or () for record in records]
        reply = {
            "status": "ok",
            "records": records,
            "buffer_lens": list(map(len, requests)) if keys and "buffers" in keys else None,
            "result_buffer_lens": list(map(len, results)) if keys and "result_buffers" in keys else None,
        }
        # a client takes a record's request buffers first, then its result buffers
        of_records = chain.from_iterable(zip(requests, results, strict=True))
        return Reply("db_reply", reply, list(chain.from_iterable(of_records)))

    def purge_results(self, client_id: list[bytes], msg: Message) -> Query:
        """Forget finished requests: all, or those of the msg_ids and engines given."""
        content = self._session.content(msg)
        msg_ids = content.get("msg_ids") or []
        if msg_ids == "all":
            queries: list[dict[str, Any]] = [{"completed": {"$ne": None}}]
        else:
            msg_ids = _list_of_text(msg_ids, "msg_ids")
            pending = next((msg_id for msg_id in msg_ids if self._is_pending(msg_id)), None)
            if pending is not None:
                raise IndexError(f"msg pending: {pending!r}")
            engine_ids = content.get("engine_ids")
            engines = [] if engine_ids in (None, []) else self._validate_targets(engine_ids)  # 0 is an engine's id
            queries = [{"msg_id": {"$in": msg_ids}}] if msg_ids else []
            queries += [{"engine_uuid": engine.uuid, "completed": {"$ne": None}} for engine in engines]
        for query in map(parse_query, queries):
            yield self._store.drop(query)
        return Reply("purge_reply", {"status": "ok"})

    def resubmit_task(self, client_id: list[bytes], msg: Message) -> Query:
        """Run finished or pending requests again, as new tasks; their results are asked for by the new msg_ids."""
        msg_ids = _list_of_text(self._session.content(msg).get("msg_ids"), "msg_ids")
        resubmitted = yield from self.resubmit(msg_ids)
        return Reply("resubmit_reply", {"status": "ok", "resubmitted": resubmitted})

    def resubmit(self, msg_ids: list[str]) -> Generator[Awaitable[Any], Any, dict[str, str]]:
        """Run requests again; their new msg_ids, by the old ones. Yields what is to be awaited, like a query.

        Raises:
            KeyError: there is no record of one of them.
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
        # its dependencies were met the first time
        metadata = {key: value for key, value in (old["metadata"] or {}).items() if key not in ("after", "follow")}
        frames = self._session.write(
            header["msg_type"], old["content"], metadata=metadata, buffers=old_record.buffers or (), header=header
        )
        task_message = self._session.read_trusted([], frames)
        task_metadata = self._session.task_metadata(task_message)
        record = init_record(
            task_message, self._session.packer, queue="task", now=self._now(), label=task_metadata.label
        )
        task = self._tasks.make_task([], task_message, task_metadata)
        self._store.update(old_record.msg_id, {"resubmitted": msg_id})
        self._tasks.record_and_submit(record, task, task_message, task_metadata.label)
        return msg_id

    def abort_request(self, client_id: list[bytes], msg: Message) -> Reply:
        """Withdraw tasks that no engine has yet; which these were. A stock client asks engines only."""
        msg_ids = _list_of_text(self._session.content(msg).get("msg_ids"), "msg_ids")
        return Reply("abort_reply", {"status": "ok", "aborted": self._tasks.scheduler.abort(msg_ids)})

    def shutdown_request(self, client_id: list[bytes], msg: Message) -> Reply:
        """A client stops the hub: it stops in good order, and all clients are told."""
        self._host.stop("a client's shutdown_request", for_good=True)
        return Reply("shutdown_reply", {"status": "ok"})

    def become_dask(self, client_id: list[bytes], msg: Message) -> Query:
        """A Dask scheduler, which the client will turn engines into workers of: where it is, once it is ready."""
        scheduler_args = self._session.content(msg).get("scheduler_args")
        if scheduler_args is None:
            scheduler_args = {}
        if not isinstance(scheduler_args, dict):
            raise TypeError(f"scheduler_args must be a dict, not {str(scheduler_args)[:100]!r}")
        scheduler = yield self._host.become_dask(scheduler_args)
        return Reply("become_dask_reply", {"status": "ok"} | scheduler)

    def stop_distributed(self, client_id: list[bytes], msg: Message) -> Query:
        """The end of the Dask scheduler, if there is one."""
        yield self._host.stop_dask()
        return Reply("stop_distributed_reply", {"status": "ok"})

    def _validate_targets(self, targets: Any) -> list[EngineConnector]:
        """The engines that are meant: None is all, else ids or uuids, one or a list."""
        if targets is None:
            return list(self._engines.alive.values())
        if isinstance(targets, (int, str)):
            targets = [targets]
        if not isinstance(targets, list):
            raise TypeError(f"targets must be engine ids or uuids, not {targets!r}")
        engines = []
        bad = []
        for target in targets:
            if isinstance(target, str):
                engine = self._engines.by_ident.get(target.encode("utf-8", "replace"))
            else:
                engine = self._engines.alive.get(target) if type(target) is int else None
            if engine is None:
                bad.append(target)
            else:
                engines.append(engine)
        if bad:
            raise IndexError(f"No Such Engine: {bad!r}")
        if not engines:
            raise IndexError("No Engines Registered")
        return engines


def _list_of_text(value: Any, name: str) -> list[str]:
    if isinstance(value, str):
        return [value]
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise TypeError(f"{name} must be a list of texts, not {str(value)[:100]!r}")
    return value


def _result_of(record: TaskRecord) -> dict[str, Any]:
    result = record.as_dict(("header", "metadata", "result_metadata", "result_header", "result_content", "received"))
    # a stock client reads these as dicts
    result["result_metadata"] = result["result_metadata"] or {}
    result["io"] = record.as_dict(("execute_input", "execute_result", "error", "stdout", "stderr"))
    return result
