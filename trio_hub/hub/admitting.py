"""Which requests the hub takes from clients: those that are requests, and that have not come before.

The signature of a message does not cover its buffers. So a stranger who has got hold of a client's message could send
it once more, with a function of the stranger's in the buffers. The session refuses the messages that it has read or
made lately (`trio_hub.wire.signing.ReplayWindow`). Requests that the session may have forgotten are looked up in the
store here, and refused if they have a record.

To look up every request would take too long. It is not needed either: `Freshness` tells which of them the session
cannot have forgotten.
"""

from __future__ import annotations

from array import array
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import Any, NamedTuple, Protocol

from ..errors import EngineError, HubError, RequestRefused, WireError
from ..schedulers.broadcast import sub_msg_id
from ..wire.messages import Message, parse_date
from ..wire.recent import Recent
from .answering import STOPPED
from .holding import Holding

__all__ = ["Admitting", "Freshness"]

AHEAD = timedelta(minutes=1)
"""How far a client's clock may be ahead of the hub's. Requests that are dated later are always looked up."""
KNOWN = 1 << 14
"""Places for msg_ids of requests that have come lately."""
LOOKED_UP_AT_A_TIME = 100
"""Requests of one client that are looked up together."""
LOOK_UP_ATTEMPTS, LOOK_UP_PAUSE = 60, 1.0
"""How often requests are looked up while the store gives errors, and seconds between two attempts."""
WAITING_BYTES = 16 << 20
"""Bytes of requests that may wait for the store. Beyond that no more requests are received for a while."""
OVERHEAD = 1024
"""Bytes that a waiting request takes up beside its frames, roughly."""

_NEVER = datetime.min.replace(tzinfo=UTC)


class Freshness:
    """Tells from the date of a request whether the session would still know the request, had it come before.

    The session forgets the oldest half of its memory at a time. It would know a request that is dated later than all
    requests in the part that is forgotten.

    Args:
        recent: the memory of the session.
        now: the current time, aware and in UTC.
        forgotten: the latest date of requests that may have come before this hub, and that the session does not know;
            None if there are none.
    """

    def __init__(self, recent: Recent[bool], now: Callable[[], datetime], forgotten: datetime | None) -> None:
        self.forgotten = forgotten or _NEVER
        """No forgotten request is dated later than this."""
        self._recent = recent
        self._turns = recent.turns
        self._latest = self._latest_before = self.forgotten
        self._now = now
        self._ahead = _NEVER
        """What was ahead of the hub's clock by that much when the clock was last looked at."""

    def is_fresh(self, date: datetime | None) -> bool:
        """Whether the session would know a request of this date, had it come before. None is an unreadable date."""
        if self._recent.turns != self._turns:
            self._turn()
        if date is None or (date > self._ahead and self._is_ahead(date)):
            return self.forgotten is _NEVER
        if date > self._latest:
            self._latest = date
        return date > self.forgotten

    def latest(self) -> datetime:
        """A time that is not earlier than the date of any request until now, if none was dated too far ahead."""
        return max(self._latest, self._now())  # the hub's clock dates the requests that the hub itself makes

    def _is_ahead(self, date: datetime) -> bool:
        self._ahead = self._now() + AHEAD
        return date > self._ahead

    def _turn(self) -> None:
        """The session has forgotten something."""
        turns, self._turns = self._recent.turns - self._turns, self._recent.turns
        latest = self.latest()
        self.forgotten = self._latest_before if turns == 1 else latest
        self._latest_before = self._latest = latest


class Handler(Protocol):
    """What carries out a request."""

    def __call__(self, idents: list[bytes], msg: Message, *, admitted: bool) -> None: ...


class _Waiting(NamedTuple):
    """A request that waits for the store, or behind one that does.

    ``msg_ids`` are those under which its records would be, and ``size`` is in bytes.
    """

    idents: list[bytes]
    message: Message
    handler: Handler
    msg_ids: list[str]
    size: int


class Admitting(Holding):
    """The part of the hub that lets requests in."""

    query_handlers: dict[str, Any]

    def __init__(self, *args: Any, forgotten: datetime | None = None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.freshness = Freshness(self.session.replays.recent, self.now, forgotten)
        self.waiting_bytes = 0
        """Bytes of requests that wait for the store."""
        self._known = array("q", bytes(8 * KNOWN))
        self._lines: dict[tuple[str, bytes], deque[_Waiting]] = {}

    def admit(self, channel: str, idents: list[bytes], msg: Message, handler: Handler) -> bool:
        """Whether the handler shall carry out a request now.

        If not, it was refused; or ignored, since it is pending already; or it waits for the store, and is given to the
        handler later. While a request of a client waits, those that come after it on the same channel wait behind it:
        none overtakes another on its way to an engine.
        """
        header = msg.header
        msg_type = header.msg_type
        if msg_type[-8:] != "_request" or (msg_type in self.query_handlers and channel != "control_in"):
            if channel != "mux_in" or not msg_type.startswith("comm_"):
                self._turn_away("not_a_request", channel, idents, msg, f"{msg_type!r} is no request for this channel")
                return False
            try:
                self.session.remember_lasting(msg)  # nobody answers these, and there are no records of them
            except WireError as error:
                self.unreadable(channel, error)
                return False
        msg.date = parse_date(header.date)
        is_fresh = self.freshness.is_fresh(msg.date)
        # This memory has gaps. It is for clients that use a msg_id twice: they have the key, and are no strangers.
        mark = hash(header.msg_id)
        place = mark % KNOWN
        is_known = self._known[place] == mark
        self._known[place] = mark
        if self._lines and (channel, idents[0]) in self._lines:
            self._wait(channel, idents, msg, handler)
            return False
        if self.is_pending(header.msg_id) and self._is_duplicate(msg):
            return False
        if is_known or not is_fresh:
            if self.stopping:
                self._refuse(channel, _sender(channel, idents), msg, EngineError(STOPPED))
                return False
            self._wait(channel, idents, msg, handler)
            return False
        if channel != "control_in":
            self.heard_of(channel, idents, header.session)
        return True

    def stop_waiting(self, error: HubError) -> None:
        """Refuse all requests that wait for the store."""
        lines, self._lines = self._lines, {}
        for (channel, _), line in lines.items():
            for waiting in line:
                self._refuse(channel, _sender(channel, waiting.idents), waiting.message, error)

    def _wait(self, channel: str, idents: list[bytes], msg: Message, handler: Handler) -> None:
        size = OVERHEAD + sum(map(len, msg.frames))
        waiting = _Waiting(idents, msg, handler, self._recorded_as(msg), size)
        line = self._lines.setdefault((channel, idents[0]), deque())
        line.append(waiting)
        self.waiting_bytes += size
        self.hold_back(self.waiting_bytes > WAITING_BYTES)
        if len(line) == 1:
            self._look_up(channel, line)

    def _recorded_as(self, msg: Message) -> list[str]:
        """The msg_ids of the records that there may be if this request has come before, by whichever channel."""
        msg_id = msg.header.msg_id
        msg_ids = [msg_id]
        with suppress(WireError):  # its handler says so
            metadata = self.session.metadata(msg)
            original = metadata.get("original_msg_id")
            if isinstance(original, str):  # an engine's share of a broadcast, which the hub has made
                msg_ids.append(original)
            targets = metadata.get("targets")
            for target in targets if isinstance(targets, list) else ():
                if isinstance(target, list) and target and isinstance(target[0], str):  # a broadcast
                    msg_ids.append(sub_msg_id(msg_id, target[0]))
        return msg_ids

    def _look_up(self, channel: str, line: deque[_Waiting], attempt: int = 1) -> None:
        """Ask the store for the first requests in a line, and go on with those that are not there."""
        batch = list(islice(line, LOOKED_UP_AT_A_TIME))
        key = (channel, batch[0].idents[0])
        msg_ids = [msg_id for waiting in batch for msg_id in waiting.msg_ids]

        def looked_up(answer: Any) -> None:
            if self._lines.get(key) is not line:
                return  # the hub stops, and has refused them
            failed = isinstance(answer, Exception)
            if failed and attempt < LOOK_UP_ATTEMPTS:
                self.host.call_later(LOOK_UP_PAUSE, lambda: self._look_up(channel, line, attempt + 1))
                return
            for waiting in batch:
                line.popleft()
                self.waiting_bytes -= waiting.size
                self._looked_up(channel, waiting, None if failed else any(map(answer.__contains__, waiting.msg_ids)))
            if line:
                self._look_up(channel, line)
            else:
                del self._lines[key]
            self.hold_back(self.waiting_bytes > WAITING_BYTES)

        self.host.ask_store(lambda store: store.get(msg_ids), looked_up)

    def _looked_up(self, channel: str, waiting: _Waiting, has_record: bool | None) -> None:
        """Carry out a request, or refuse it. ``has_record`` is None if nobody can tell."""
        idents, msg, handler, *_ = waiting
        if self._is_duplicate(msg):
            return
        if has_record is None:
            what = "the task database does not answer, and only it knows whether this request has come before"
            self._refuse(channel, _sender(channel, idents), msg, EngineError(what))
        elif has_record:
            self._turn_away("already_run", channel, idents, msg, f"a request {msg.header.msg_id} has come before")
        else:
            if channel != "control_in":
                self.heard_of(channel, idents, msg.header.session)
            handler(idents, msg, admitted=True)

    def _turn_away(self, reason: str, channel: str, idents: list[bytes], msg: Message, what: str) -> None:
        """Refuse a request, and count that."""
        self.ignore(reason, what, task=msg.header.msg_id, client=msg.header.session, channel=channel)
        self._refuse(channel, _sender(channel, idents), msg, RequestRefused(what))


def _sender(channel: str, idents: list[bytes]) -> list[bytes]:
    """The identities of the client, without that of the engine it has named."""
    return idents[:1] + idents[2:] if channel in ("mux_in", "control_in") else idents
