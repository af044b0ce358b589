"""Engines that come back: engines of an earlier hub, and engines that were gone.

When the heart of an engine is heard that has requests of an earlier hub:

- answers that the engine still holds come by themselves, once its connection is back;
- the hub sends direct requests once more, with the same bytes. The engine drops a request that it has received before;
- then the hub sends a question (a probe) on the same channel. The engine answers in the order in which it was asked. So
  when the answer to the question has come, all earlier answers have come too, and the other answers were lost.

A load-balanced task whose answer was lost is run again. A direct request, or a share of a broadcast, is not, since it
may have changed the engine's state: its client gets an error that says so.

A gone engine that comes back, or an engine that was idle when the earlier hub ended, has no such requests. But pongs
are not signed, and the engine may have lost its connections. So the hub asks the engine one question. The engine is
usable when it has answered.
"""

from __future__ import annotations

from typing import Any

from ..errors import StoreError
from ..logs import get_logger
from ..records.record import TaskRecord
from ..schedulers.task import SentBy
from ..schedulers.tasks import TaskScheduler
from ..schedulers.unanswered import Direct, Lane
from ..wire.frames import Frames
from .broadcasts import Broadcasts
from .connector import EngineConnector, EngineState
from .direct import DirectQueue
from .engines import Engines
from .events import EngineReturned
from .notices import Notices
from .ports import Host, Queue
from .routes import RESTARTED, Routes, recorded_as

__all__ = ["ReturningEngines"]

log = get_logger("trio_hub.hub")

SENT_AT_A_TIME = 100
"""The maximum number of requests that are read from the store in one call."""


class ReturningEngines:
    """Finds out what became of an earlier hub's requests on an engine, and gives the engine new work.

    Args:
        host: access to the store and to the sockets.
        notices, routes, engines, direct, broadcasts, scheduler: the parts of the hub below.
    """

    def __init__(
        self,
        host: Host,
        *,
        notices: Notices,
        routes: Routes,
        engines: Engines,
        direct: DirectQueue,
        broadcasts: Broadcasts,
        scheduler: TaskScheduler,
    ) -> None:
        self._host = host
        self._notices = notices
        self._routes = routes
        self._engines = engines
        self._direct = direct
        self._broadcasts = broadcasts
        self._scheduler = scheduler

    def engine_returned(self, engine: EngineConnector) -> None:
        """Begin to find out what became of an expected engine's requests; ask a gone engine whether it is back.

        Called when the heart of the engine is heard.
        """
        if not engine.state.is_registered:
            self._routes.ask_gone_engine(engine)
            return
        log.info("engine is back", engine=engine.id, uuid=engine.uuid)
        if self._host.listening:
            self._notices.tell(EngineReturned(engine.id, engine.uuid))
        directs = [*_left_on(engine.mux), *_left_on(engine.broadcast)]
        self._send_again(engine, directs, [])

    def engine_proven(self, engine: EngineConnector) -> None:
        """Make a gone engine usable again, under its id, since it has proven on one channel that it is back.

        Its unanswered requests are settled first. The engine then has to answer a question on each other channel, too.
        """
        if self._engines.gone.that_may_return(engine.ident) is not engine:
            return
        self._engines.handle_stranded(engine)
        self._host.start_engine(engine)
        self._engines.gone.forget(engine.ident)
        engine.cause, engine.may_return = "", False
        self._engines.make_usable(engine)
        for channel in ("mux_out", self._broadcasts.channel_of(engine), "control_out"):
            self._routes.engine_connection_lost(engine, channel)

    def _send_again(
        self, engine: EngineConnector, directs: list[Direct], unsent: list[tuple[str, Frames, str]]
    ) -> None:
        """Send an engine the requests that it may not have received, then ask it a question.

        The engine's connections may open after its heart is heard: messages that cannot be sent yet are kept in
        `unsent`.
        """
        now, later = directs[:SENT_AT_A_TIME], directs[SENT_AT_A_TIME:]
        if not now:
            self._sort_out(engine, unsent)
            return

        def send(answer: Any) -> None:
            if engine.state is not EngineState.RETURNING:
                return
            records: dict[str, TaskRecord] = {} if isinstance(answer, Exception) else answer
            for direct in now:
                record = records.get(recorded_as(direct))
                if record is not None:
                    self._send_one(engine, direct, record, unsent)
            self._send_again(engine, later, unsent)

        msg_ids = list({recorded_as(direct): None for direct in now})
        try:
            self._host.ask_store(lambda store: store.fetch(msg_ids), send)
        except Exception as error:
            self._notices.failed("return of an engine", error, engine=engine.id)
            self._sort_out(engine, unsent)

    def _send_one(
        self, engine: EngineConnector, direct: Direct, record: TaskRecord, unsent: list[tuple[str, Frames, str]]
    ) -> None:
        msg_id = direct.header.msg_id
        queue: Queue = self._direct if direct.lane is engine.mux else self._broadcasts
        channel = "mux_out" if direct.lane is engine.mux else self._broadcasts.channel_of(engine)
        try:
            frames = [*direct.idents, *queue.frames_of(direct, record)]
            if unsent or not self._host.send(channel, [engine.ident, *frames]):
                unsent.append((channel, frames, msg_id))
        except StoreError as error:  # its buffers are lost; the engine may have received it from the earlier hub
            log.warning("a request cannot be sent once more", task=msg_id, engine=engine.id, error=error)
        except Exception as error:
            reason = self._notices.failed("return of an engine", error, engine=engine.id, task=msg_id)
            queue.give_up(engine.ident, msg_id, reason)

    def _sort_out(self, engine: EngineConnector, unsent: list[tuple[str, Frames, str]]) -> None:
        """Ask an engine a question per channel, behind the requests that were sent again, and give it new work."""
        engine.state = EngineState.ALIVE
        worker = engine.worker
        assert worker is not None
        parked, engine.parked = engine.parked, []
        for channel, frames, msg_id in unsent:
            self._routes.send(engine, channel, frames, msg_id)
        self._probe(engine, "task_out", list(worker.running))
        self._probe(engine, "mux_out", [direct.header.msg_id for direct in _left_on(engine.mux)])
        shares = [direct.header.msg_id for direct in _left_on(engine.broadcast)]
        self._probe(engine, self._broadcasts.channel_of(engine), shares)
        for channel, frames, msg_id in parked:
            self._routes.send(engine, channel, frames, msg_id)
        self._scheduler.engine_back(worker)

    def _probe(self, engine: EngineConnector, channel: str, msg_ids: list[str]) -> None:
        try:
            self._routes.probe(engine, channel, msg_ids, RESTARTED, is_last=True)
        except Exception as error:
            self._notices.failed("return of an engine", error, engine=engine.id)


def _left_on(lane: Lane) -> list[Direct]:
    """Return the requests of an earlier hub that an engine has not answered."""
    return [direct for direct in lane.pending.values() if direct.sent_by is SentBy.EARLIER_HUB]
