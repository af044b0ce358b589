"""Engines come and go: registration, heartbeats, unregistration, and what the lost leave behind."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from ..errors import EngineError
from ..logs import get_logger
from ..schedulers.relay import Direct
from ..wire.messages import Message, error_content
from .connector import EngineConnector, EngineState
from .events import (
    EngineRegistered,
    EngineRequested,
    EngineReturned,
    EngineSettled,
    EngineUnregistered,
    RegistrationStalled,
)
from .state import HubState, Reply, content_of, reply_type

__all__ = ["Registration"]

log = get_logger("trio_hub.hub")

MAX_UUID = 255
"""Bytes an engine's uuid may have: a ZeroMQ identity has no more."""
_WITH_PID = re.compile(r".+_(\d{1,9})_\d+")
"""How Jupyter's sessions name their messages: session, process, number."""


class Registration(HubState):
    """The part of the hub that knows the engines."""

    # Coming

    def register_engine(self, reg: list[bytes], msg: Message) -> EngineConnector | None:
        """Register a new engine: tell it its id, and wait for its heart (`finish_registration`).

        An id it asks for is honoured if free; else ids are counted up and never used again.
        """
        self.registrations["requested"] += 1
        content = self.session.content(msg)
        try:
            uuid = self._valid_uuid(content.get("uuid"))
            requested = content.get("id")
            if requested is not None and (type(requested) is not int or not 0 <= requested < 2**31):
                raise ValueError(f"the requested engine id must be an integer of 0 or more, not {requested!r}")
        except (KeyError, TypeError, ValueError) as error:
            log.warning("refused a registration", kind="registration_refused", error=error)
            self.reply("query", reg, msg, Reply("registration_reply", content_of(error)))
            return None
        engine = EngineConnector(self.new_engine_id(requested), uuid)
        engine.host = self.host.peer_address()
        if named := _WITH_PID.fullmatch(msg.header.msg_id):
            engine.pid = int(named[1])
        self.incoming_registrations[engine.ident] = engine
        self.reply(
            "query",
            reg,
            msg,
            Reply(
                "registration_reply",
                {
                    "status": "ok",
                    "id": engine.id,
                    "hb_period": self.hb_period,
                    "connection_info": self.engine_info,
                },
            ),
        )
        self.registrations["replied"] += 1
        if self.host.listening:
            self.host.emit(EngineRequested(engine.id, engine.uuid, engine.host, engine.pid))
        self.host.start_engine(engine)
        return engine

    def _valid_uuid(self, uuid: Any) -> str:
        if not isinstance(uuid, str) or not uuid:
            raise TypeError("a registration_request must say the engine's uuid, a text that is not empty")
        ident = uuid.encode("utf-8", "replace")
        if len(ident) > MAX_UUID or ident[0] == 0:
            raise ValueError(f"the engine's uuid must have at most {MAX_UUID} bytes, and must not begin with NUL")
        if ident in self.by_ident or ident in self.incoming_registrations:
            raise KeyError(f"uuid {uuid!r} in use")
        return uuid

    def new_engine_id(self, requested_id: int | None = None) -> int:
        """The requested id if it is free, else the next that was never used."""
        if requested_id is not None:
            taken = requested_id in self.engines or any(
                engine.id == requested_id for engine in self.incoming_registrations.values()
            )
            if not taken:
                self._idcounter = max(self._idcounter, requested_id + 1)
                return requested_id
            log.warning("the engine id is in use: who asked for it gets another", kind="id_in_use", engine=requested_id)
        new_id = self._idcounter
        self._idcounter += 1
        return new_id

    @property
    def next_engine_id(self) -> int:
        """The lowest id that no engine has ever had here."""
        return self._idcounter

    @property
    def awaits_hearts(self) -> bool:
        """Whether there are engines, new or restored, that can be used as soon as their hearts are heard."""
        return bool(self.incoming_registrations) or len(self.heartmonitor) < len(self.engines)

    def handle_new_heart(self, heart: bytes) -> None:
        """A heart that is not watched has beaten: complete its engine's registration, if there is one."""
        if heart in self.incoming_registrations:
            self.finish_registration(heart)
        elif (engine := self.by_ident.get(heart)) is not None:  # restored
            self.heartmonitor.watch(heart)
            log.info("engine is back", engine=engine.id, uuid=engine.uuid)
            if self.host.listening:
                self.host.emit(EngineReturned(engine.id, engine.uuid))
            self.engine_returned(engine)
        else:
            self.ignore("unknown_heart", "a heartbeat of an engine that is not registered", uuid=heart)

    def finish_registration(self, heart: bytes) -> None:
        """Second half of a registration, once the heart has been heard: the engine is usable."""
        engine = self.incoming_registrations.pop(heart)
        engine.state = EngineState.ALIVE
        self.engines[engine.id] = engine
        self.by_ident[engine.ident] = engine
        self.heartmonitor.watch(heart)
        engine.end_scope()  # that of the stalled-registration timeout
        self.engines_registered += 1
        log.info("engine registered", engine=engine.id, uuid=engine.uuid)
        self.notify("registration_notification", {"id": engine.id, "uuid": engine.uuid})
        if self.host.listening:
            self.host.emit(EngineRegistered(engine.id, engine.uuid))
        engine.worker = self.scheduler.add_engine(engine.ident)

    def restore_engines(self, engines: Mapping[int, str], next_id: int) -> None:
        """Take up the engines of an earlier hub, uuids by id, before anything has been received.

        Clients see them at once, and they do not register again. They get nothing before their hearts are heard; when
        they have had the time for it, `purge_unheard` lets go of those that were not.
        """
        for engine_id, uuid in sorted(engines.items()):
            self.restore_engine(engine_id, uuid)
        self._idcounter = max(self._idcounter, next_id)

    def restore_engine(self, engine_id: int | None, uuid: str) -> None:
        """Take up one engine of an earlier hub; see `restore_engines`."""
        try:
            engine = EngineConnector(self.new_engine_id(engine_id), self._valid_uuid(uuid))
        except (KeyError, TypeError, ValueError) as error:
            log.warning("an engine is not restored", engine=engine_id, error=error)
            return
        engine.state = EngineState.ALIVE
        engine.awaited = True
        self.engines[engine.id] = engine
        self.by_ident[engine.ident] = engine
        engine.worker = self.scheduler.add_engine(engine.ident, absent=True)
        self.host.start_engine(engine)

    def purge_unheard(self) -> None:
        """Lose the restored engines whose hearts have not been heard."""
        for engine in [engine for engine in self.engines.values() if engine.ident not in self.heartmonitor]:
            log.warning("engine was restored, and its heart is not heard", engine=engine.id, uuid=engine.uuid)
            self.lose_engine(engine, "heart")

    def purge_stalled_registration(self, engine: EngineConnector) -> None:
        """Forget an engine whose heart was not heard in time."""
        if self.incoming_registrations.get(engine.ident) is not engine:
            return
        del self.incoming_registrations[engine.ident]
        engine.state = EngineState.STALLED
        self.registrations["stalled"] += 1
        log.warning("registration stalled, purged", engine=engine.id, uuid=engine.uuid)
        if self.host.listening:
            self.host.emit(RegistrationStalled(engine.id, engine.uuid))

    # Beating

    def handle_pong(self, frames: list[bytes]) -> None:
        """A heart answers: ``[identity, ping]``. Whatever else arrives there is harmless."""
        if len(frames) != 2 or not self.heartmonitor.is_ours(frames[1]):
            self.ignore("bad_heartbeat", "a heartbeat that answers no ping of this hub", uuid=b"".join(frames[:1]))
            return
        if not self.heartmonitor.beat(frames[0]):
            self.handle_new_heart(frames[0])

    def weigh_hearts(self) -> None:
        """A heartbeat period is over, and all pongs are in: unregister those that have missed too many."""
        self.hearts_weighed = self.now()
        for heart in self.heartmonitor.weigh():
            self.handle_heart_failure(heart)

    def handle_heart_failure(self, heart: bytes) -> None:
        """A heart has stopped: unregister its engine."""
        engine = self.by_ident.get(heart)
        if engine is not None:
            log.warning(
                "engine has no heartbeat", engine=engine.id, uuid=engine.uuid, misses=self.heartmonitor.misses(heart)
            )
            self.lose_engine(engine, "heart")

    # Going

    def unregister_engine(self, ident: list[bytes], msg: Message) -> None:
        """Unregister an engine that explicitly asks to leave; also one that is still registering.

        An id may have been another engine's before, whose last word comes late: who says which engine it speaks of
        is heard only of that one. A stock engine says it by its identity; its nanny says nothing but the id.
        """
        content = self.session.content(msg)
        engine_id = content.get("id")
        speaks_of = _speaks_of(ident[0], content)
        engine = self._engine_of_id(engine_id) if type(engine_id) is int else None
        if engine is None and engine_id is None and speaks_of is not None:
            # an engine that gives up waiting for its registration does not know its id
            engine = self.incoming_registrations.get(speaks_of)
        if engine is None:
            self.ignore("unknown_engine", "an unregistration of an engine that is not registered", engine=engine_id)
        elif speaks_of not in (None, engine.ident):
            self.ignore("other_engine", "an unregistration that means another engine", engine=engine_id, uuid=speaks_of)
        elif engine.state is EngineState.ALIVE:
            self.lose_engine(engine, "request")
        else:
            self.purge_stalled_registration(engine)
            engine.end_scope()

    def _engine_of_id(self, engine_id: int) -> EngineConnector | None:
        """The engine that has this id, or is about to have it."""
        registering = (engine for engine in self.incoming_registrations.values() if engine.id == engine_id)
        return self.engines.get(engine_id) or next(registering, None)

    def lose_engine(self, engine: EngineConnector, reason: str) -> None:
        """An engine is gone: forget it, announce it, and let its grace begin."""
        if engine.state is not EngineState.ALIVE:
            return
        engine.state = EngineState.LOST
        del self.engines[engine.id]
        del self.by_ident[engine.ident]
        self.heartmonitor.forget(engine.ident)
        self.lost.add(engine)
        engine.parked.clear()
        for route in engine.routes.values():
            route.look()
        engine.routes.clear()
        self.engines_lost[reason] += 1
        log.info(
            "engine unregistered", engine=engine.id, uuid=engine.uuid, reason=reason, unanswered=len(engine.pending)
        )
        if engine.worker is not None:
            self.scheduler.remove_engine(engine.worker)  # first of all, since tasks may depend on what fails now
        # Stock clients settle their direct requests themselves when they hear of the unregistration, and stumble
        # over an answer that comes after it. So the answers go out first.
        for direct in self.mux.strand(engine.mux):
            self.late[direct.header.msg_id] = engine
            self.fail_direct(direct, engine.uuid, died_while_running(engine, direct.header.msg_id))
        for direct in self.broadcast.strand(engine.broadcast):
            self.fail_share(direct, engine.uuid, died_while_running(engine, direct.header.msg_id))
        self.notify("unregistration_notification", {"id": engine.id, "uuid": engine.uuid})
        if self.host.listening:
            self.host.emit(EngineUnregistered(engine.id, engine.uuid, reason))
        engine.end_scope()  # that of its life

    def owes_answers(self, engine: EngineConnector) -> bool:
        """Whether anybody waits, or the records wait, for something of a lost engine."""
        running = engine.worker is not None and len(engine.worker.running) > 0
        return running or len(engine.control) > 0 or engine in self.late.values()

    def handle_stranded(self, engine: EngineConnector) -> None:
        """The grace of a lost engine is over: settle all that it has not answered."""
        if engine.state is not EngineState.LOST:
            return
        engine.state = EngineState.SETTLED
        self.lost.discard(engine)
        if engine.worker is not None:
            self.scheduler.settle(engine.worker)
        for direct in self.control.strand(engine.control):
            self.answer_control_of_lost(direct, engine)
        for msg_id in [msg_id for msg_id, owner in self.late.items() if owner is engine]:
            del self.late[msg_id]
        if self.host.listening:
            self.host.emit(EngineSettled(engine.id, engine.uuid))

    def answer_control_of_lost(self, direct: Direct, engine: EngineConnector) -> None:
        """Answer a control request that an engine left unanswered when it ended."""
        if direct.header.msg_type == "shutdown_request":
            self._answer_control(direct, engine, {"status": "ok", "restart": False})  # the engine has ended, as asked
        else:
            self.answer_control_with_error(direct, engine, died_while_running(engine, direct.header.msg_id))

    def answer_control_with_error(self, direct: Direct, engine: EngineConnector, error: EngineError) -> None:
        """Answer a control request that an engine will not answer."""
        self._answer_control(direct, engine, error_content("EngineError", str(error)))

    def _answer_control(self, direct: Direct, engine: EngineConnector, content: dict[str, Any]) -> None:
        frames = self.session.write(
            reply_type(direct.header.msg_type),
            content,
            parent=direct.raw_header,
            metadata={"engine": engine.uuid},
        )
        if direct.idents:  # else the hub itself has asked
            self.host.send("control_in", [*direct.idents, *frames])


def died_while_running(engine: EngineConnector, msg_id: str) -> EngineError:
    return EngineError(f"Engine {engine.id} died while running task {msg_id}")


def _speaks_of(sender: bytes, content: dict[str, Any]) -> bytes | None:
    """The identity of the engine that an unregistration is about, if it can be told."""
    uuid = content.get("uuid")
    if isinstance(uuid, str):
        return uuid.encode("utf-8", "replace")
    # ZeroMQ makes up an identity that begins with NUL for whoever has none; a stock engine's own is its uuid
    return None if sender.startswith(b"\0") else sender
