"""The pool ``local`` that the setting ``engines`` stands for: a fixed number of engines on the hub's machine."""

from __future__ import annotations

from collections.abc import Callable

from ...hub import EngineConnector
from ..children import LocalEngines

__all__ = ["FixedPool"]


class FixedPool:
    """A fixed number of local engines, whatever the demand. The number can be changed while the hub runs.

    Args:
        engines: the engines.
        retire: gives an engine no more tasks, and has it end when it is idle.
        take_back: gives an engine tasks again that was retired, unless it was told to end already.
    """

    def __init__(
        self,
        engines: LocalEngines,
        *,
        retire: Callable[[EngineConnector], None],
        take_back: Callable[[EngineConnector], object],
    ) -> None:
        self.engines = engines
        self.configured = engines.n
        self.spent = 0.0
        """Engine-seconds of earlier hubs."""
        self._retire = retire
        self._take_back = take_back

    def engine_seconds(self) -> float:
        """Return the engine-seconds so far: the seconds for which engines have run, summed over the engines."""
        return self.spent + self.engines.places.process_seconds

    @property
    def alive(self) -> list[EngineConnector]:
        """The engines that are registered and alive."""
        return [place.engine for place in self.engines.places if place.is_registered and place.engine is not None]

    @property
    def coming(self) -> int:
        """The number of engines that are started, or are started again."""
        return sum(not (place.is_registered or place.stays_away or place.extra) for place in self.engines.places)

    def resize(self, n: int) -> None:
        """Change the number of engines. Surplus engines get no more tasks, and end when they are idle.

        Engines that were told to stop are started again, if as many are asked for.
        """
        engines, places = self.engines, self.engines.places
        engines.n = n
        for place in [place for place in places if place.stays_away]:
            places.remove(place)
        for place in places:
            place.extra = place.extra or (place.engine is not None and place.engine.told_to_stop)  # it is about to end
        kept = [place for place in places if not place.extra]
        for place in [place for place in places if place.extra]:
            if len(kept) < n and (place.engine is None or not place.engine.told_to_stop):
                place.extra = False
                kept.append(place)
                if place.engine is not None:
                    self._take_back(place.engine)
        for _ in range(n - len(kept)):
            engines.begin(places.add())
        # first places without a registered engine, then places with an idle engine, then the highest numbers
        kept.sort(key=lambda place: (place.is_registered, bool(place.engine and place.engine.pending), -place.number))
        for place in kept[: max(len(kept) - n, 0)]:
            place.extra = True
            if place.is_registered and place.engine is not None:
                self._retire(place.engine)
            else:
                place.scope.cancel()
