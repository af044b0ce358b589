"""`Journal`: the events of a hub that a person may want to read about later, in sentences, and at most a fixed number.

Equal events that follow each other closely are one entry: a thousand engines that register within a minute would
otherwise push everything else out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Annotated, Any, TypeAlias

import msgspec

from ..hub.events import (
    BlockEnded,
    BlockStarted,
    BlockSubmitted,
    EngineDraining,
    EngineRegistered,
    EngineReturned,
    EngineSettled,
    EngineShutdownRequested,
    EngineUnregistered,
    HubShutdownRequested,
    HubStopping,
    PoolScaled,
    RecordsPurged,
    RegistrationStalled,
    RequestsAborted,
    RequestsResubmitted,
    TaskCancelled,
)
from ..wire.plain import printable
from .sentences import BlockEvent, Level, block_kind, block_line, engines_in_words, plural

__all__ = ["MAX_ENTRIES", "Entry", "Journal", "JournalEvent", "as_rows"]

MAX_ENTRIES = 500
"""The number of entries to keep: the last ones."""
NEAR = 10.0
"""Seconds within which an equal event is added to an entry."""
MAX_SUBJECTS = 6
"""The number of engines that an entry names."""
MAX_TEXT = 500
"""The maximum length of a sentence, in characters."""
MAX_USER = 60
"""The maximum length of the name of a user, in characters."""
HOUR = 3600.0

JournalEvent: TypeAlias = (
    BlockEnded
    | BlockStarted
    | BlockSubmitted
    | EngineDraining
    | EngineRegistered
    | EngineReturned
    | EngineSettled
    | EngineShutdownRequested
    | EngineUnregistered
    | HubShutdownRequested
    | HubStopping
    | PoolScaled
    | RecordsPurged
    | RegistrationStalled
    | RequestsAborted
    | RequestsResubmitted
    | TaskCancelled
)
"""The events of the hub that the journal notes."""
_ClientEvent: TypeAlias = (
    EngineShutdownRequested | HubShutdownRequested | RecordsPurged | RequestsAborted | RequestsResubmitted
)
"""The events that a client causes."""

_ENGINES: dict[str, tuple[Level, str, str]] = {
    "engine_registered": ("info", "has registered", "have registered"),
    "engine_returned": ("info", "is usable again", "are usable again"),
    "engine_lost": ("warn", "was lost", "were lost"),
    "engine_left": ("info", "has left", "have left"),
    "engine_stalled": (
        "warn",
        "asked to register, but its heart was not heard in time",
        "asked to register, but their hearts were not heard in time",
    ),
}
"""By kind: the level, and what happened to one engine or to several."""


class Entry(msgspec.Struct):
    """One or several equal events.

    - ``id``: stays the same when an event is added;
    - ``seq``: grows with each change of any entry;
    - ``t``, ``last``: the times of the first and of the last event, in Unix seconds;
    - ``count``: the number of events;
    - ``subjects``: the ids of the engines, the last ones, if the events are about engines;
    - ``cause``: why the last engine was lost;
    - ``who``: the person or the client that has caused the events; empty if nobody has.
    """

    id: int
    seq: int
    t: float
    last: float
    kind: str
    level: Level
    text: str
    count: Annotated[int, msgspec.Meta(ge=1)] = 1
    subjects: list[int] = []
    cause: str = ""
    who: str = ""


class Journal:
    """The entries, in the order of their last events.

    Args:
        cause_of: Returns why the engine with a uuid has gone, as far as that is known.
        left_in_order: Returns whether an engine that has gone was told to end, or has unregistered itself.
        clock: Returns the time in Unix seconds.
    """

    def __init__(
        self,
        cause_of: Callable[[str], str],
        left_in_order: Callable[[EngineUnregistered], bool],
        clock: Callable[[], float],
    ) -> None:
        self.seq = 0
        """The number of the last change."""
        self.losses = 0
        """The number of engines that were lost, and had not left in good order, since the start of this object."""
        self._entries: dict[int, Entry] = {}
        self._unsettled: dict[str, tuple[EngineUnregistered, Entry]] = {}
        """By uuid: the engines that have gone and whose causes may still be found out, each with its entry."""
        self._cause_of = cause_of
        self._left_in_order = left_in_order
        self._clock = clock

    def note(self, kind: str, level: Level, text: str, *, who: str = "", count: int = 1, near: float = NEAR) -> Entry:
        """Add an event, or count it in an entry of the same kind and person that is at most `near` seconds old.

        Args:
            kind: What sort of event it is. Only events of one kind are counted together.
            level: How much it concerns an operator.
            text: A sentence. It replaces the sentence of an event with which this event is counted.
            who: The person or client that has caused the event. Then the text is what they did: "purged 3 records".
            count: The number of events.
            near: Seconds; negative if the event is to have an entry of its own.
        """
        entry = self._entry(kind, level, who, count, near)
        entry.text = printable(text[:MAX_TEXT])
        return entry

    def happened(self, event: JournalEvent) -> None:
        """Note an event of the hub."""
        match event:
            case EngineRegistered():
                self._engine("engine_registered", event.id)
            case EngineReturned():
                self._engine("engine_returned", event.id)
            case RegistrationStalled():
                self._engine("engine_stalled", event.id)
            case EngineUnregistered():
                self._engine_gone(event)
            case EngineSettled():
                self._learn(event.uuid)
                self._unsettled.pop(event.uuid, None)
            case RecordsPurged():
                self.note("purged", "info", f"purged {plural(event.records, 'record')}", who=_who(event), near=-1.0)
            case RequestsAborted():
                self._counted("aborted", event.requests, "asked to abort", _who(event))
            case RequestsResubmitted():
                self._counted("resubmitted", event.requests, "resubmitted", _who(event))
            case EngineShutdownRequested():
                does = "restart" if event.restart else "end"
                self._told(f"engine_told_to_{does}", event.id, "asked {engines} to " + does, _who(event))
            case EngineDraining():
                kind, did = ("drained", "drained {engines}") if event.draining else ("undrained", "undrained {engines}")
                self._told(kind, event.id, did, event.by)
            case TaskCancelled():
                self._counted("cancelled", 1, "cancelled", event.by)
            case BlockSubmitted() | BlockStarted() | BlockEnded():
                self._block(event)
            case PoolScaled():
                text = f"scaled pool {event.pool} to {engines_in_words(event.min, event.max)}"
                self.note(f"pool_scaled:{event.pool}", "info", text, who=event.by, near=-1.0)
            case HubShutdownRequested():
                self.note("stop_asked", "info", "asked the hub to stop", who=_who(event))
            case HubStopping():
                self.note("stopped", "info", f"The hub stops: {event.reason}.")

    def learn(self) -> None:
        """Ask the hub again why each engine that was lost lately has gone. The hub may have found out more."""
        for uuid in list(self._unsettled):
            self._learn(uuid)

    def since(self, seq: int, limit: int = MAX_ENTRIES) -> list[Entry]:
        """Return the entries with a sequence number above `seq`, at most `limit`, the latest first.

        An entry gets a new sequence number at each change.
        """
        found: list[Entry] = []
        for entry in reversed(self._entries.values()):
            if entry.seq <= seq or len(found) == limit:
                break
            found.append(entry)
        return found

    def latest(self, kind: str, now: float, within: float = HOUR, who: str | None = None) -> Entry | None:
        """Return the latest entry of a kind whose last event is at most `within` seconds ago.

        With `who`, only entries of that person or client are looked at; "" stands for nobody.
        """
        for entry in reversed(self._entries.values()):
            if now - entry.last > within:
                return None
            if entry.kind == kind and who in (None, entry.who):
                return entry
        return None

    def restore(self, entries: Iterable[Entry]) -> None:
        """Take over the entries of an earlier hub."""
        for entry in entries:
            entry.id = self.seq + 1
            self._put_last(entry)

    def _entry(self, kind: str, level: Level, who: str = "", count: int = 1, near: float = NEAR) -> Entry:
        """Return the entry of new events: an equal entry of the last seconds, or a new one."""
        now = self._clock()
        who = printable(who)
        entry = self.latest(kind, now, near, who)
        if entry is None:
            entry = Entry(self.seq + 1, 0, now, now, kind, level, "", count, who=who)
        else:
            entry.count += count
            entry.last, entry.level = now, level
        self._put_last(entry)
        return entry

    def _put_last(self, entry: Entry) -> None:
        """Give a new or changed entry the number of a new change, and the place of the latest entry."""
        self.seq += 1
        entry.seq = self.seq
        self._entries.pop(entry.id, None)
        self._entries[entry.id] = entry
        if len(self._entries) > MAX_ENTRIES:
            del self._entries[next(iter(self._entries))]

    def _engine(self, kind: str, engine_id: int, cause: str = "") -> Entry:
        entry = self._entry(kind, _ENGINES[kind][0])
        entry.subjects = [*entry.subjects, engine_id][-MAX_SUBJECTS:]
        entry.cause = printable(cause[:MAX_TEXT])
        entry.text = _about_engines(entry)
        return entry

    def _counted(self, kind: str, number: int, did: str, who: str) -> None:
        """Note that a client did something with requests, unless their number is 0.

        Events of one kind and client that are at most `NEAR` seconds apart are one entry. The sentence of the entry has
        the total number of requests.
        """
        if number > 0:
            entry = self._entry(kind, "info", who, number)
            entry.text = f"{did} {plural(entry.count, 'request')}"

    def _told(self, kind: str, engine_id: int, did: str, who: str) -> None:
        """Note that somebody did something with an engine. ``did`` has ``{engines}`` where the engines are named."""
        entry = self._entry(kind, "info", who)
        entry.subjects = [*entry.subjects, engine_id][-MAX_SUBJECTS:]
        engines = f"engine {engine_id}" if entry.count == 1 else f"{entry.count:,} engines"
        entry.text = did.format(engines=engines) + (f": {_named(entry)}" if entry.count > 1 else "")

    def _block(self, event: BlockEvent) -> None:
        """Note what has become of a block. Equal events of blocks of one pool are one entry."""
        level, kind = block_kind(event)
        entry = self._entry(kind, level)
        entry.text = printable(block_line(event, entry.count)[:MAX_TEXT])

    def _engine_gone(self, event: EngineUnregistered) -> None:
        in_order = self._left_in_order(event)
        if not in_order:
            self.losses += 1
        entry = self._engine("engine_left" if in_order else "engine_lost", event.id, self._cause_of(event.uuid))
        self._unsettled[event.uuid] = event, entry

    def _learn(self, uuid: str) -> None:
        known = self._unsettled.get(uuid)
        if known is None:
            return
        event, entry = known
        if entry.subjects[-1:] != [event.id]:  # the entry tells the cause of a later engine
            return
        cause = printable(self._cause_of(uuid)[:MAX_TEXT])
        if cause and cause != entry.cause and entry.id in self._entries:
            entry.cause = cause
            entry.text = _about_engines(entry)
            self._put_last(entry)


def _who(event: _ClientEvent) -> str:
    """Return the client that has caused an event, and the user of its process: ``client 01234567 (ada)``."""
    if not event.client:
        return ""
    return f"client {event.client[:8]}" + (f" ({event.user[:MAX_USER]})" if event.user else "")


def _named(entry: Entry) -> str:
    """Return the ids of the engines of an entry."""
    more = "" if entry.count == len(entry.subjects) else "the last ones are "
    return more + ", ".join(map(str, entry.subjects))


def _about_engines(entry: Entry) -> str:
    _, one, several = _ENGINES[entry.kind]
    if entry.count == 1:
        return f"Engine {_named(entry)} {one}{f': {entry.cause}' if entry.cause else ''}."
    cause = f". Engine {entry.subjects[-1]}: {entry.cause}" if entry.cause else ""
    return f"{entry.count:,} engines {several}: {_named(entry)}{cause}."


def as_rows(entries: Iterable[Entry]) -> list[dict[str, Any]]:
    """Return entries in the form of ``/api/journal``."""
    keys = ("id", "seq", "t", "last", "kind", "level", "text", "count", "who")
    return [{key: getattr(entry, key) for key in keys} for entry in entries]
