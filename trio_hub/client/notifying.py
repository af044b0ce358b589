"""Notifications of a hub to its clients: frozen values, for any number of readers."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from typing import Any, TypeAlias

import msgspec
import trio

from ..errors import EngineError, EventsLost

__all__ = ["EngineJoined", "EngineLeft", "Engines", "HubStopped", "Notification", "Targets"]

BUFFERED = 10_000
"""The maximum number of notifications that are kept for a slow reader."""


class EngineJoined(msgspec.Struct, frozen=True, gc=False):
    """An engine was registered, and can be used."""

    id: int
    uuid: str


class EngineLeft(msgspec.Struct, frozen=True, gc=False):
    """An engine was unregistered."""

    id: int
    uuid: str


class HubStopped(msgspec.Struct, frozen=True, gc=False):
    """The hub has been asked to stop, and no other hub will carry on."""


Targets: TypeAlias = int | str | Sequence[int | str] | None
"""Engines, by id or uuid: one, several, or None for all."""
Notification: TypeAlias = EngineJoined | EngineLeft | HubStopped


class Engines:
    """The hub's engines, as far as the client knows (``uuids``, by id), and the readers of notifications.

    ``heard`` counts the messages of the hub's notification channel.
    """

    def __init__(self) -> None:
        self.uuids: dict[int, str] = {}
        self.heard = 0
        self._heard_of: dict[int, int] = {}
        """By engine id, the value of ``heard`` after the last notification of this id."""
        self._readers: set[trio.MemorySendChannel[Notification]] = set()
        self._closed = False

    def publish(self, notification: Notification) -> None:
        """Pass a notification on to all readers, unless the client knows already that the engine has joined or left."""
        match notification:
            case EngineJoined(id=id, uuid=uuid):
                if self.uuids.get(id) == uuid:
                    return
                self.uuids[id] = uuid
            case EngineLeft(id=id, uuid=uuid):
                if self.uuids.get(id) != uuid:
                    return
                del self.uuids[id]
        for reader in list(self._readers):
            try:
                reader.send_nowait(notification)
            except trio.WouldBlock:  # the reader is too slow: its stream ends with `EventsLost`
                self._readers.discard(reader)
                reader.close()

    def publish_untrusted(self, msg_type: str, content: dict[str, Any]) -> None:
        """Handle a message of the hub's notification channel. Unknown messages are ignored."""
        self.heard += 1
        id, uuid = content.get("id"), content.get("uuid")
        if msg_type == "shutdown_notification":
            self.publish(HubStopped())
        elif isinstance(id, int) and isinstance(uuid, str):
            self._heard_of[id] = self.heard
            if msg_type == "registration_notification":
                self.publish(EngineJoined(id, uuid))
            elif msg_type == "unregistration_notification":
                self.publish(EngineLeft(id, uuid))

    def replace(self, uuids: dict[int, str], heard: int) -> None:
        """Take over the engines that the hub has listed, and tell what has changed.

        Args:
            uuids: all engines, by id.
            heard: the value of ``heard`` when the hub was asked. The list may be older than a later notification, so
                the list says nothing about the engines of later notifications.
        """
        later = {id for id, number in self._heard_of.items() if number > heard}
        self._heard_of = {id: self._heard_of[id] for id in later}
        for id, uuid in list(self.uuids.items()):
            if id not in later and uuids.get(id) != uuid:
                self.publish(EngineLeft(id, uuid))
        for id, uuid in uuids.items():
            if id not in later:
                self.publish(EngineJoined(id, uuid))

    def uuids_of(self, targets: Targets) -> list[str]:
        """Return the uuids of the engines with these ids or uuids; of all engines for None. Raises `EngineError`."""
        known = self.uuids
        if targets is None:
            return list(known.values())
        wanted = [targets] if isinstance(targets, (int, str)) else list(targets)
        for one in wanted:
            if one not in known and one not in known.values():
                there = ", ".join(str(id) for id in sorted(known)) or "none"
                raise EngineError(f"there is no engine {one!r}; the registered engines are: {there}")
        return [known[one] if isinstance(one, int) else one for one in wanted]

    async def notifications(self) -> AsyncGenerator[Notification, None]:
        """Yield the present engines, as `EngineJoined`, then all notifications until the client is closed.

        Raises:
            EventsLost: The reader was too slow.
        """
        send, receive = trio.open_memory_channel[Notification](BUFFERED)
        if not self._closed:
            self._readers.add(send)
        try:
            for id, uuid in list(self.uuids.items()):
                yield EngineJoined(id, uuid)
            if self._closed:
                return
            async for notification in receive:
                yield notification
            if not self._closed:
                raise EventsLost(f"more than {BUFFERED} notifications waited: read them faster")
        finally:
            self._readers.discard(send)
            send.close()
            receive.close()

    def close(self) -> None:
        """End all streams: readers get the buffered notifications, and then the end."""
        self._closed = True
        for reader in self._readers:
            reader.close()
        self._readers.clear()
