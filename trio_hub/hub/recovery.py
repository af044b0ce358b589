"""Recovery: carries on with the requests that an earlier hub has left in the store.

The store knows which requests are not answered, and which engine each request was for. When the engine's heart is
heard, the hub finds out what the engine has done with the requests, see `trio_hub.hub.returning`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Generator, Mapping
from datetime import timedelta
from typing import Any

from ..errors import EngineError, HubError, WireError
from ..logs import get_logger
from ..records import Store
from ..records.record import TaskRecord
from ..schedulers.broadcast import sub_msg_id
from ..schedulers.task import Task
from ..wire.messages import Message, Session
from .answers import Answers, Asked
from .connector import EngineConnector, EngineState
from .custody import custody_of, identities, request_frames
from .direct import DirectQueue
from .engines import Engines
from .notices import Notices
from .owed import OwedResults
from .redelivery import Redelivery
from .restored import RestoredBroadcasts
from .tasks import TaskQueue

__all__ = ["Recovery"]

log = get_logger("trio_hub.hub")

JUST_NOW = timedelta(seconds=2)
"""At a restart, a result not noted as owed is presumed sent if the newest result is newer by more than this."""


class Recovery:
    """Takes over the requests of an earlier hub, or answers them with errors.

    Args:
        session, store: read messages and records.
        notices, redelivery, owed, answers, engines, tasks, direct, broadcasts: the parts of the hub below.
        carry_on: takes up the cancels, signals and kills of the earlier hub. It gets the msg_ids of the requests that
            the earlier hub was cancelling, with who has asked for it.
    """

    def __init__(
        self,
        session: Session,
        store: Store,
        *,
        notices: Notices,
        redelivery: Redelivery,
        owed: OwedResults,
        answers: Answers,
        engines: Engines,
        tasks: TaskQueue,
        direct: DirectQueue,
        broadcasts: RestoredBroadcasts,
        carry_on: Callable[[dict[str, str]], None],
    ) -> None:
        self._session = session
        self._store = store
        self._notices = notices
        self._redelivery = redelivery
        self._owed = owed
        self._answers = answers
        self._engines = engines
        self._tasks = tasks
        self._direct = direct
        self._broadcasts = broadcasts
        self._carry_on = carry_on

    def restore_engines(self, engines: Mapping[int, str], next_id: int) -> None:
        """Take up the engines of an earlier hub, given as uuids by id, before anything has been received.

        Clients see these engines at once, and the engines do not register again. An engine gets nothing before its
        heart is heard. When the time for that is over, `Hearts.purge_unheard` loses the engines that were not heard.

        Args:
            engines: the uuids of the engines, by id.
            next_id: the lowest id that the earlier hub never gave to an engine.
        """
        for engine_id, uuid in sorted(engines.items()):
            self._engines.restore_engine(engine_id, uuid)
        self._engines.reserve_ids(next_id)

    def remember_engines(self, engines: Mapping[int, str]) -> None:
        """Remember engines of an earlier hub, given as uuids by id: each is usable when its heart is heard.

        The hub does not list these engines before that. But `take_over` expects, under their ids, the engines that have
        unfinished requests.
        """
        for engine_id, uuid in sorted(engines.items()):
            if engine := self._engines.of_earlier_hub(engine_id, uuid):
                engine.state = EngineState.SETTLED
                cause = "its heart was not heard after the restart of the hub"
                self._engines.gone.remember(engine, cause, may_return=True)

    def take_over(self) -> Generator[Awaitable[Any], Any, int]:
        """Carry on with the unfinished requests in the store, and return their number.

        Call this before anything is received, and after `restore_engines`. Yields awaitables, like a query. A
        request that cannot be taken up is answered with an error.
        """
        records: list[TaskRecord] = yield self._store.unfinished()
        messages = {record.msg_id: self._message_of(record) for record in records}
        for msg_id, session in (yield self._store.undelivered(JUST_NOW)):
            if self._redelivery.was_delivered(msg_id):
                # The record may still say that the result is owed.
                self._owed.settled(msg_id)
            else:
                # The previous hub may have ended before it noted this result as owed. Note it now: if this hub ends,
                # the next hub may presume that the result was sent, since it is older than `JUST_NOW` by then.
                self._owed.owe(session, msg_id)
        gathered = {
            record.msg_id: self._targets(messages[record.msg_id])
            for record in records
            if record.queue == "broadcast" and record.engine_uuid is None
        }
        self._expect_engines(records, messages, gathered)
        shares: dict[str, TaskRecord] = {note.msg_id: note for note in (yield self._store.notes())}
        named = {sub_msg_id(msg_id, uuid) for msg_id, uuids in gathered.items() for uuid in uuids}
        for msg_id in shares.keys() - named:
            self._store.discard(msg_id)  # the previous hub ended after the last answer, before it did this
        waiting: list[Task] = []
        for record in records:
            message = messages[record.msg_id]
            try:
                task = self._take_over(record, message, shares)
            except Exception as error:
                if not isinstance(error, HubError):
                    error = self._notices.failed("recovery", error, task=record.msg_id)
                self._give_up(record, message, EngineError(f"the hub cannot carry on with {record.msg_id}: {error}"))
            else:
                if task is not None:
                    waiting.append(task)
        for task in waiting:
            self._tasks.resume(task)
        notes = {record.msg_id: custody_of(record).cancelled_by for record in records}
        self._carry_on({msg_id: by for msg_id, by in notes.items() if by is not None})
        return len(records)

    def write_off(self) -> Generator[Awaitable[Any], Any, int]:
        """Answer the unfinished requests in the store with errors. Yields and returns like `take_over`."""
        records: list[TaskRecord] = yield self._store.unfinished()
        for note in (yield self._store.notes()):
            self._store.discard(note.msg_id)
        for record in records:
            message = self._message_of(record)
            error = EngineError("the hub ended before this request was answered, and was not told to carry on")
            self._give_up(record, message, error)
        return len(records)

    def _take_over(self, record: TaskRecord, message: Message | None, shares: dict[str, TaskRecord]) -> Task | None:
        """Hand a request to its queue.

        Return a task that is to be submitted after all requests were taken over, or None.
        """
        if message is None:
            raise WireError("malformed", "its record is damaged")
        engine = self._engine_of(record.engine_uuid)
        if record.queue == "task":
            return self._tasks.take_over(record, message, engine)
        if record.queue == "mux":
            self._direct.take_over(message, engine)
        elif record.engine_uuid is not None:
            self._broadcasts.take_over_share(message, engine)
        else:
            self._broadcasts.take_over(message, shares)
        return None

    def _message_of(self, record: TaskRecord) -> Message | None:
        """Return the request message of a record; None if the record is damaged."""
        try:
            return self._session.read_trusted(self._identities(record), request_frames(record, self._session))
        except WireError as error:
            log.warning("a record is damaged", task=record.msg_id, error=error)
        except Exception as error:
            self._notices.failed("recovery", error, task=record.msg_id)
        return None

    def _identities(self, record: TaskRecord) -> list[bytes]:
        """Return the identities of the client; none if it has got the result, and only the record lacks the result."""
        if self._redelivery.was_delivered(record.msg_id):
            self._redelivery.presume_sent(record.msg_id, record.client_uuid or "")
            return []
        return identities(custody_of(record))

    def _targets(self, message: Message | None) -> list[str]:
        try:
            return [] if message is None else [uuid for uuid, _ in self._session.broadcast_metadata(message).targets]
        except WireError:
            return []

    def _wanted_by(self, message: Message | None) -> list[str]:
        """Return the uuids of the remembered engines that a task may need: its targets, or all if it has `follow`."""
        try:
            metadata = None if message is None else self._session.task_metadata(message)
        except WireError:
            return []
        if metadata is None or not (metadata.targets or metadata.follow):
            return []
        targets = metadata.targets or ()
        return [engine.uuid for engine in self._engines.gone if metadata.follow or engine.uuid in targets]

    def _expect_engines(
        self, records: list[TaskRecord], messages: dict[str, Message | None], gathered: dict[str, list[str]]
    ) -> None:
        """Restore the engines that may have requests, and the engines without which a task could never run.

        An engine that has requests may be in no list: it may have come just before the hub ended.

        Args:
            records, messages: the unfinished requests, and their messages by msg_id.
            gathered: the uuids of the targets of each gathered broadcast among them, by msg_id.
        """
        uuids = {record.engine_uuid for record in records if record.engine_uuid is not None}
        uuids.update(*gathered.values())
        for record in records:
            if record.queue == "task":
                uuids.update(self._wanted_by(messages[record.msg_id]))
        for uuid in sorted(uuids):
            if self._engine_of(uuid) is None:
                known = self._engines.gone.of(uuid.encode("utf-8", "replace"))
                offers = None if known is None else dict(known.offers)
                engine = self._engines.restore_engine(None if known is None else known.id, uuid, offers)
                if engine is not None and known is not None:
                    engine.host, engine.pid = known.host, known.pid
                    engine.aims_interrupts, engine.leaves_at = known.aims_interrupts, known.leaves_at
                    engine.block = known.block

    def _engine_of(self, uuid: str | None) -> EngineConnector | None:
        return None if uuid is None else self._engines.by_ident.get(uuid.encode("utf-8", "replace"))

    def _give_up(self, record: TaskRecord, message: Message | None, error: HubError) -> None:
        session = record.client_uuid or ""
        channel = f"{record.queue}_in"
        if message is None:
            msg_type = "apply_request"
            header = {"msg_id": record.msg_id, "msg_type": msg_type, "session": session}
            raw_header = self._session.packer.pack(header)
            asked = Asked(channel, self._identities(record), session, record.msg_id, raw_header, msg_type)
        else:
            asked = Asked(channel, message.idents, session, record.msg_id, message.raw_header, message.header.msg_type)
        self._answers.fail(asked, record.engine_uuid, error)
