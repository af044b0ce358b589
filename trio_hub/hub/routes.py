"""Sends messages to engines, keeps messages for engines that cannot be reached, and checks connections after a break.

A heart can be heard before the engine's other connections are open, and a connection can break while the engine lives.
Then the engine has a `Route` on that channel, which keeps its messages in order. On a suspect route the hub first sends
a question (a probe). The engine's answer is signed, and comes after all its earlier answers. So the answer proves that
the engine is at the other end, and shows which answers were lost.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Mapping
from functools import partial
from typing import Any

from ..errors import HubError, StoreError
from ..logs import get_logger
from ..records.record import TaskRecord
from ..schedulers.task import Worker
from ..schedulers.unanswered import Direct
from ..wire.frames import Frames
from ..wire.messages import Session
from .connector import EngineConnector, EngineState, Probe, Route
from .notices import Notices
from .ports import Host, Queue

__all__ = ["DISCONNECTED", "RESTARTED", "Routes", "recorded_as"]

log = get_logger("trio_hub.hub")

_ALIVE = EngineState.ALIVE
"""A global for code that runs for each message: looking up a member of an enum takes five times as long as a global."""
PROBE = "kernel_info_request"
RESTARTED = "the hub was restarted"
DISCONNECTED = "the connection to the engine broke"
"""The causes by which requests can be lost, as error texts name them."""


def _nobody(engine: EngineConnector) -> None:
    """Do nothing. Used as callback until `Routes.connect` is called."""


class Routes:
    """Sends messages to engines, now or when they can be reached, and asks them questions.

    Args:
        host, session: access to sockets and messages.
        notices: counts and logs errors.
    """

    def __init__(self, host: Host, session: Session, notices: Notices) -> None:
        self._host = host
        self._soon = host.soon
        self._session = session
        self._notices = notices
        self._queues: Mapping[str, Queue] = {}
        self._proven: Callable[[EngineConnector], None] = _nobody
        self.probes: dict[str, Probe] = {}
        """Questions to engines that are not answered yet, by msg_id."""

    def connect(self, queues: Mapping[str, Queue], proven: Callable[[EngineConnector], None] = _nobody) -> None:
        """Set the queue of each channel, and a callback for gone engines that have answered a question. Call once."""
        self._queues = queues
        self._proven = proven

    # Sending

    def send(self, engine: EngineConnector, channel: str, frames: Frames, msg_id: str) -> None:
        """Send a message, or keep it until the engine's connection is open. Never raises.

        After an unexpected error the channel's queue answers the request with this msg_id with an error.
        """
        try:
            self._soon(partial(self._send_or_park, engine, channel, frames, msg_id))
        except Exception as error:
            self._not_sent(engine, channel, msg_id, error)

    def _send_or_park(self, engine: EngineConnector, channel: str, frames: Frames, msg_id: str) -> None:
        try:
            if (engine.held or engine.state is not _ALIVE) and engine.parks(channel):
                engine.parked.append((channel, frames, msg_id))
            elif channel in engine.routes:
                engine.routes[channel].parked.append((frames, msg_id))
            elif not self._host.send(channel, [engine.ident, *frames]) and engine.state is EngineState.ALIVE:
                self._host.reach_engine(engine, channel)
                engine.routes[channel] = route = Route()
                route.parked.append((frames, msg_id))
        except Exception as error:
            self._not_sent(engine, channel, msg_id, error)

    def _not_sent(self, engine: EngineConnector, channel: str, msg_id: str, error: Exception) -> None:
        reason = self._notices.failed("send", error, engine=engine.id, task=msg_id, channel=channel)
        self.probes.pop(msg_id, None)
        self._queues[channel].give_up(engine.ident, msg_id, reason)

    def withdraw(self, engine: EngineConnector, msg_ids: Container[str], error: HubError) -> None:
        """Answer with the error the requests among these that wait for an engine's connection. They are not sent."""
        waiting = [(channel, msg_id) for channel, _, msg_id in engine.parked]
        engine.parked = [parked for parked in engine.parked if parked[2] not in msg_ids]
        for channel, route in engine.routes.items():
            waiting += [(channel, msg_id) for _, msg_id in route.parked]
            route.parked = [parked for parked in route.parked if parked[1] not in msg_ids]
        for channel, msg_id in waiting:
            if msg_id in msg_ids:
                self._queues[channel].give_up(engine.ident, msg_id, error)

    def flush(self, engine: EngineConnector, channel: str) -> bool:
        """Send the messages that wait for an engine on a channel, in order; on a suspect route, only the question.

        Returns:
            False if the engine cannot be reached there.
        """
        route = engine.routes.get(channel)
        if route is None:
            return True
        if route.suspect:
            return route.question is not None or self._ask_for_proof(engine, channel, route)
        sent = 0
        try:
            for frames, _ in route.parked:
                if not self._host.send(channel, [engine.ident, *frames]):
                    break
                sent += 1
        finally:
            del route.parked[:sent]
        if route.parked:
            return False
        del engine.routes[channel]
        return True

    # Asking

    def probe(
        self, engine: EngineConnector, channel: str, msg_ids: Iterable[str], cause: str, *, is_last: bool
    ) -> None:
        """Ask an engine a question, behind these requests: requests that it has not answered before are lost."""
        asked_about = dict.fromkeys(msg_ids)
        if asked_about:
            header = self._session.new_header(PROBE)
            frames = self._session.write(PROBE, {}, header=header)
            self.probes[header["msg_id"]] = Probe(engine, channel, asked_about, cause, is_last)
            self.send(engine, channel, frames, header["msg_id"])

    def _ask_for_proof(self, engine: EngineConnector, channel: str, route: Route) -> bool:
        """Send an engine a question that only the engine can answer. Return False if it cannot be reached.

        The answer concerns only the requests that the engine was sent before, not the requests that wait.
        """
        header = self._session.new_header(PROBE)
        frames = self._session.write(PROBE, {}, header=header)
        waiting = {msg_id for _, msg_id in route.parked}
        msg_ids = [msg_id for msg_id in self._queues[channel].outstanding(engine) if msg_id not in waiting]
        if not self._host.send(channel, [engine.ident, *frames]):
            return False
        route.question = header["msg_id"]
        self.probes[header["msg_id"]] = Probe(engine, channel, dict.fromkeys(msg_ids), DISCONNECTED, False)
        return True

    def heard_probe(self, ident: bytes, msg_id: str) -> bool:
        """Return whether an engine's reply answers a question. If so, handle the requests that turn out to be lost."""
        if (probe := self.probes.get(msg_id)) is None or probe.engine.ident != ident:
            return False
        del self.probes[msg_id]
        engine, channel = probe.engine, probe.channel
        queue = self._queues[channel]
        again = [] if probe.last else queue.repeatable(engine, list(probe.msg_ids))
        for lost in () if again else probe.msg_ids:
            queue.answer_lost(engine, lost, probe.cause)
        route = engine.routes.get(channel)
        if route is not None and route.question == msg_id:
            route.suspect, route.question = False, None
            if again:
                self._send_once_more(engine, channel, again)
            try:
                self.flush(engine, channel)
            finally:
                route.look()
            if not engine.state.is_registered:
                self._proven(engine)
        elif again:
            self._send_once_more(engine, channel, again)
        return True

    def _send_once_more(self, engine: EngineConnector, channel: str, directs: list[Direct]) -> None:
        """Send requests that may never have arrived once more, with the same bytes, and then a last question.

        The engine drops a request that it has received before. Its answer was lost if none comes before the last one.
        """
        queue, msg_ids = self._queues[channel], list({recorded_as(direct): None for direct in directs})

        def send(answer: Any) -> None:
            if engine.state is not EngineState.ALIVE:
                return
            records: dict[str, TaskRecord] = {} if isinstance(answer, Exception) else answer
            for direct in directs:
                record = records.get(recorded_as(direct))
                msg_id = direct.header.msg_id
                if record is not None and msg_id in direct.lane.pending:
                    try:
                        frames = [*direct.idents, *queue.frames_of(direct, record)]
                    except StoreError as error:  # its buffers are lost; the engine may have received it before
                        log.warning("a request cannot be sent once more", task=msg_id, engine=engine.id, error=error)
                    except Exception as error:
                        self._give_up_all(engine, queue, [direct], error)
                    else:
                        self.send(engine, channel, frames, msg_id)
            try:
                self.probe(engine, channel, [direct.header.msg_id for direct in directs], DISCONNECTED, is_last=True)
            except Exception as error:
                self._give_up_all(engine, queue, directs, error)

        try:
            self._host.ask_store(lambda store: store.fetch(msg_ids), send)
        except Exception as error:
            self._give_up_all(engine, queue, directs, error)

    def _give_up_all(self, engine: EngineConnector, queue: Queue, directs: list[Direct], error: Exception) -> None:
        reason: HubError = self._notices.failed("repeat", error, engine=engine.id)
        for direct in directs:
            queue.give_up(engine.ident, direct.header.msg_id, reason)

    def sent_behind_probes(self, msg_id: str, worker: Worker) -> None:
        """Remove a task from the open questions to an engine, since the task is sent to the engine after them."""
        for probe in self.probes.values():
            if probe.engine.ident == worker.ident:
                probe.msg_ids.pop(msg_id, None)

    # Connections that break while the engine lives

    def engine_connection_lost(self, engine: EngineConnector, channel: str) -> None:
        """Make an engine's route on a channel suspect, since the connection has broken.

        Messages in both directions may be lost, and the next peer with the engine's name may be a stranger. So the hub
        sends a question first, as soon as a peer with that name can be reached.
        """
        if engine.state.is_coming_back:
            return
        route = engine.routes.get(channel)
        if route is None:
            self._host.reach_engine(engine, channel)
            engine.routes[channel] = Route(suspect=True)
            return
        self.probes.pop(route.question or "", None)
        route.suspect, route.question = True, None
        route.look()

    def ask_gone_engine(self, engine: EngineConnector) -> None:
        """Ask a gone engine, whose heart is heard, a question, unless the engine is being asked already."""
        if "task_out" not in engine.routes:
            self.engine_connection_lost(engine, "task_out")

    def some_connection_lost(self, engines: Iterable[EngineConnector], channel: str, others: Container[bytes]) -> None:
        """Ask each engine that may have had a connection that broke before anything was received on it.

        Args:
            engines: the engines that are alive.
            channel, others: the hub's channel to engines, and the engines that have other connections on it.
        """
        for engine in engines:
            route = engine.routes.get(channel)
            if engine.ident in others or engine.state.is_coming_back or (route is not None and route.suspect):
                continue
            if route is not None:  # messages wait since the engine was out of reach; but earlier ones may be lost
                self.engine_connection_lost(engine, channel)
            else:
                msg_ids = self._queues[channel].outstanding(engine)
                self.probe(engine, channel, msg_ids, DISCONNECTED, is_last=False)

    def close_route(self, engine: EngineConnector, channel: str) -> bool:
        """Drop the route of an engine that cannot be reached on a channel. Return whether there was a route."""
        if route := engine.routes.pop(channel, None):
            self.probes.pop(route.question or "", None)
        return route is not None

    # Lost engines

    def engine_lost(self, engine: EngineConnector) -> None:
        """Drop the messages that wait for a lost engine."""
        engine.parked.clear()
        for route in engine.routes.values():
            route.look()
        engine.routes.clear()

    def engine_settled(self, engine: EngineConnector) -> None:
        """Forget the questions to an engine, except the question that it has to answer to come back."""
        kept = {route.question for route in engine.routes.values()}
        for msg_id in [one for one, probe in self.probes.items() if probe.engine is engine and one not in kept]:
            del self.probes[msg_id]

    def owes_answers(self, engine: EngineConnector) -> bool:
        """Return False: no client and no record waits for the answer to a question."""
        return False


def recorded_as(direct: Direct) -> str:
    """Return the msg_id of a request's record.

    A share of a gathered broadcast is recorded under the broadcast's msg_id.
    """
    return direct.header.msg_id if direct.broadcast is None else direct.broadcast.header.msg_id
