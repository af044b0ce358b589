"""The registry of engines: registration, unregistration, loss, and the tables of engines."""

from __future__ import annotations

import re
from collections.abc import Callable, Container, Mapping, Sequence
from typing import Any

from ..logs import get_logger
from ..wire.messages import Message, Session
from ..wire.plain import printable
from .connector import EngineConnector, EngineState
from .events import (
    EngineRegistered,
    EngineRequested,
    EngineReturned,
    EngineSettled,
    EngineUnregistered,
    RegistrationStalled,
)
from .heartbeat import HeartMonitor
from .notices import Notices
from .ports import EngineWatcher, Host
from .replies import Replies, Reply, content_of

__all__ = ["LOSSES", "Engines"]

log = get_logger("trio_hub.hub")

LOSSES = ("heart", "request", "shutdown", "unreachable")
"""The reasons for the loss of an engine, see `trio_hub.hub.events.EngineUnregistered`."""
MAX_UUID = 255
"""Bytes that an engine's uuid may have: the limit of a ZeroMQ identity."""
MAX_CAUSE = 200
_WITH_PID = re.compile(r".+_(\d{1,9})_\d+")
"""A msg_id of a Jupyter session: session, process id, number."""


class Engines:
    """Keeps the engines, each from its registration request until its grace is over.

    Args:
        host, session: start engines' lives, and read messages.
        replies: sends replies and notifications.
        notices: counts and logs ignored messages and errors.
        heartmonitor: counts the heartbeats.
        hb_period: milliseconds between pings; sent to engines that register.
        engine_info: connection info for engines; sent to engines that register.
    """

    def __init__(
        self,
        host: Host,
        session: Session,
        replies: Replies,
        notices: Notices,
        heartmonitor: HeartMonitor,
        *,
        hb_period: int,
        engine_info: dict[str, Any],
    ) -> None:
        self._host = host
        self._session = session
        self._replies = replies
        self._notices = notices
        self._heartmonitor = heartmonitor
        self._hb_period = hb_period
        self.engine_info = engine_info
        self.alive: dict[int, EngineConnector] = {}
        """The engines that are alive, by id."""
        self.by_ident: dict[bytes, EngineConnector] = {}
        """The engines that are alive, by identity."""
        self.incoming_registrations: dict[bytes, EngineConnector] = {}
        """The engines that know their id and whose heart was not heard yet, by identity."""
        self.lost: set[EngineConnector] = set()
        """The engines that are gone and whose grace is not over."""
        self.registrations = dict.fromkeys(("requested", "replied", "stalled"), 0)
        """Counts of engines that asked to register, were told their ids, and were not heard in time."""
        self.engines_registered = 0
        self.engines_lost = dict.fromkeys(LOSSES, 0)
        """Counts of lost engines, by reason."""
        self._ids = _Ids()
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
            joined: is told of each engine that is usable, or expected back (``awaited``).
            returned: is told when the heart of an engine that was expected back is heard.
            watchers: are told of each engine that goes, in this order.
        """
        self._joined = joined
        self._returned = returned
        self._watchers = watchers

    # Coming

    def register_engine(self, reg: list[bytes], msg: Message) -> EngineConnector | None:
        """Register a new engine: tell the engine its id, and wait for its heart (`finish_registration`).

        The engine gets the id that it asks for if that id is free, else the next id that was never used.
        """
        self.registrations["requested"] += 1
        content = self._session.content(msg)
        try:
            engine = self._connector(content.get("uuid"), requested_id(content.get("id")))
        except (KeyError, TypeError, ValueError) as error:
            log.warning("refused a registration", kind="registration_refused", error=error)
            self._replies.reply("query", reg, msg, Reply("registration_reply", content_of(error)))
            return None
        engine.host = self._host.peer_address()
        if named := _WITH_PID.fullmatch(msg.header.msg_id):
            engine.pid = int(named[1])
        told = {"id": engine.id, "hb_period": self._hb_period, "connection_info": self.engine_info}
        self.incoming_registrations[engine.ident] = engine
        try:
            self._host.start_engine(engine)
            self._replies.reply("query", reg, msg, Reply("registration_reply", {"status": "ok"} | told))
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

    def _connector(self, uuid: Any, requested_id: int | None) -> EngineConnector:
        """Return a new engine, which is in no table yet. Raises like `valid_uuid`."""
        uuid = valid_uuid(uuid, self.by_ident, self.incoming_registrations)
        return EngineConnector(self._ids.give(requested_id, self._of_id), uuid)

    def finish_registration(self, heart: bytes) -> None:
        """Complete a registration, after the engine's heart has been heard: the engine is usable."""
        engine = self.incoming_registrations.pop(heart)
        engine.state = EngineState.ALIVE
        self._add(engine)
        self._heartmonitor.watch(heart)
        engine.end_scope()  # the registration timeout
        self.engines_registered += 1
        log.info("engine registered", engine=engine.id, uuid=engine.uuid)
        self._replies.notify("registration_notification", {"id": engine.id, "uuid": engine.uuid})
        if self._host.listening:
            self._notices.tell(EngineRegistered(engine.id, engine.uuid))
        self._joined(engine)

    def _add(self, engine: EngineConnector) -> None:
        self.alive[engine.id] = engine
        self.by_ident[engine.ident] = engine

    def restore_engines(self, engines: Mapping[int, str], next_id: int) -> None:
        """Take up the engines of an earlier hub, given as uuids by id, before anything has been received.

        Clients see these engines at once, and the engines do not register again. An engine gets nothing before its
        heart is heard. When the time for that is over, `Hearts.purge_unheard` loses the engines that were not heard.
        """
        for engine_id, uuid in sorted(engines.items()):
            self.restore_engine(engine_id, uuid)
        self._ids.reserve(next_id)

    def restore_engine(self, engine_id: int | None, uuid: str) -> None:
        """Take up one engine of an earlier hub, see `restore_engines`; with an id of None, under a new id."""
        try:
            engine = self._connector(uuid, engine_id)
        except (KeyError, TypeError, ValueError) as error:
            log.warning("an engine is not restored", engine=engine_id, error=error)
            return
        engine.state = EngineState.ALIVE
        engine.awaited = True
        self._host.start_engine(engine)
        self._add(engine)
        self._joined(engine)

    def engine_returned(self, engine: EngineConnector) -> None:
        """Give work to a restored engine, whose heart is heard for the first time by this hub."""
        self._heartmonitor.watch(engine.ident)
        log.info("engine is back", engine=engine.id, uuid=engine.uuid)
        if self._host.listening:
            self._notices.tell(EngineReturned(engine.id, engine.uuid))
        self._returned(engine)

    def purge_stalled_registration(self, engine: EngineConnector) -> None:
        """Forget an engine whose heart was not heard in time."""
        if self.incoming_registrations.get(engine.ident) is not engine:
            return
        del self.incoming_registrations[engine.ident]
        engine.state = EngineState.STALLED
        self.registrations["stalled"] += 1
        log.warning("registration stalled, purged", engine=engine.id, uuid=engine.uuid)
        if self._host.listening:
            self._notices.tell(RegistrationStalled(engine.id, engine.uuid))

    # Going

    def unregister_engine(self, ident: list[bytes], msg: Message) -> None:
        """Unregister an engine that asks to leave, also while it is registering.

        The id may have belonged to another engine before, whose last message comes late. So a message that also names
        the uuid is ignored if the uuid is not that of the engine with this id. A stock engine names its uuid by its
        identity; its nanny sends only the id. Our engines and their nannies also say why the engine ends: ``cause``.
        """
        content = self._session.content(msg)
        engine_id = content.get("id")
        speaks_of = _speaks_of(ident[0], content)
        engine = self._of_id(engine_id) if type(engine_id) is int else None
        if engine is None and engine_id is None and speaks_of is not None:
            # an engine that gives up waiting for its registration does not know its id
            engine = self.incoming_registrations.get(speaks_of)
        if engine is None:
            self._notices.ignore(
                "unknown_engine", "an unregistration of an engine that is not registered", engine=engine_id
            )
        elif speaks_of not in (None, engine.ident):
            self._notices.ignore(
                "other_engine", "an unregistration that means another engine", engine=engine_id, uuid=speaks_of
            )
        elif engine.state is EngineState.ALIVE:
            self.lose_engine(engine, "request", _cause_in(content))
        else:
            self.purge_stalled_registration(engine)
            engine.end_scope()

    def _of_id(self, engine_id: int) -> EngineConnector | None:
        """Return the engine that has this id, or is registering with it."""
        registering = (engine for engine in self.incoming_registrations.values() if engine.id == engine_id)
        return self.alive.get(engine_id) or next(registering, None)

    def lose_engine(self, engine: EngineConnector, reason: str, cause: str | None = None) -> None:
        """Remove an engine from the tables, announce its loss, and begin its grace. ``cause``: see its connector."""
        engine.cause = cause or engine.cause
        if engine.state is not EngineState.ALIVE:
            return
        engine.state = EngineState.LOST
        del self.alive[engine.id]
        del self.by_ident[engine.ident]
        self._heartmonitor.forget(engine.ident)
        self.lost.add(engine)
        self.engines_lost[reason] += 1
        log.info(
            "engine unregistered", engine=engine.id, uuid=engine.uuid, reason=reason, unanswered=len(engine.pending)
        )
        # Stock clients settle their direct requests themselves when they hear of the unregistration, and stumble
        # over an answer that comes after it. So the answers go out first.
        for watcher in self._watchers:
            self._tell(watcher.engine_lost, engine)
        self._replies.notify("unregistration_notification", {"id": engine.id, "uuid": engine.uuid})
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
        self.lost.discard(engine)
        for watcher in self._watchers:
            self._tell(watcher.engine_settled, engine)
        if self._host.listening:
            self._notices.tell(EngineSettled(engine.id, engine.uuid))


def _nobody(engine: EngineConnector) -> None:
    """Do nothing. Used as callback until `Engines.connect` is called."""


def _speaks_of(sender: bytes, content: dict[str, Any]) -> bytes | None:
    """Return the identity of the engine that an unregistration names, or None if it names only an id."""
    uuid = content.get("uuid")
    if isinstance(uuid, str):
        return uuid.encode("utf-8", "replace")
    # ZeroMQ makes up an identity that begins with NUL for a peer without one; a stock engine's identity is its uuid
    return None if sender.startswith(b"\0") else sender


def _cause_in(content: dict[str, Any]) -> str | None:
    """Return why an engine ends, as an unregistration says it: the first line, at most `MAX_CAUSE` characters."""
    cause = content.get("cause")
    return printable(cause.partition("\n")[0][:MAX_CAUSE]) if isinstance(cause, str) else None


class _Ids:
    """Gives ids to engines: each id once, unless an engine asks for a free id."""

    def __init__(self) -> None:
        self.next = 0
        """The lowest id that was never given."""

    def reserve(self, until: int) -> None:
        """Give no id below this, unless an engine asks for it."""
        self.next = max(self.next, until)

    def give(self, requested: int | None, owner: Callable[[int], object]) -> int:
        """Return the requested id if no engine has it, else the next id that was never used."""
        if requested is not None:
            if owner(requested) is None:
                self.reserve(requested + 1)
                return requested
            log.warning("the engine id is in use: who asked for it gets another", kind="id_in_use", engine=requested)
        self.next += 1
        return self.next - 1


def requested_id(requested: Any) -> int | None:
    """Return the id that an engine asks for, or None. Raises `ValueError` if the value cannot be an id."""
    if requested is not None and (type(requested) is not int or not 0 <= requested < 2**31):
        raise ValueError(f"the requested engine id must be an integer of 0 or more, not {requested!r}")
    return requested


def valid_uuid(uuid: Any, *taken: Container[bytes]) -> str:
    """Return the uuid of an engine after checking it.

    Raises `TypeError`, `ValueError`, or `KeyError` if it is in use.
    """
    if not isinstance(uuid, str) or not uuid:
        raise TypeError("a registration_request must say the engine's uuid, a text that is not empty")
    ident = uuid.encode("utf-8", "replace")
    if len(ident) > MAX_UUID or ident[0] == 0:
        raise ValueError(f"the engine's uuid must have at most {MAX_UUID} bytes, and must not begin with NUL")
    if any(ident in idents for idents in taken):
        raise KeyError(f"uuid {uuid!r} in use")
    return uuid
