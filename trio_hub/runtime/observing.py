"""Observers: objects that are called for each event and each message of a hub, without a queue in between.

A reader of `RunningHub.events` may be slow, and lose events. An observer is called at each event, so it misses none; it
must not wait, and must take next to no time. Without observers, this costs nothing. If an observer raises an error, the
hub goes on: the first error of each observer is logged, all errors are counted, and the observer is still called.
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
    """An object that is called for each event and each handled message of a hub."""

    def happened(self, event: Event) -> None:
        """Handle an event, at the time at which it happens."""

    def handled(self, channel: str, seconds: float) -> None:
        """Note that a message of this channel was handled, and the seconds that reading and handling it took."""


class Observers:
    """The observers of one hub.

    Args:
        channels: The hub's channels, by name.
        failures: Counts the observers' errors.
    """

    def __init__(self, channels: Mapping[str, Channel], failures: Failures) -> None:
        self._channels = channels
        self._failures = failures
        self._told: list[Observer] = []
        """The observers whose first error was logged."""
        self._observers: list[Observer] = []
        self._handlers: dict[str, Callable[[Frames], None]] = {}
        """The original message handler of each channel, by channel, while handlers are timed."""

    def __bool__(self) -> bool:
        return bool(self._observers)

    def add(self, observer: Observer) -> None:
        """Call this observer from now on."""
        if not self._observers:
            for name, channel in self._channels.items():
                if channel.handle is not None:
                    self._handlers[name] = channel.handle
                    channel.handle = self._timed(name, channel.handle)
        self._observers.append(observer)

    def remove(self, observer: Observer) -> None:
        """Stop calling this observer."""
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
