"""Admission of clients' requests: each must be a request for its channel, and must not have come before.

The signature of a message does not cover its buffers. So a stranger who has a copy of a client's message could send it
once more, with another function in the buffers. The session refuses messages that it has read or made lately
(`trio_hub.wire.signing.ReplayWindow`). Requests that the session may have forgotten are looked up in the store here,
and refused if they have a record.

Looking up every request would take too long, and is not needed: `Freshness` tells for which requests the session cannot
have forgotten an earlier copy.
"""

from __future__ import annotations

from array import array
from collections import deque
from collections.abc import Callable, Container
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import Any, NamedTuple

from ..errors import EngineError, HubError, RequestRefused, WireError
from ..schedulers.broadcast import sub_msg_id
from ..wire.messages import Message, Session, parse_date
from ..wire.recent import Recent
from .intake import STOPPED, Intake
from .notices import Notices
from .owed import OwedResults
from .ports import Handler, Host
from .replies import Replies

__all__ = ["Admission", "Freshness", "sender_of"]

AHEAD = timedelta(minutes=1)
"""How far a client's clock may be ahead of the hub's clock. The hub looks up each request with a later date."""
KNOWN = 1 << 14
"""The number of places in the table of the msg_ids of recent requests. It must be a power of two."""
LOOKED_UP_AT_A_TIME = 100
"""The maximum number of requests of one client that are looked up in one call of the store."""
LOOK_UP_ATTEMPTS, LOOK_UP_PAUSE = 60, 1.0
"""Attempts to look up requests while the store gives errors, and seconds between two attempts."""
WAITING_BYTES = 16 << 20
"""The maximum number of bytes of requests that wait for the store. While more wait, the hub receives no requests."""
OVERHEAD = 1024
"""The approximate number of bytes that a waiting request takes up in addition to its frames."""

_NEVER = datetime.min.replace(tzinfo=UTC)


class Freshness:
    """Tells from the date of a request whether the session would still know an earlier copy of the request.

    The session forgets half of its memory at a time, the older half. It knows every request whose date is later than
    the dates of all forgotten requests.

    Args:
        recent: the memory of the session.
        now: the current time, aware and in UTC.
        forgotten: the latest date of requests that an earlier hub may have got and that the session does not know; None
            if there are no such requests.
    """

    def __init__(self, recent: Recent[bool], now: Callable[[], datetime], forgotten: datetime | None) -> None:
        self.forgotten = forgotten or _NEVER
        """The session still knows each request with a later date than this."""
        self._recent = recent
        self._turns = recent.turns
        self._latest = self._latest_before = self.forgotten
        self._now = now
        self._ahead = _NEVER
        """The hub's time plus `AHEAD`, as of the last look at the clock."""

    def is_fresh(self, date: datetime | None) -> bool:
        """Return whether a request with this date can be trusted to be new if the session does not know its msg_id.

        The session has forgotten old requests. A request that is dated before them may be a copy of one of them.

        Args:
            date: the date in the header of the request; None if it could not be read.
        """
        if self._recent.turns != self._turns:
            self._turn()
        if date is None or (date > self._ahead and self._is_ahead(date)):
            return self.forgotten is _NEVER
        if date > self._latest:
            self._latest = date
        return date > self.forgotten

    def latest(self) -> datetime:
        """Return a time that is not before the date of any request so far, apart from dates too far ahead."""
        return max(self._latest, self._now())  # the hub's clock dates the requests that the hub itself makes

    def _is_ahead(self, date: datetime) -> bool:
        self._ahead = self._now() + AHEAD
        return date > self._ahead

    def _turn(self) -> None:
        """Update the dates after the session has forgotten half of its memory, once or several times."""
        turns, self._turns = self._recent.turns - self._turns, self._recent.turns
        latest = self.latest()
        self.forgotten = self._latest_before if turns == 1 else latest
        self._latest_before = self._latest = latest


class _Waiting(NamedTuple):
    """A request that waits for the store, or behind another request of its client that waits for the store.

    ``msg_ids`` are the msg_ids that its records would have, and ``size`` is in bytes.
    """

    idents: list[bytes]
    message: Message
    handler: Handler
    msg_ids: list[str]
    size: int


class Admission:
    """Admits requests, refuses them, or lets them wait until the store has been asked.

    Args:
        host, session: access to the store and to messages.
        now: the current time, aware and in UTC.
        intake: stops the receiving of requests for a while, and knows whether the hub is stopping.
        owed: is told from which identity each client speaks.
        replies: sends refusals.
        notices: counts and logs refusals.
        is_pending: whether a request of a msg_id is waiting for its answer.
        queries: the kinds of message that are queries, and no requests to engines.
        forgotten: see `Freshness`.
    """

    def __init__(
        self,
        host: Host,
        session: Session,
        now: Callable[[], datetime],
        intake: Intake,
        owed: OwedResults,
        replies: Replies,
        notices: Notices,
        *,
        is_pending: Callable[[str], bool],
        queries: Container[str],
        forgotten: datetime | None = None,
    ) -> None:
        self._host = host
        self._session = session
        self._intake = intake
        self._owed = owed
        self._replies = replies
        self._notices = notices
        self._is_pending = is_pending
        self._queries = queries
        self.freshness = Freshness(session.replays.recent, now, forgotten)
        self.waiting_bytes = 0
        """Bytes of requests that wait for the store."""
        self._known = array("q", bytes(8 * KNOWN))
        self._lines: dict[tuple[str, bytes], deque[_Waiting]] = {}

    def admit(self, channel: str, idents: list[bytes], msg: Message, handler: Handler) -> bool:
        """Return whether the handler is to carry out a request now.

        The answer is False if the request was refused, if it was ignored since it is pending already, or if it waits
        for the store; then the handler gets it later. While a request of a client waits, later requests of the client
        on the same channel wait behind it, so that their order is kept.
        """
        header = msg.header
        msg_type = header.msg_type
        if msg_type[-8:] != "_request" or (msg_type in self._queries and channel != "control_in"):
            if channel != "mux_in" or not msg_type.startswith("comm_"):
                text = f"{msg_type!r} is not a request for this channel"
                self._turn_away("not_a_request", channel, idents, msg, text)
                return False
            try:
                self._session.remember_lasting(msg)  # comm messages get no answer and have no record
            except WireError as error:
                self._notices.unreadable(channel, error)
                return False
        msg.date = parse_date(header.date)
        is_fresh = self.freshness.is_fresh(msg.date)
        # This table may forget msg_ids. It is for clients that use a msg_id twice, not a defence against strangers.
        mark = hash(header.msg_id)
        place = mark & (KNOWN - 1)
        is_known = self._known[place] == mark
        self._known[place] = mark
        if self._lines and (channel, idents[0]) in self._lines:
            self._wait(channel, idents, msg, handler)
            return False
        if self._is_pending(header.msg_id):
            self._ignore_duplicate(msg)
            return False
        if is_known or not is_fresh:
            if self._intake.stopping:
                self._replies.refuse(channel, sender_of(channel, idents), msg, EngineError(STOPPED))
                return False
            self._wait(channel, idents, msg, handler)
            return False
        if channel != "control_in":
            self._owed.heard_of(channel, idents, header.session)
        return True

    def stop_waiting(self, error: HubError) -> None:
        """Refuse all requests that wait for the store."""
        lines, self._lines, self.waiting_bytes = self._lines, {}, 0
        for (channel, _), line in lines.items():
            for waiting in line:
                try:
                    self._replies.refuse(channel, sender_of(channel, waiting.idents), waiting.message, error)
                except Exception as unexpected:
                    self._notices.failed("refusal", unexpected)

    def failed(self, place: str, error: Exception, channel: str, idents: list[bytes], msg: Message) -> None:
        """Report an unexpected error, and answer the request that raised it, unless another part will answer it."""
        msg_id = msg.header.msg_id
        reason = self._notices.failed(place, error, task=msg_id, client=msg.header.session, channel=channel)
        is_waiting = any(waiting.message is msg for line in self._lines.values() for waiting in line)
        if is_waiting or self._is_pending(msg_id) or not msg.header.msg_type.endswith("_request"):
            return
        try:
            self._replies.refuse(channel, sender_of(channel, idents), msg, reason)
        except Exception as again:
            self._notices.failed("refusal", again, task=msg_id)

    def _ignore_duplicate(self, msg: Message) -> None:
        """Count that a request is ignored, since it has the msg_id of a pending request."""
        self._notices.ignore(
            "duplicate_msg_id", "the request is pending already", task=msg.header.msg_id, client=msg.header.session
        )

    def _wait(self, channel: str, idents: list[bytes], msg: Message, handler: Handler) -> None:
        size = OVERHEAD + sum(map(len, msg.frames))
        waiting = _Waiting(idents, msg, handler, self._recorded_as(msg), size)
        line = self._lines.setdefault((channel, idents[0]), deque())
        line.append(waiting)
        self.waiting_bytes += size
        self._intake.hold_back(self.waiting_bytes > WAITING_BYTES)
        if len(line) == 1:
            self._look_up(channel, line)

    def _recorded_as(self, msg: Message) -> list[str]:
        """Return the msg_ids that records would have if this request had come before, on any channel."""
        msg_id = msg.header.msg_id
        msg_ids = [msg_id]
        with suppress(WireError):  # the handler reports it
            metadata = self._session.metadata(msg)
            original = metadata.get("original_msg_id")
            if isinstance(original, str):  # a share of a broadcast, made by the hub
                msg_ids.append(original)
            targets = metadata.get("targets")
            for target in targets if isinstance(targets, list) else ():
                if isinstance(target, list) and target and isinstance(target[0], str):  # a broadcast
                    msg_ids.append(sub_msg_id(msg_id, target[0]))
        return msg_ids

    def _look_up(self, channel: str, line: deque[_Waiting], attempt: int = 1) -> None:
        """Look up the first requests in a line; refuse the requests that have records, carry out the others."""
        batch = list(islice(line, LOOKED_UP_AT_A_TIME))
        key = (channel, batch[0].idents[0])
        msg_ids = [msg_id for waiting in batch for msg_id in waiting.msg_ids]

        def looked_up(answer: Any) -> None:
            if self._lines.get(key) is not line:
                return  # the hub is stopping, and has refused these requests
            failed = isinstance(answer, Exception)
            if failed and attempt < LOOK_UP_ATTEMPTS:
                try:
                    self._host.call_later(LOOK_UP_PAUSE, lambda: self._look_up(channel, line, attempt + 1))
                except Exception as error:
                    self._notices.failed("admission", error)
                else:
                    return
            for waiting in batch:
                line.popleft()
                self.waiting_bytes -= waiting.size
                has_record = None if failed else any(map(answer.__contains__, waiting.msg_ids))
                try:
                    self._looked_up(channel, waiting, has_record)
                except Exception as error:
                    self.failed("admission", error, channel, waiting.idents, waiting.message)
            if line:
                self._look_up(channel, line)
            else:
                del self._lines[key]
            self._intake.hold_back(self.waiting_bytes > WAITING_BYTES)

        try:
            self._host.ask_store(lambda store: store.fetch(msg_ids), looked_up)
        except Exception as error:
            attempt = LOOK_UP_ATTEMPTS
            looked_up(self._notices.failed("admission", error))

    def _looked_up(self, channel: str, waiting: _Waiting, has_record: bool | None) -> None:
        """Carry out a request, or refuse it. ``has_record`` is None if the store gave no answer."""
        idents, msg, handler, *_ = waiting
        if self._is_pending(msg.header.msg_id):
            self._ignore_duplicate(msg)
            return
        if has_record is None:
            what = "the task database does not answer, so the hub cannot check whether this request has come before"
            self._replies.refuse(channel, sender_of(channel, idents), msg, EngineError(what))
        elif has_record:
            self._turn_away("already_run", channel, idents, msg, f"a request {msg.header.msg_id} has come before")
        else:
            if channel != "control_in":
                self._owed.heard_of(channel, idents, msg.header.session)
            handler(idents, msg, admitted=True)

    def _turn_away(self, reason: str, channel: str, idents: list[bytes], msg: Message, what: str) -> None:
        """Refuse a request, and count the refusal."""
        self._notices.ignore(reason, what, task=msg.header.msg_id, client=msg.header.session, channel=channel)
        self._replies.refuse(channel, sender_of(channel, idents), msg, RequestRefused(what))


def sender_of(channel: str, idents: list[bytes]) -> list[bytes]:
    """Return the routing identities of the client, without the identity of the engine that the client has named."""
    return idents[:1] + idents[2:] if channel in ("mux_in", "control_in") else idents
