"""Requests to unregister an engine, from the engine itself or from others, and whether the hub believes them.

Such a request may come late, when another engine has the id that it names: after a restart, the hub may give the same
ids again, and an engine may ask for an id. A stock engine's identity is its uuid, so its request names the uuid; its
nanny sends only the id. So when a request names only an id, the hub pings the heart of the engine that has the id now,
and believes the request if the heart does not answer.
"""

from __future__ import annotations

from typing import Any

from ..wire.messages import Message, Session
from ..wire.plain import printable
from .connector import EngineConnector, EngineState
from .engines import Engines
from .notices import Notices
from .ports import Host

__all__ = ["MAX_CAUSE", "Goodbyes"]

MAX_CAUSE = 200
"""Characters of the cause that an unregistration may give. The rest is cut off."""


class Goodbyes:
    """Handles unregistration requests.

    Args:
        host, session: access to hearts and messages.
        notices: counts and logs goodbyes that are not believed.
        engines: the registry of engines.
    """

    def __init__(self, host: Host, session: Session, notices: Notices, engines: Engines) -> None:
        self._host = host
        self._session = session
        self._notices = notices
        self._engines = engines
        self.doubted: set[EngineConnector] = set()
        """The engines that have sent an unregistration which the hub doubts, and whose hearts the hub has asked."""

    def unregister_engine(self, ident: list[bytes], msg: Message) -> None:
        """Unregister an engine that asks to leave, also while it is registering.

        A message that names a uuid is ignored if the engine with this id has another uuid. A message that names only
        an id is checked first, see `heart_asked`. An engine of this project also says why it ends (``cause``), and
        whether it was ``killed``; for an engine that has died, its nanny says so.
        """
        content = self._session.content(msg)
        engine_id = content.get("id")
        speaks_of = _speaks_of(ident[0], content)
        engine = self._engines.with_id(engine_id) if type(engine_id) is int else None
        if engine is None and engine_id is None and speaks_of is not None:
            # an engine that gives up waiting for its registration does not know its id
            engine = self._engines.incoming_registrations.get(speaks_of)
        if engine is None:
            self._notices.ignore(
                "unknown_engine", "an unregistration of an engine that is not registered", engine=engine_id
            )
        elif speaks_of is None:
            self._doubt(engine)
        elif speaks_of != engine.ident:
            self._notices.ignore(
                "other_engine", "an unregistration that means another engine", engine=engine_id, uuid=speaks_of
            )
        else:
            reason = "died" if content.get("killed") is True else "request"
            self._unregister(engine, reason, _cause_in(content), may_return=False)

    def _doubt(self, engine: EngineConnector) -> None:
        if engine in self.doubted:
            return
        self._host.ask_heart(engine)
        self.doubted.add(engine)

    def heart_asked(self, engine: EngineConnector, *, answered: bool) -> None:
        """Unregister an engine after a request that named only its id, unless its heart has answered.

        If the engine is alive after all, it is usable again when its heart is heard.
        """
        self.doubted.discard(engine)
        if answered:
            self._notices.ignore(
                "other_engine",
                "an unregistration that names only an id, while the heart of the engine with this id beats",
                engine=engine.id,
                uuid=engine.uuid,
            )
        else:
            # If the hub has started the engine's process, it may know more.
            cause = engine.cause or "somebody has unregistered it, such as its nanny, and its heart did not answer"
            self._unregister(engine, "died", cause, may_return=True)

    def _unregister(self, engine: EngineConnector, reason: str, cause: str, *, may_return: bool) -> None:
        """Lose an engine that was unregistered, or end its registration, unless it is gone already."""
        if engine.state.is_registered:
            self._engines.lose_engine(engine, reason, cause, may_return=may_return)
        elif engine.state is EngineState.REGISTERING:
            self._engines.purge_stalled_registration(engine, may_return=may_return)
            engine.end_scope()


def _speaks_of(sender: bytes, content: dict[str, Any]) -> bytes | None:
    """Return the identity of the engine that an unregistration names, or None if it names only an id."""
    uuid = content.get("uuid")
    if isinstance(uuid, str):
        return uuid.encode("utf-8", "replace")
    # ZeroMQ makes up an identity that begins with NUL for a peer without one; a stock engine's identity is its uuid
    return None if sender.startswith(b"\0") else sender


def _cause_in(content: dict[str, Any]) -> str:
    """Return why an engine ends, as an unregistration says it: the first line, at most `MAX_CAUSE` characters."""
    cause = content.get("cause")
    return printable(cause.partition("\n")[0][:MAX_CAUSE]) if isinstance(cause, str) else ""
