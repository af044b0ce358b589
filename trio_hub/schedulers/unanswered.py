"""Requests that were sent to an engine and are not answered yet.

There is one `UnansweredRequests` each for direct requests, control requests and broadcasts. Each engine has a `Lane` in
each of them.
"""

from __future__ import annotations

from itertools import count

from ..wire.messages import Header
from .broadcast import Broadcast
from .task import SentBy

__all__ = ["Direct", "Lane", "UnansweredRequests"]


_numbers = count()


class Direct:
    """A request that was sent to an engine and is not answered yet. It may be the engine's share of a `Broadcast`.

    - ``sent_by``: `SentBy.THIS_HUB`, or `SentBy.EARLIER_HUB` if an earlier hub has sent it, or was about to;
    - ``number``: its place in the order of all such requests;
    - ``behind``: the msg_id of the engine's newest task when the request was sent; empty if the engine had no task.
    """

    __slots__ = ("behind", "broadcast", "header", "idents", "lane", "number", "raw_header", "sent_by")

    def __init__(
        self, idents: list[bytes], header: Header, raw_header: bytes, lane: Lane, broadcast: Broadcast | None = None
    ) -> None:
        self.idents = idents
        self.header = header
        self.raw_header = raw_header
        self.lane = lane
        self.broadcast = broadcast
        self.sent_by = SentBy.THIS_HUB
        self.number = next(_numbers)
        self.behind = ""

    def __repr__(self) -> str:
        return f"<Direct {self.header.msg_type} {self.header.msg_id} to {self.lane.ident!r}>"


class Lane:
    """The requests of one channel that one engine has not answered, in the order in which they were sent."""

    __slots__ = ("ident", "pending")

    def __init__(self, ident: bytes) -> None:
        self.ident = ident
        self.pending: dict[str, Direct] = {}

    def __len__(self) -> int:
        return len(self.pending)


class UnansweredRequests:
    """The unanswered requests of one channel, by msg_id."""

    def __init__(self) -> None:
        self.pending: dict[str, Direct] = {}

    def sent(self, direct: Direct) -> bool:
        """Add a request that is sent to its lane's engine. Return False if its msg_id is unanswered already."""
        msg_id = direct.header.msg_id
        if msg_id in self.pending:
            return False
        self.pending[msg_id] = direct
        direct.lane.pending[msg_id] = direct
        return True

    def restore(self, direct: Direct) -> None:
        """Add a request that an earlier hub has sent to its lane's engine, or was about to send."""
        direct.sent_by = SentBy.EARLIER_HUB
        self.sent(direct)

    def answered(self, ident: bytes, msg_id: str) -> Direct | None:
        """Remove and return the request that an engine answers; None if this engine has no such request to answer."""
        direct = self.pending.get(msg_id)
        if direct is None or direct.lane.ident != ident:
            return None
        del self.pending[msg_id]
        del direct.lane.pending[msg_id]
        return direct

    def strand(self, lane: Lane) -> list[Direct]:
        """Remove and return the requests that an engine has not answered, since the engine is gone."""
        stranded = list(lane.pending.values())
        lane.pending.clear()
        for direct in stranded:
            del self.pending[direct.header.msg_id]
        return stranded
