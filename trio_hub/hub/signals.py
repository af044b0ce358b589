"""The signals to engines, and what they may hit.

From a signal until it has landed, the engine is held: it gets nothing new but control requests. A signal has landed
when the engine, or its nanny, has answered, or when a request has ended with a KeyboardInterrupt. If neither comes in
time, the engine gets work again, and the signal counts as not landed yet. An engine may still handle a landed signal
late. When it has carried out a whole request that was sent after the landing, it has handled all signals.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from ..errors import WireError
from ..schedulers.tasks import TaskScheduler
from ..wire.messages import Message, Session
from .attention import Attention
from .connector import EngineConnector, Scope
from .control import ControlChannel
from .ports import Host
from .routes import Routes

__all__ = ["LANDS_WITHIN", "Signals"]

LANDS_WITHIN = 10.0
"""Seconds after which an engine is held no longer, if nothing shows that the signal has landed."""
KEYBOARD_INTERRUPT = "KeyboardInterrupt"


class _Signalled:
    """An engine with signals.

    - ``under_way``: the number of signals of which nothing shows that they have landed;
    - ``unspent``: the number of signals that may still hit a request; 0 for engines that aim;
    - ``exposed``: the requests that the engine had when the last signal landed; None if an earlier hub has sent the
      signals: then the requests that the engine has when it answers for the first time;
    - ``timer``: ends the hold if nothing shows that the signals have landed.
    """

    __slots__ = ("exposed", "timer", "under_way", "unspent")

    def __init__(self) -> None:
        self.under_way = 0
        self.unspent = 0
        self.exposed: frozenset[str] | None = frozenset()
        self.timer: Scope | None = None

    def stop_timer(self) -> None:
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None


class Signals:
    """Sends signals to engines, holds the engines, and finds out which requests were hit.

    Args:
        host, session: access to timers and messages.
        attention, routes, control, scheduler: the parts of the hub below.
    """

    def __init__(
        self,
        host: Host,
        session: Session,
        *,
        attention: Attention,
        routes: Routes,
        control: ControlChannel,
        scheduler: TaskScheduler,
    ) -> None:
        self._host = host
        self._session = session
        self._attention = attention
        self._routes = routes
        self._control = control
        self._scheduler = scheduler
        self._engines: dict[bytes, _Signalled] = {}
        self._condemned: set[bytes] = set()

    def interrupt(
        self, engine: EngineConnector, msg_id: str, answered: Callable[[dict[str, Any]], None], *, withdraw: bool
    ) -> None:
        """Interrupt a request, and hold the engine until the signal has landed.

        Args:
            engine: the engine that runs the request.
            msg_id: the request. A stock engine interrupts whatever runs.
            answered: is called with the content of the answer to the interrupt.
            withdraw: whether an engine that does not run the request is not to begin it either.
        """
        signalled = self._engines.get(engine.ident)
        if signalled is None:
            signalled = self._engines[engine.ident] = _Signalled()
            self._attention.begin(engine.ident)
        signalled.under_way += 1
        signalled.stop_timer()
        signalled.timer = self._host.call_later(LANDS_WITHIN, partial(self._waited_enough, engine, signalled))
        self._hold(engine)
        handle = partial(self._answered, engine, signalled, answered)
        if engine.aims_interrupts:
            self._control.ask(engine, "interrupt_request", {"msg_id": msg_id, "withdraw": withdraw}, handle)
        else:
            signalled.unspent += 1
            self._host.state_changed()  # so that the next hub knows of the signal
            self._control.ask(engine, "signal_request", {"sig": "SIGINT"}, handle)

    def _answered(
        self,
        engine: EngineConnector,
        signalled: _Signalled,
        answered: Callable[[dict[str, Any]], None],
        content: dict[str, Any],
    ) -> None:
        if self._engines.get(engine.ident) is signalled and signalled.under_way:
            signalled.under_way -= 1  # also after an error: the signal may have landed, and the answer was lost
            if not signalled.under_way:
                self._all_landed(engine, signalled)
        answered(content)

    def _waited_enough(self, engine: EngineConnector, signalled: _Signalled) -> None:
        """Hold an engine no longer whose nanny does not answer. The signal may still come, and hit what runs then."""
        if self._engines.get(engine.ident) is signalled:
            self._end_hold(engine, signalled)

    def _all_landed(self, engine: EngineConnector, signalled: _Signalled) -> None:
        """Hold an engine no longer, and look at its next answers if a signal may be handled late."""
        signalled.under_way = 0
        signalled.exposed = frozenset(engine.pending)
        self._end_hold(engine, signalled)

    def _end_hold(self, engine: EngineConnector, signalled: _Signalled) -> None:
        """Hold an engine no longer, and forget its signals if none of them can hit a request any more."""
        signalled.stop_timer()
        if not signalled.unspent:
            self._forget(engine)
        self._release(engine)

    def was_hit(self, engine: EngineConnector, msg: Message, status: str) -> bool:
        """Return whether a signal has hit the request that the engine answers, and note what the answer shows."""
        signalled = self._engines.get(engine.ident)
        if signalled is None or not signalled.unspent:
            return False
        if status == "error" and self._ename(msg) == KEYBOARD_INTERRUPT:
            signalled.unspent -= 1
            if not signalled.unspent:
                self._all_landed(engine, signalled)
            return True
        if signalled.exposed is None:
            signalled.exposed = frozenset(engine.pending)
        if not signalled.under_way and msg.parent.msg_id not in signalled.exposed:
            self._forget(engine)
        return False

    def _ename(self, msg: Message) -> Any:
        try:
            return self._session.content(msg).get("ename")
        except WireError:
            return None

    def may_hit(self, engine: EngineConnector) -> bool:
        """Return whether an engine may still handle a signal that hits whatever the engine does then."""
        signalled = self._engines.get(engine.ident)
        return signalled is not None and signalled.unspent > 0

    # Restart

    @property
    def saved(self) -> dict[str, int]:
        """The signals that may still hit a request, by the uuids of their engines, for `presume`."""
        return {
            ident.decode("utf-8", "replace"): signalled.unspent
            for ident, signalled in self._engines.items()
            if signalled.unspent
        }

    def presume(self, engine: EngineConnector, unspent: int) -> None:
        """Note that an earlier hub may have sent an engine so many signals that have hit no request yet.

        Call this before any request is sent.
        """
        if engine.aims_interrupts or unspent <= 0:
            return
        signalled = self._engines.get(engine.ident)
        if signalled is None:
            signalled = self._engines[engine.ident] = _Signalled()
            signalled.exposed = None
            self._attention.begin(engine.ident)
        signalled.unspent = max(signalled.unspent, unspent)

    # Engines that are killed

    def condemn(self, engine: EngineConnector) -> None:
        """Hold an engine that is being killed, until it is lost or `pardon` is called."""
        self._condemned.add(engine.ident)
        self._hold(engine)

    def pardon(self, engine: EngineConnector) -> None:
        """Hold an engine no longer that could not be killed."""
        self._condemned.discard(engine.ident)
        signalled = self._engines.get(engine.ident)
        if signalled is None or signalled.timer is None:
            self._release(engine)

    # Engines that are lost

    def engine_lost(self, engine: EngineConnector) -> None:
        """Forget the signals to a lost engine."""
        self._condemned.discard(engine.ident)
        self._forget(engine)
        self._release(engine)

    def _hold(self, engine: EngineConnector) -> None:
        if not engine.held:
            engine.held = True
            if engine.worker is not None:
                self._scheduler.hold(engine.worker)

    def _release(self, engine: EngineConnector) -> None:
        if not engine.held or engine.ident in self._condemned:
            return
        engine.held = False
        if not engine.state.is_coming_back:
            parked, engine.parked = engine.parked, []
            for channel, frames, msg_id in parked:
                self._routes.send(engine, channel, frames, msg_id)
        if engine.worker is not None:
            self._scheduler.release(engine.worker)

    def _forget(self, engine: EngineConnector) -> None:
        signalled = self._engines.pop(engine.ident, None)
        if signalled is not None:
            signalled.stop_timer()
            self._attention.end(engine.ident)
