"""The clients' sessions: where they can be reached, and which results wait for those that cannot.

A client is known by its session, which its messages name. A stock client has no routing identity of its own: when
its connection breaks, or the hub is another one, it comes back under a new one, and is recognised as soon as it says
anything on a channel that results travel on.
"""

from __future__ import annotations

from collections import OrderedDict

__all__ = ["Clients"]


class Clients:
    """Which session lives at which identity, and what it is owed.

    Args:
        sessions: how many are remembered; those that were not heard for longest are forgotten.
        results: how many results, of which only the msg_ids are kept here, may wait for clients that are away.
    """

    def __init__(self, sessions: int = 10_000, results: int = 100_000) -> None:
        self._sessions = sessions
        self._results = results
        self._places: OrderedDict[str, dict[str, bytes]] = OrderedDict()
        self._owed: OrderedDict[str, dict[str, None]] = OrderedDict()
        self.owed = 0
        """How many results wait."""

    def __len__(self) -> int:
        return len(self._places)

    def heard(self, session: str, channel: str, ident: bytes) -> bool:
        """A session has spoken. Whether anything is owed to it."""
        places = self._places.get(session)
        if places is None:
            places = self._places[session] = {}
            if len(self._places) > self._sessions:
                self._places.popitem(last=False)
        if places.get(channel) != ident:
            places[channel] = ident
            self._places.move_to_end(session)
        return self.owed > 0 and session in self._owed

    def places(self, session: str, channel: str) -> list[tuple[str, bytes]]:
        """The channels on which a session was heard, this one first, with the identities at which it was heard last."""
        places = self._places.get(session)
        return [] if places is None else sorted(places.items(), key=lambda place: place[0] != channel)

    def owe(self, session: str, msg_id: str) -> None:
        """A result could not be delivered. If too many wait, those of the session that waits longest are given up."""
        results = self._owed.setdefault(session, {})
        if msg_id not in results:
            results[msg_id] = None
            self.owed += 1
        while self.owed > self._results:
            _, given_up = self._owed.popitem(last=False)
            self.owed -= len(given_up)

    def settle(self, session: str) -> list[str]:
        """The results that are owed to a session, oldest first; they are no longer owed."""
        results = self._owed.pop(session, {})
        self.owed -= len(results)
        return list(results)
