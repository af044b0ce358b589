"""The engines of a soak. They work, die, unregister, fall silent, are cut off, and come back or are replaced."""

from __future__ import annotations

from collections import Counter, defaultdict
from random import Random

import trio

from tests.crash.processes import HubProcess
from tests.crash.work import FAILING, result_of
from tests.runtime.proxy import Network, open_network
from trio_hub.testing import Request, ScriptedEngine, open_engine
from trio_hub.wire.frames import to_bytes

REGISTERED_WITHIN = 5.0
"""Seconds after which an engine that is not registered yet gives up. Its request may have died with a hub."""
WATCHED_WITHIN = 2.0
"""Seconds within which ZeroMQ has pinged all connections of an engine."""
ALWAYS_FAILING = b"always fails "
CHANNELS = ("task", "mux", "broadcast", "control", "hb_ping", "hb_pong", "iopub", "registration")
SILENCED = tuple(channel for channel in CHANNELS if not channel.startswith("hb_"))
"""Channels that fall silent. Hearts have `Place.be_silent`: whether an engine notices that the connection of its heart
is silent depends on which message was the last."""
PINGED = ("task", "mux", "broadcast", "control", "hb_ping")
"""Channels that ZeroMQ pings."""


class Place:
    """A place for an engine: as soon as one engine is gone, a new one takes its place."""

    def __init__(self, fleet: Fleet) -> None:
        self.fleet = fleet
        self.engine: ScriptedEngine | None = None
        """The engine that is registered, if any."""
        self.network: Network | None = None
        self.began_at = self.registered_at = 0.0
        """When the engine began to register, and when it was registered."""
        self.asleep = False
        """Whether the engine does no work now."""
        self.aborted: set[str] = set()
        self._scope = trio.CancelScope()

    async def run(self) -> None:
        """Run one engine after the other, for ever."""
        while True:
            with trio.CancelScope() as self._scope:
                await self._one_engine()
            self.engine = self.network = None

    async def _one_engine(self) -> None:
        fleet = self.fleet
        self.asleep = False
        self.aborted.clear()
        self.began_at = trio.current_time()
        self._scope.deadline = self.began_at + REGISTERED_WITHIN
        async with (
            open_network(fleet.hub.engine_info) as network,
            open_engine(network.info, behaviour=self._do) as engine,
        ):
            self._scope.deadline = float("inf")
            engine.control_behaviour = self._obey
            self.engine, self.network, self.registered_at = engine, network, trio.current_time()
            fleet.uuids[engine.id] = engine.uuid
            try:
                await self._work(engine)
            except trio.ClosedResourceError:
                return  # the engine is dead

    async def _work(self, engine: ScriptedEngine) -> None:
        """Carry out one request after the other. Each takes its time, so that some are always under way."""
        engine.hold()
        while True:
            await engine.wait_until(lambda: bool(engine.held) and not self.asleep and not engine.closed)
            pace = self.fleet.rng.random()
            if pace < 0.5:
                await trio.sleep(0.2 * pace**4)
            if not self.asleep and not engine.closed:
                engine.release(1)

    def _do(self, request: Request) -> None:
        buffer = to_bytes(request.buffers[0])
        failures = self.fleet.failures
        if request.msg_id in self.aborted:
            request.answer(content={"status": "aborted"})
        elif buffer.startswith(ALWAYS_FAILING) or (buffer.startswith(FAILING) and request.msg_id not in failures):
            failures.add(request.msg_id)
            request.fail()
        else:
            request.answer([result_of(buffer)])
        self.fleet.carried_out += 1
        self.fleet.by[request.msg_id].append(request.engine.id)
        request.engine.requests.clear()
        request.engine.pings.clear()

    def _obey(self, request: Request) -> None:
        if request.msg_type == "abort_request":
            self.aborted.update(request.content.get("msg_ids", ()))
        request.answer()

    def replace(self) -> None:
        """End the engine. A new engine takes its place."""
        self._scope.cancel()

    def wake(self) -> None:
        """Let a silent or cut-off engine work again."""
        self.asleep = False
        if self.network is not None:
            self.network.refusing = False
        if self.engine is not None:
            self.engine.beating = True
            self.engine._changed()

    # Failures

    async def die(self) -> None:
        if self.engine is not None:
            self.engine.die()

    async def leave(self) -> None:
        """Unregister, and end a moment later."""
        if self.engine is not None:
            self.engine.leave()
            await trio.sleep(0.1)
            self.replace()

    async def shut_down(self) -> None:
        if self.engine is not None:
            self.engine.shut_down()
            await trio.sleep(0.1)
            self.replace()

    async def be_silent(self) -> None:
        """Silence the heart for about as long as the hub needs to lose the engine. The engine may work meanwhile."""
        if self.engine is not None:
            self.engine.beating = False
            self.asleep = self.fleet.rng.random() < 0.5
            await trio.sleep(self.fleet.heart_timeout * self.fleet.rng.uniform(0.5, 2.0))
            self.wake()

    async def be_cut_off(self) -> None:
        """Cut the network of the engine for about as long as the hub needs to lose the engine."""
        if self.network is not None:
            self.network.refusing = True
            self.network.reset()
            await trio.sleep(self.fleet.heart_timeout * self.fleet.rng.uniform(0.2, 2.0))
            self.wake()

    async def be_reset(self) -> None:
        """Break the connections of some channels, or of all."""
        if self.network is not None:
            self.network.reset(*self._some(CHANNELS))

    async def be_swallowed(self) -> None:
        """Silence the connections of some channels, which both ends have to notice."""
        if self.network is not None and await self._watched():
            self.network.swallow(*self._some(SILENCED))

    async def be_forgotten(self) -> None:
        """Break the connections of some channels at the engine's end, which the hub has to notice."""
        if self.network is not None and await self._watched():
            self.network.forget(*self._some(SILENCED))

    def _some(self, channels: tuple[str, ...]) -> tuple[str, ...]:
        rng = self.fleet.rng
        return channels if rng.random() < 0.5 else tuple(rng.sample(channels, rng.randint(1, 3)))

    async def _watched(self) -> bool:
        """Wait until ZeroMQ watches the connections. Return False if that takes too long: there may be no hub."""
        with trio.move_on_after(WATCHED_WITHIN):
            while self.network is not None:
                if self.network.is_watched(*PINGED) and all(self.network.count(channel) for channel in PINGED):
                    return True
                await trio.sleep(0.02)
        return False


class Fleet:
    """All places for engines, and what happens to the engines.

    Args:
        hub: the process of the hub.
        size: the number of places.
        heart_timeout: seconds of silence after which the hub counts an engine as lost.
        rng: chooses all failures.
    """

    def __init__(self, hub: HubProcess, size: int, heart_timeout: float, rng: Random) -> None:
        self.hub = hub
        self.heart_timeout = heart_timeout
        self.rng = rng
        self.places = [Place(self) for _ in range(size)]
        self.uuids: dict[int, str] = {}
        """The uuid of each engine that ever was, by id."""
        self.touched: dict[str, float] = {}
        """The time of the last failure of each engine, by uuid; infinite during a failure."""
        self.failures: set[str] = set()
        """The msg_ids of requests that have failed as they should."""
        self.carried_out = 0
        self.by: defaultdict[str, list[int]] = defaultdict(list)
        """The ids of the engines that have carried out each request, since the last `forget`."""
        self.story: list[tuple[float, str, int]] = []
        """The events of engines: the time, the kind of event, and the engine's id."""
        self.events: Counter[str] = Counter()

    async def run(self) -> None:
        async with trio.open_nursery() as nursery:
            for place in self.places:
                nursery.start_soon(place.run)

    @property
    def engines(self) -> list[ScriptedEngine]:
        """The engines that are registered and alive."""
        engines = (place.engine for place in self.places)
        return [engine for engine in engines if engine is not None and not engine.closed]

    async def trouble(self, over: trio.Event, pause: float) -> None:
        """Let one engine after the other fail, until it is over. ``pause`` is the mean number of seconds in between."""
        happenings = {
            Place.die: 2,
            Place.leave: 1,
            Place.shut_down: 1,
            Place.be_silent: 3,
            Place.be_cut_off: 2,
            Place.be_reset: 3,
            Place.be_swallowed: 2,
            Place.be_forgotten: 2,
        }
        while not over.is_set():
            with trio.move_on_after(self.rng.expovariate(1 / pause)):
                await over.wait()
                return
            place = self.rng.choice(self.places)
            (happening,) = self.rng.choices(list(happenings), list(happenings.values()))
            if place.engine is None or self.touched.get(uuid := place.engine.uuid) == float("inf"):
                continue
            self.touched[uuid] = float("inf")
            self.events[happening.__name__] += 1
            self.story.append((trio.current_time(), happening.__name__, place.engine.id))
            await happening(place)
            self.touched[uuid] = trio.current_time()

    def forget(self) -> None:
        self.by.clear()
        self.story.clear()

    def wake(self) -> None:
        """Let all silent or cut-off engines work again."""
        for place in self.places:
            place.wake()
