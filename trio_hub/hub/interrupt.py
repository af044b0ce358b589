"""`Interrupt`: one request that is to end on its engine, and its states."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from enum import Enum

from ..errors import HubError
from .connector import EngineConnector, Scope
from .ports import Queue

__all__ = ["Interrupt", "InterruptState", "Purpose"]


class Purpose(Enum):
    """Why a request is interrupted."""

    END = "end"
    """The request is answered with an error: it was cancelled, or has run for too long."""
    TAKE_AWAY = "take away"
    """The task is run again, on another engine."""


class InterruptState(Enum):
    """The state of one interrupt. Each begins as `BEHIND`. Whenever the request ends, or its engine is lost: `OVER`."""

    BEHIND = "behind"
    """The request may wait behind others at its engine, or the engine is not back yet. Next: `UNDER_WAY`."""
    UNDER_WAY = "under way"
    """The interrupt was sent. When the engine, or its nanny, has answered: `LANDED`, or `BEHIND` if the request does
    not run. When the grace is over: `KILLING`."""
    LANDED = "landed"
    """The engine has got the interrupt. When the grace is over: `KILLING`."""
    KILLING = "killing"
    """The engine is being killed, since the request has not ended in time."""
    OVER = "over"
    """The request has been answered, or was given back to the scheduler. Nothing follows."""


class Interrupt:
    """One request that is to end on its engine.

    - ``queue``: answers the request; ``error_of`` returns the error, given a sentence that says how the request ended;
    - ``grace``: seconds, see `DEFAULT_GRACE`;
    - ``began``: when the interrupt was asked for;
    - ``aborted``: whether the engine was asked not to begin the request.
    """

    __slots__ = ("aborted", "began", "engine", "error_of", "grace", "msg_id", "purpose", "queue", "state", "timer")

    def __init__(
        self,
        queue: Queue,
        engine: EngineConnector,
        msg_id: str,
        purpose: Purpose,
        grace: float,
        error_of: Callable[[str], HubError],
        began: datetime,
    ) -> None:
        self.queue = queue
        self.engine = engine
        self.msg_id = msg_id
        self.purpose = purpose
        self.grace = grace
        self.error_of = error_of
        self.began = began
        self.state = InterruptState.BEHIND
        self.aborted = False
        self.timer: Scope | None = None

    def __repr__(self) -> str:
        return f"<Interrupt {self.msg_id} on {self.engine.uuid} {self.state.value}>"

    def wait(self, timer: Scope | None) -> None:
        """Cancel the timer of this interrupt, and keep this one in its place, if it is not None."""
        if self.timer is not None:
            self.timer.cancel()
        self.timer = timer
