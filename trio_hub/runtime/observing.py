"""Who watches a hub at its work, event by event and message by message, without a queue in between.

A reader of `RunningHub.events` may be slow, and miss some. An observer is called as it happens, so it misses nothing;
for that it must neither wait nor fail, and take next to no time. Without observers none of this costs anything.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from time import perf_counter
from typing import Protocol

from ..hub.events import Event
from ..wire.frames import Frames
from .sockets import Channel

__all__ = ["Observer", "Observers"]


class Observer(Protocol):
    """What is told of a hub's work, in the middle of it."""

    def happened(self, event: Event) -> None:
        """Something happened just now."""

    def handled(self, channel: str, seconds: float) -> None:
        """A message was received on this channel; to read it, and to do what it asks for, took that long."""


class Observers:
    """Those of one hub."""

    def __init__(self, channels: Mapping[str, Channel]) -> None:
        self._channels = channels
        self._observers: list[Observer] = []
        self._handlers: dict[str, Callable[[Frames], None]] = {}
        """What handles the messages of a channel, while that is timed."""

    def __bool__(self) -> bool:
        return bool(self._observers)

    def add(self, observer: Observer) -> None:
        """From now on it is told everything."""
        if not self._observers:
            for name, channel in self._channels.items():
                if channel.handle is not None:
                    self._handlers[name] = channel.handle
                    channel.handle = self._timed(name, channel.handle)
        self._observers.append(observer)

    def remove(self, observer: Observer) -> None:
        """It is told nothing more."""
        self._observers.remove(observer)
        if not self._observers:
            for name, handle in self._handlers.items():
                self._channels[name].handle = handle
            self._handlers.clear()

    def happened(self, event: Event) -> None:
        for observer in self._observers:
            observer.happened(event)

    def _timed(self, name: str, handle: Callable[[Frames], None]) -> Callable[[Frames], None]:
        def handle_and_tell(frames: Frames) -> None:
            began = perf_counter()
            handle(frames)
            seconds = perf_counter() - began
            for observer in self._observers:
                observer.handled(name, seconds)

        return handle_and_tell
