"""Who watches a hub at its work, event by event and message by message, without a queue in between.

A reader of `RunningHub.events` may be slow, and miss some. An observer is called as it happens, so it misses nothing;
for that it must not wait, and take next to no time. Without observers none of this costs anything. An observer that
raises harms nobody else: the first error of each observer is logged, all are counted, and the observer stays.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from time import perf_counter
from typing import Protocol

from ..hub.events import Event
from ..services import Failures, failed
from ..transport.channel import Channel
from ..wire.frames import Frames

__all__ = ["Observer", "Observers"]


class Observer(Protocol):
    """What is told of a hub's work, in the middle of it."""

    def happened(self, event: Event) -> None:
        """Something happened just now."""

    def handled(self, channel: str, seconds: float) -> None:
        """A message was received on this channel; to read it, and to do what it asks for, took that long."""


class Observers:
    """The observers of one hub.

    Args:
        channels: The hub's channels, by name.
        failures: Where an observer's errors are counted.
    """

    def __init__(self, channels: Mapping[str, Channel], failures: Failures) -> None:
        self._channels = channels
        self._failures = failures
        self._told: list[Observer] = []
        """The observers of which an error has been logged."""
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
        self._told = [one for one in self._told if one is not observer]
        if not self._observers:
            for name, handle in self._handlers.items():
                self._channels[name].handle = handle
            self._handlers.clear()

    def happened(self, event: Event) -> None:
        for observer in self._observers:
            try:
                observer.happened(event)
            except Exception as error:
                self._failed(observer, error)

    def _failed(self, observer: Observer, error: Exception) -> None:
        failed("observer", error, self._failures, told=any(one is observer for one in self._told))
        self._told.append(observer)

    def _timed(self, name: str, handle: Callable[[Frames], None]) -> Callable[[Frames], None]:
        def handle_and_tell(frames: Frames) -> None:
            began = perf_counter()
            handle(frames)
            seconds = perf_counter() - began
            for observer in self._observers:
                try:
                    observer.handled(name, seconds)
                except Exception as error:
                    self._failed(observer, error)

        return handle_and_tell
