"""Queries that change what runs: cancelling requests, and draining engines; and what is known of engines for that."""

from __future__ import annotations

from typing import Any

from ..wire.messages import Message, Session
from .askers import who_asks
from .cancelling import Cancelling
from .connector import EngineConnector
from .draining import Draining
from .engines import Engines, engine_named
from .ports import RunningQuery
from .queries import list_of_text
from .replies import Reply

__all__ = ["Orders"]


class Orders:
    """Handles the queries ``cancel_request``, ``drain_request`` and ``engines_request``.

    Handlers get identities and message.

    Args:
        session: reads messages.
        engines, cancelling, draining: the parts of the hub below.
    """

    def __init__(self, session: Session, *, engines: Engines, cancelling: Cancelling, draining: Draining) -> None:
        self._session = session
        self._engines = engines
        self._cancelling = cancelling
        self._draining = draining

    def cancel_request(self, client_id: list[bytes], msg: Message) -> RunningQuery:
        """Cancel requests, and reply with what is done to each, see `trio_hub.hub.cancelling`.

        The content has ``msg_ids``, and may have ``grace`` (seconds) and ``by`` (who asks for it).
        """
        content = self._session.content(msg)
        msg_ids = list_of_text(content.get("msg_ids"), "msg_ids")
        grace = _seconds(content, "grace")
        done = yield from self._cancelling.cancel_and_look(msg_ids, by=who_asks(content, msg), grace=grace)
        return Reply("cancel_reply", {"status": "ok", "cancelled": done})

    def drain_request(self, sender: list[bytes], msg: Message) -> Reply:
        """Drain engines, or end their drains, and reply with what is done to each engine.

        A client names ``engines`` by ids or uuids, or their ``host``, and may give a ``deadline`` in seconds, ``then``
        and ``by``, or ``undrain``. Instead of all that, an engine gives its own ``uuid``, and may say how many
        ``seconds_left`` it will be there, and ``by``. It is then drained, with that deadline; with ``drain`` false, the
        hub only notes the time. With ``final``, a hub that has started the engine does not start it again. The reply
        says whether the engine is ``draining``, and how many of the requests that it was sent are ``pending``.
        """
        content = self._session.content(msg)
        if "uuid" in content:
            return self._drain_itself(sender, content)
        targets, host = content.get("engines"), content.get("host")
        if targets is None and isinstance(host, str):
            targets = [engine.id for engine in self._engines.alive.values() if _is_on(engine, host)]
        if not isinstance(targets, list) or not all(type(target) in (int, str) for target in targets):
            raise TypeError(f"engines must be a list of ids or uuids, not {str(targets)[:100]!r}")
        by, deadline, then = who_asks(content, msg), _seconds(content, "deadline"), content.get("then") or ""
        if not isinstance(then, str):
            raise TypeError(f"then must be a text, not {str(then)[:100]!r}")
        done = {}
        for target in targets:
            engine = engine_named(self._engines, target)
            if engine is None:
                done[str(target)] = "unknown"
            elif content.get("undrain"):
                done[str(target)] = "undrained" if self._draining.undrain(engine, by=by) else "not drained"
            else:
                self._draining.drain(engine, by=by, deadline=deadline, then=then)
                done[str(target)] = "draining"
        return Reply("drain_reply", {"status": "ok", "engines": done})

    def engines_request(self, client_id: list[bytes], msg: Message) -> Reply:
        """Reply with what is known of the engines, by id, besides their load.

        - ``uuid``; ``offers``: tags and amounts; ``block``: the pool's block that has brought it, or empty;
        - ``drain``: ``by``, ``deadline`` and ``then`` of the engine's drain; null if the engine is not drained;
        - ``leaves``: when the engine will be gone, or null.

        Times are seconds since 1970.
        """
        engines = {}
        for engine in self._engines.alive.values():
            drain = self._draining.drains.get(engine.ident)
            engines[str(engine.id)] = {
                "uuid": engine.uuid,
                "offers": dict(engine.offers),
                "block": engine.block,
                "drain": None if drain is None else drain.as_dict(),
                "leaves": engine.leaves_at,
            }
        return Reply("engines_reply", {"status": "ok", "engines": engines})

    def _drain_itself(self, sender: list[bytes], content: dict[str, Any]) -> Reply:
        uuid = content["uuid"]
        engine = engine_named(self._engines, uuid) if isinstance(uuid, str) else None
        if engine is None or sender[0] != engine.ident:
            raise KeyError(f"no engine with the uuid {str(uuid)[:100]!r} has sent this")
        engine.note_time(content.get("seconds_left"))
        self._draining.note_time(engine)
        if content.get("drain") is not False:
            engine.told_to_stop = engine.told_to_stop or content.get("final") is True
            by, deadline = content.get("by"), _seconds(content, "seconds_left")
            self._draining.drain(
                engine, by=by if isinstance(by, str) and by else "the engine itself", deadline=deadline
            )
        is_draining = engine.ident in self._draining.drains
        facts = {"draining": is_draining, "pending": len(engine.pending)}
        done = {engine.uuid: "draining" if is_draining else "not drained"}
        return Reply("drain_reply", {"status": "ok", "engines": done, **facts})


def _is_on(engine: EngineConnector, host: str) -> bool:
    """Return whether an engine runs on a host, given by name, with or without the domain, or by address."""
    offered = dict(engine.offers).get("host")
    names = {offered, offered.partition(".")[0]} if isinstance(offered, str) else set()
    return host == engine.host or host in names


def _seconds(content: dict[str, Any], name: str) -> float | None:
    value = content.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1e8:
        raise ValueError(f"{name} must be a number of seconds, not {str(value)[:100]!r}")
    return float(value)
