"""The clients' sessions: where each can be reached, and which results wait for clients that cannot be reached.

Each message of a client names its session. A stock client has no routing identity of its own: after its connection
broke, or the hub was started again, the client has a new identity. The hub recognises the client at its next message on
a channel that also carries results.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from datetime import datetime, timedelta

__all__ = ["MAY_RETURN", "Clients"]

MAY_RETURN = timedelta(minutes=10)
"""If a client comes back on a new connection within this time, it may not have been told that an engine has left."""


class Clients:
    """The identities of each session, and the results that are owed to it.

    Args:
        sessions: the maximum number of sessions that are remembered. Beyond that, the sessions whose identities have
            not changed for longest are forgotten.
        results: the maximum number of results that wait for clients that are away. Only their msg_ids are kept here.
    """

    def __init__(self, sessions: int = 10_000, results: int = 100_000) -> None:
        self._sessions = sessions
        self._results = results
        self._places: OrderedDict[str, dict[str, bytes]] = OrderedDict()
        self._owed: OrderedDict[str, dict[str, None]] = OrderedDict()
        self._presumed: OrderedDict[str, tuple[str, datetime]] = OrderedDict()
        self.owed = 0
        """The number of results that wait for their clients."""

    def __len__(self) -> int:
        return len(self._places)

    def heard(self, session: str, channel: str, ident: bytes, now: Callable[[], datetime] | None = None) -> bool:
        """Note from which identity a session speaks on a channel. Return whether any result is owed to the session.

        ``now`` tells the current time; it is needed for results that the session is presumed to have settled.
        """
        places = self._places.get(session)
        if places is None:
            places = self._places[session] = {}
            if len(self._places) > self._sessions:
                self._places.popitem(last=False)
        if places.get(channel) != ident:
            if now is not None and self._presumed and channel in places:
                self._came_back(session, now())
            places[channel] = ident
            self._places.move_to_end(session)
        return self.owed > 0 and session in self._owed

    def places(self, session: str, channel: str) -> list[tuple[str, bytes]]:
        """Return the channels on which a session was heard, `channel` first, each with the session's last identity."""
        places = self._places.get(session)
        return [] if places is None else sorted(places.items(), key=lambda place: place[0] != channel)

    def owe(self, session: str, msg_id: str) -> None:
        """Note an undelivered result. If too many results wait, forget all of the session that has waited longest."""
        results = self._owed.setdefault(session, {})
        if msg_id not in results:
            results[msg_id] = None
            self.owed += 1
        while self.owed > self._results:
            _, given_up = self._owed.popitem(last=False)
            self.owed -= len(given_up)

    def owed_by_session(self) -> dict[str, int]:
        """Return the number of results that wait for each session that is away, the longest wait first."""
        return {session: len(results) for session, results in self._owed.items()}

    def presume_settled(self, session: str, msg_id: str, now: datetime) -> None:
        """Note a result that the session does not wait for, unless its connections are broken."""
        presumed = self._presumed
        presumed[msg_id] = session, now
        while len(presumed) > self._results or now - next(iter(presumed.values()))[1] > MAY_RETURN:
            presumed.popitem(last=False)

    def _came_back(self, session: str, now: datetime) -> None:
        """Owe a session, whose connection was broken, the results that it may not have settled."""
        for msg_id, (owner, noted) in list(self._presumed.items()):
            if owner == session:
                del self._presumed[msg_id]
                if now - noted <= MAY_RETURN:
                    self.owe(session, msg_id)

    def settle(self, session: str) -> list[str]:
        """Return the msg_ids of the results that are owed to a session, oldest first, and forget that they are owed."""
        results = self._owed.pop(session, {})
        self.owed -= len(results)
        return list(results)
