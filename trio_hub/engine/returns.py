"""Makes the engine known to a hub that has come back."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import trio

from ..errors import WireError
from ..logs import get_logger
from .registrar import Registrar, RegistrationFailed

__all__ = ["Returns"]

log = get_logger("trio_hub.engine")

FIRST_PAUSE, LONGEST_PAUSE = 0.5, 10.0
"""Seconds until the engine asks the hub again, and the longest pause between two requests."""


class Returns:
    """Asks a hub that has come back whether it knows the engine, and registers the engine again if it does not.

    Args:
        registrar: asks the hub.
        own_id: returns the engine's id.
        heart_is_there: returns whether the hub's last ping has come in time.
        take: takes the content of the hub's acceptance, when the hub knows the engine by a new id, or anew. Raises
            `RegistrationFailed` if the content is not usable.
    """

    def __init__(
        self,
        registrar: Registrar,
        own_id: Callable[[], int],
        heart_is_there: Callable[[], bool],
        take: Callable[[dict[str, Any]], None],
    ) -> None:
        self._registrar = registrar
        self._own_id = own_id
        self._heart_is_there = heart_is_there
        self._take = take
        self._returned = trio.Event()
        self._asking = trio.CancelScope()
        self._paused = False

    def note(self) -> None:
        """Note that the hub has come back, or that it may have lost the engine."""
        self._returned.set()

    def pause(self) -> None:
        """Ask nothing until `resume` is called: the engine goes to another hub, at which it registers."""
        self._paused = True
        self._asking.cancel()

    def resume(self) -> None:
        """Ask again whenever the hub comes back."""
        self._paused = False

    async def run(self) -> None:
        """Whenever the hub has come back, make the engine known to it.

        As long as the hub's heart is there, ask again after growing pauses, until the hub knows the engine.
        """
        pause, settled = FIRST_PAUSE, True
        while True:
            with trio.move_on_after(math.inf if settled else pause):
                await self._returned.wait()
            if self._returned.is_set():
                self._returned, pause = trio.Event(), FIRST_PAUSE
            elif not self._heart_is_there():
                continue
            else:
                pause = min(2 * pause, LONGEST_PAUSE)
            settled = True
            with trio.CancelScope() as self._asking:
                settled = self._paused or await self._make_known()

    async def _make_known(self) -> bool:
        """Ask whether the hub knows the engine, and register if it does not. Return whether the hub knows it then."""
        try:
            known, own = await self._registrar.id_at_hub(), self._own_id()
            answer = self._registrar.accepted_late()
            if known is None:
                answer = await self._registrar.register()
            elif answer is None or answer.get("id") != known:
                if known == own:
                    return True
                answer = {"id": known, "status": "ok"}  # the hub's answer to the registration was lost
            self._take(self._registrar.accepted(answer))
        except WireError:
            return True  # this hub cannot tell
        except RegistrationFailed as error:
            log.warning("the hub has not registered this engine again; asks again after a pause", error=error)
            return False
        return True
