"""Changes of engines that a client may have missed, since it subscribed to notifications too late.

A client asks which engines there are, and subscribes to notifications on another connection. If an engine comes or goes
after the answer and before the subscription, the client is not told. So the hub sends each new subscriber the recent
notifications once more. Repeated registrations do no harm: a stock client accepts a registration twice. But a stock
client that waits for engines gives up at any unregistration. So the hub repeats unregistrations only while some client
has been told the engines and has not subscribed yet.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import NamedTuple

from ..wire.frames import Frames
from ..wire.messages import Header, Session
from .notices import Notices

__all__ = ["MOST", "RECENT", "EngineChanges"]

RECENT = timedelta(seconds=60)
"""The maximum age of the changes about which a new subscriber is notified."""
MOST = 1_000
"""The maximum number of changes that are kept. Only the latest change of each engine id is kept."""
AHEAD = timedelta(seconds=2)
"""The maximum time from a client's subscription to its query for the engines."""
SESSIONS = 10_000
"""The maximum number of sessions that are remembered. Only the first question of each session counts."""


class _Change(NamedTuple):
    time: datetime
    msg_type: str
    engine_id: int
    uuid: str


class EngineChanges:
    """Keeps the recent changes of engines, and decides which of them a new subscriber is told.

    Args:
        session: writes notifications.
        now: the current time, aware and in UTC.
        notices: counts and logs errors.
        repeat_losses: whether unregistrations are told once more at all. With the ``pure`` scheme a stock client ends
            its task queue at any unregistration.
    """

    def __init__(self, session: Session, now: Callable[[], datetime], notices: Notices, *, repeat_losses: bool) -> None:
        self._session = session
        self._notices = notices
        self._now = now
        self._repeat_losses = repeat_losses
        self.most = MOST
        self._changes: OrderedDict[int, _Change] = OrderedDict()
        self._sessions: OrderedDict[str, None] = OrderedDict()
        self._told: deque[datetime] = deque()
        """The times at which clients got the list of engines, if they have not subscribed since; oldest first."""
        self._ahead: deque[datetime] = deque()
        """The times of subscriptions whose clients have not asked for the list of engines since; oldest first."""

    def engine_came(self, engine_id: int, uuid: str) -> None:
        """Note a registration, after all subscribers were told."""
        self._note("registration_notification", engine_id, uuid)

    def engine_left(self, engine_id: int, uuid: str) -> None:
        """Note an unregistration, after all subscribers were told."""
        self._note("unregistration_notification", engine_id, uuid)

    def _note(self, msg_type: str, engine_id: int, uuid: str) -> None:
        now = self._now()
        # Only the latest change of each id: a client that has the engine of today must not be told that it has left.
        self._changes.pop(engine_id, None)
        self._changes[engine_id] = _Change(now, msg_type, engine_id, uuid)
        oldest = next(iter(self._changes.values()))
        while len(self._changes) > self.most or now - oldest.time > RECENT:
            self._changes.popitem(last=False)
            oldest = next(iter(self._changes.values()))

    def has_left(self, uuid: str) -> bool:
        """Return whether an engine has left so recently that clients may not have been told yet."""
        now = self._now()
        return any(
            change.uuid == uuid and change.msg_type == "unregistration_notification" and now - change.time <= RECENT
            for change in reversed(self._changes.values())
        )

    def settles_itself(self, header: Header) -> bool:
        """Return whether the client of a request settles the request itself when it is told that its engine has left.

        True for a stock client. Only a client that has asked for the engines can be one: others may not hear
        notifications, and would wait for ever. After a restart the hub does not know which clients have asked before.
        """
        return header.is_stock and header.session in self._sessions

    def client_asked(self, session: str) -> bool:
        """Note that a client is told the engines. Return whether the client asks for the first time."""
        if session in self._sessions:
            return False
        self._sessions[session] = None
        if len(self._sessions) > SESSIONS:
            self._sessions.popitem(last=False)
        now = self._now()
        self._forget_told(now)
        while self._ahead and now - self._ahead[0] > AHEAD:
            self._ahead.popleft()
        if self._ahead:
            self._ahead.popleft()
        else:
            self._told.append(now)
        return True

    def _forget_told(self, now: datetime) -> None:
        while self._told and now - self._told[0] > RECENT:
            self._told.popleft()

    def client_subscribed(self) -> list[Frames]:
        """Return the notifications that a new subscriber may have missed, in order, as new messages. Never raises."""
        try:
            return self._missed()
        except Exception as error:
            self._notices.failed("notification", error)
            return []

    def _missed(self) -> list[Frames]:
        now = self._now()
        self._forget_told(now)
        # Nobody knows whose subscription this is. The hub assumes that the client that was told first subscribes last.
        since = self._told[0] if self._told else None
        if self._told:
            self._told.pop()
        else:
            self._ahead.append(now)
            if len(self._ahead) > SESSIONS:
                self._ahead.popleft()
        return [
            self._session.write(change.msg_type, {"id": change.engine_id, "uuid": change.uuid})
            for change in self._changes.values()
            if now - change.time <= RECENT
            and (change.msg_type == "registration_notification" or self._is_missed(change, since))
        ]

    def _is_missed(self, loss: _Change, since: datetime | None) -> bool:
        return self._repeat_losses and since is not None and loss.time >= since
