"""The registry of engines: registration, unregistration, loss, and the tables of engines."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any

from ..logs import get_logger
from ..wire.messages import Message, Session
from .changes import EngineChanges
from .connector import EngineConnector, EngineState
from .engineids import EngineIds, requested_id, valid_offers, valid_uuid
from .events import (
    EngineRegistered,
    EngineRequested,
    EngineReturned,
    EngineSettled,
    EngineUnregistered,
    RegistrationStalled,
)
from .gone import GoneEngines
from .heartmonitor import HeartMonitor
from .notices import Notices
from .ports import EngineWatcher, Host
from .replies import Replies, Reply, content_of

__all__ = ["LOSSES", "Engines", "engine_named"]

log = get_logger("trio_hub.hub")

LOSSES = ("died", "ended", "heart", "request", "shutdown", "unreachable")
"""The reasons for the loss of an engine, see `trio_hub.hub.events.EngineUnregistered`."""
_CAUSES = {
    "died": "its process has died",
    "ended": "its process has ended",
    "heart": "its heart has stopped",
    "request": "it has unregistered",
    "shutdown": "it has shut down",
    "unreachable": "no message reaches it",
}
"""The cause that errors name for each kind of loss, unless a more exact cause is known."""
_WELCOME = {"status": "ok", "publishes_idle": True, "drains": True}
"""What each registered engine is told. Engines may leave their idle statuses to the hub, see `Answers.publish_idle`."""
_WITH_PID = re.compile(r".+_(\d{1,9})_\d+")
"""A msg_id of a Jupyter session: session, process id, number."""


def _nobody(engine: EngineConnector) -> None:
    """Do nothing. Used as callback until `Engines.connect` is called."""


class Engines:
    """Keeps the engines, each from its registration request until its grace is over.

    Args:
        host, session: start engines' lives, and read messages.
        replies: sends replies and notifications.
        notices: counts and logs ignored messages and errors.
        heartmonitor: counts the heartbeats.
        changes: keeps the recent changes for clients that may have missed them.
        hb_period: milliseconds between pings; sent to engines that register.
        engine_info: connection info for engines; sent to engines that register.
        usage_period: seconds between the reports that engines of this project are asked for; 0: none.
    """

    def __init__(
        self,
        host: Host,
        session: Session,
        replies: Replies,
        notices: Notices,
        heartmonitor: HeartMonitor,
        changes: EngineChanges,
        *,
        hb_period: int,
        engine_info: dict[str, Any],
        usage_period: float = 0.0,
    ) -> None:
        self._host = host
        self._session = session
        self._replies = replies
        self._notices = notices
        self._heartmonitor = heartmonitor
        self.changes = changes
        self.hb_period, self.engine_info = hb_period, engine_info
        self._asks = {"usage_period": usage_period} if usage_period else {}
        self.alive: dict[int, EngineConnector] = {}
        """The engines that are registered (`EngineState.is_registered`), by id."""
        self.by_ident: dict[bytes, EngineConnector] = {}
        """The registered engines, by identity."""
        self.incoming_registrations: dict[bytes, EngineConnector] = {}
        """The engines that were told their ids and whose hearts were not heard yet, by identity."""
        self.lost: set[EngineConnector] = set()
        """The engines that are gone and whose grace is not over."""
        self.gone = GoneEngines()
        """The engines that have gone last, with the causes; some may come back."""
        self.registrations = dict.fromkeys(("requested", "replied", "stalled"), 0)
        """The numbers of engines that asked to register, that were told their ids, and that were not heard in time."""
        self.engines_registered = 0
        self.engines_lost = dict.fromkeys(LOSSES, 0)
        """Counts of lost engines, by reason."""
        self._ids = EngineIds()
        self._joined: Callable[[EngineConnector], None] = _nobody
        self._returned: Callable[[EngineConnector], None] = _nobody
        self._watchers: Sequence[EngineWatcher] = ()

    def connect(
        self,
        joined: Callable[[EngineConnector], None],
        returned: Callable[[EngineConnector], None],
        watchers: Sequence[EngineWatcher],
    ) -> None:
        """Set the parts that are told of engines. Call this once, before the first engine comes.

        Args:
            joined: is told of each engine that is usable, or expected.
            returned: is told when the heart of an engine is heard that is expected, or gone and may return.
            watchers: are told of each engine that goes, in this order.
        """
        self._joined = joined
        self._returned = returned
        self._watchers = watchers

    # Registration

    def register_engine(self, reg: list[bytes], msg: Message) -> EngineConnector | None:
        """Register a new engine: tell the engine its id, and wait for its heart (`finish_registration`).

        The engine gets the id that it asks for if that id is free, else the next id that was never used.
        """
        self.registrations["requested"] += 1
        content = self._session.content(msg)
        try:
            engine = self._connector(content.get("uuid"), requested_id(content.get("id")), content.get("offers"))
        except (KeyError, TypeError, ValueError) as error:
            log.warning("refused a registration", kind="registration_refused", error=error)
            self._replies.reply("query", reg, msg, Reply("registration_reply", content_of(error)))
            return None
        engine.note_facts(self._host.peer_address(), content)
        if named := _WITH_PID.fullmatch(msg.header.msg_id):
            engine.pid = int(named[1])
        told = {"id": engine.id, "hb_period": self.hb_period, "connection_info": self.engine_info} | self._asks
        self.incoming_registrations[engine.ident] = engine
        try:
            self._host.start_engine(engine)
            self._replies.reply("query", reg, msg, Reply("registration_reply", _WELCOME | told))
        except BaseException:
            # The engine does not know its id, so nothing may wait for its heart.
            del self.incoming_registrations[engine.ident]
            engine.state = EngineState.STALLED
            engine.end_scope()
            raise
        self.registrations["replied"] += 1
        if self._host.listening:
            self._notices.tell(EngineRequested(engine.id, engine.uuid, engine.host, engine.pid))
        return engine

    @property
    def next_engine_id(self) -> int:
        """The lowest id that was never given to an engine."""
        return self._ids.next

    def reserve_ids(self, next_id: int) -> None:
        """Give no engine an id below this one, unless the engine asks for it."""
        self._ids.reserve(next_id)

    def _connector(self, uuid: Any, requested_id: int | None, offers: Any = None) -> EngineConnector:
        """Return a new engine, which is in no table yet. Raises like `valid_uuid`."""
        uuid, offers = valid_uuid(uuid, self.by_ident, self.incoming_registrations), valid_offers(offers)
        engine = EngineConnector(self._ids.give(requested_id, self.with_id), uuid, offers)
        self.gone.forget(engine.ident)
        self.gone.give_id_away(engine.id)
        return engine

    def finish_registration(self, heart: bytes) -> None:
        """Complete a registration, after the engine's heart has been heard: the engine is usable."""
        engine = self.incoming_registrations.pop(heart)
        engine.end_scope()  # the registration timeout
        self.make_usable(engine)

    def make_usable(self, engine: EngineConnector) -> None:
        """Add an engine whose heart beats to the tables, tell clients and observers, and give it work."""
        if new := engine.state in (EngineState.REGISTERING, EngineState.STALLED):
            self.engines_registered += 1
            log.info("engine registered", engine=engine.id, uuid=engine.uuid)
        else:
            log.info("engine is back", engine=engine.id, uuid=engine.uuid)
        engine.state = EngineState.ALIVE
        self._add(engine)
        self._heartmonitor.watch(engine.ident)
        self._replies.notify("registration_notification", {"id": engine.id, "uuid": engine.uuid})
        self.changes.engine_came(engine.id, engine.uuid)
        if self._host.listening:
            self._notices.tell((EngineRegistered if new else EngineReturned)(engine.id, engine.uuid))
        self._joined(engine)

    def _add(self, engine: EngineConnector) -> None:
        self.alive[engine.id] = engine
        self.by_ident[engine.ident] = engine

    def restore_engine(self, engine_id: int | None, uuid: str, offers: Any = None) -> EngineConnector | None:
        """Take up an engine of an earlier hub as expected. If the id is None, the engine gets a new id."""
        engine = self.of_earlier_hub(engine_id, uuid, offers)
        if engine is not None:
            engine.state = EngineState.EXPECTED
            self._host.start_engine(engine)
            self._add(engine)
            self._joined(engine)
        return engine

    def of_earlier_hub(self, engine_id: int | None, uuid: str, offers: Any = None) -> EngineConnector | None:
        """Return a connector for an engine of an earlier hub, in no table yet; None if its id or uuid is unusable."""
        try:
            return self._connector(uuid, requested_id(engine_id), offers)
        except (KeyError, TypeError, ValueError) as error:
            log.warning("an engine is not restored", engine=engine_id, error=error)
            return None

    def engine_heard(self, engine: EngineConnector) -> None:
        """Begin the return of an engine that is expected, or gone, and whose heart is heard."""
        if engine.state is EngineState.EXPECTED:
            engine.state = EngineState.RETURNING
            self._heartmonitor.watch(engine.ident)
        self._returned(engine)

    def purge_stalled_registration(self, engine: EngineConnector, *, may_return: bool = True) -> None:
        """End the registration of an engine whose heart was not heard in time, or that has left.

        If the engine may return, it is usable when its heart is heard later: stock engines register only once.
        """
        if self.incoming_registrations.get(engine.ident) is not engine:
            return
        del self.incoming_registrations[engine.ident]
        engine.state = EngineState.STALLED
        self.gone.remember(engine, "its heart was not heard in time after its registration", may_return=may_return)
        self.registrations["stalled"] += 1
        log.warning("registration stalled, purged", engine=engine.id, uuid=engine.uuid)
        if self._host.listening:
            self._notices.tell(RegistrationStalled(engine.id, engine.uuid))

    # Loss

    def with_id(self, engine_id: int) -> EngineConnector | None:
        """Return the engine that has this id, or is registering with it."""
        registering = (engine for engine in self.incoming_registrations.values() if engine.id == engine_id)
        return self.alive.get(engine_id) or next(registering, None)

    def lose_engine(
        self, engine: EngineConnector, reason: str, cause: str = "", *, may_return: bool | None = None
    ) -> None:
        """Remove an engine from the tables, answer its requests, announce its loss, and begin its grace.

        Args:
            engine: the engine; if it is gone already, only the cause is noted.
            reason: one of `LOSSES`.
            cause: why the engine is gone, for the errors of its requests, such as "killed by signal 9 (SIGKILL)".
            may_return: whether it is usable again when its heart is heard; None: for "heart" and "unreachable" only.
        """
        engine.cause = cause or engine.cause
        if not engine.state.is_registered:
            return
        engine.state, engine.loss = EngineState.LOST, reason
        may_return = reason in ("heart", "unreachable") if may_return is None else may_return
        self.gone.remember(engine, engine.cause or _CAUSES[reason], may_return=may_return)
        del self.alive[engine.id]
        del self.by_ident[engine.ident]
        self._heartmonitor.forget(engine.ident)
        self.lost.add(engine)
        self.engines_lost[reason] += 1
        uuid, cause, unanswered = engine.uuid, engine.cause, len(engine.pending)
        log.info("engine unregistered", engine=engine.id, uuid=uuid, reason=reason, cause=cause, unanswered=unanswered)
        for watcher in self._watchers:
            self._tell(watcher.engine_lost, engine)
        self._replies.notify("unregistration_notification", {"id": engine.id, "uuid": engine.uuid})
        self.changes.engine_left(engine.id, engine.uuid)
        if self._host.listening:
            self._notices.tell(EngineUnregistered(engine.id, engine.uuid, reason))
        engine.end_scope()  # the engine's life

    def _tell(self, told: Callable[[EngineConnector], None], engine: EngineConnector) -> None:
        """Call a watcher, and catch its errors, so that the other watchers are still called."""
        try:
            told(engine)
        except Exception as error:
            self._notices.failed("end of an engine", error, engine=engine.id, uuid=engine.uuid)

    def owes_answers(self, engine: EngineConnector) -> bool:
        """Return whether a client or a record still waits for an answer of a lost engine."""
        return any(watcher.owes_answers(engine) for watcher in self._watchers)

    def handle_stranded(self, engine: EngineConnector) -> None:
        """Settle everything that a lost engine has not answered, when its grace is over."""
        if engine.state is not EngineState.LOST:
            return
        engine.state = EngineState.SETTLED
        engine.end_scope()  # the grace
        self.lost.discard(engine)
        for watcher in self._watchers:
            self._tell(watcher.engine_settled, engine)
        if self._host.listening:
            self._notices.tell(EngineSettled(engine.id, engine.uuid))


def engine_named(engines: Engines, name: Any) -> EngineConnector | None:
    """Return the registered engine with this id or uuid; None if there is none, or for a value of another type."""
    if isinstance(name, str):
        return engines.by_ident.get(name.encode("utf-8", "replace"))
    return engines.alive.get(name) if type(name) is int else None
