"""What engines offer: tags and amounts, by which tasks with needs find their engine."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from ..errors import WireError
from ..logs import get_logger
from ..schedulers.rules import MAX_NAMES, Needs, parse_needs, shown
from ..schedulers.tasks import TaskScheduler
from ..wire.messages import Message, Session
from .connector import EngineConnector
from .engines import Engines, engine_named
from .replies import Reply

__all__ = ["Offers"]

log = get_logger("trio_hub.hub")


class Offers:
    """Keeps what engines offer.

    An engine of this project says what it offers when it registers. For all engines, an administrator can add, change
    and remove tags and amounts. They belong to the engine until it ends, also over a restart of the hub.

    Args:
        session: reads queries.
        engines, scheduler: the parts of the hub below.
        changed: is called when an administrator has changed what an engine offers.
    """

    def __init__(
        self, session: Session, *, engines: Engines, scheduler: TaskScheduler, changed: Callable[[], None]
    ) -> None:
        self._session = session
        self._engines = engines
        self._scheduler = scheduler
        self._changed = changed

    def tag(self, engine: EngineConnector, tags: Mapping[str, Any], remove: Iterable[str] = ()) -> Needs:
        """Remove and then add tags and amounts of an engine, and return what it offers now.

        Raises:
            WireError: A tag cannot be used, or there are too many. Then nothing changes.
        """
        offers = dict(engine.offers)
        for name in remove:
            offers.pop(name, None)
        offers |= parse_needs("tags", tags)
        if len(offers) > MAX_NAMES:
            raise WireError("too_large", f"an engine can have at most {MAX_NAMES} tags: remove some first")
        self.give(engine, tuple(sorted(offers.items())))
        log.info("engine tagged", engine=engine.id, offers=offers)
        self._changed()
        return engine.offers

    def give(self, engine: EngineConnector, offers: Needs) -> None:
        """Set what an engine offers, and have the scheduler use it."""
        engine.offers = offers
        if engine.worker is not None:
            self._scheduler.set_offers(engine.worker, offers)

    def saved(self) -> dict[str, dict[str, Any]]:
        """Return what engines offer, by uuid, for the next hub. Engines that offer nothing are left out."""
        known = [*self._engines.alive.values(), *(engine for engine in self._engines.gone if engine.may_return)]
        return {engine.uuid: dict(engine.offers) for engine in known if engine.offers}

    def restore(self, saved: Mapping[str, Any]) -> None:
        """Give the engines of an earlier hub what they offered there, as `saved` has returned it."""
        for engine in [*self._engines.alive.values(), *self._engines.gone]:
            if engine.uuid in saved:
                try:
                    self.give(engine, parse_needs("offers", saved[engine.uuid]))
                except WireError as error:
                    log.warning("the tags of an engine are not restored", engine=engine.id, error=error)

    def tag_request(self, client_id: list[bytes], msg: Message) -> Reply:
        """Change the ``tags`` of an ``engine`` (id or uuid), ``remove`` others, and reply with what it offers now."""
        content = self._session.content(msg)
        named, tags, remove = content.get("engine"), content.get("tags") or {}, content.get("remove") or []
        if not isinstance(remove, list) or not all(isinstance(name, str) for name in remove):
            raise TypeError(f"remove must be a list of names of tags, not {shown(remove)}")
        engine = engine_named(self._engines, named)
        if engine is None:
            there = ", ".join(map(str, sorted(self._engines.alive))) or "none"
            raise IndexError(f"no engine {shown(named)} is registered (registered: {there})")
        return Reply("tag_reply", {"status": "ok", "engine": engine.id, "offers": dict(self.tag(engine, tags, remove))})
