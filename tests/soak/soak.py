"""A soak: engines, connections, clients and the hub of a cluster fail at random, while clients submit requests."""

from __future__ import annotations

import math
import os
from collections import Counter
from pathlib import Path
from random import Random

import trio

from tests.crash.processes import HubProcess
from trio_hub.testing import ScriptedEngine

from .clients import SoakClient
from .engines import Fleet, Place
from .requests import NAMES_AN_ENGINE

UNSTEADY = (0.0, 0.005, 0.03)
"""For each client, the probability that it leaves, and that its connections are cut, after each of its steps."""
ENGINES = 5
PING, MISSES = 0.1, 15
HEART_TIMEOUT = PING * MISSES
OPTIONS = (
    *("--ping", str(PING), "--max-heartmonitor-misses", str(MISSES)),
    *("--registration-timeout", "4", "--stranded-grace", "0.5", "--hwm", "2"),
)
"""Options of the hub. With them, steps that usually take a minute take seconds."""
SETTLED_WITHIN = 60.0
"""Seconds within which all requests must be answered after the last failure. It usually takes much less."""
TROUBLES, TROUBLE = 2, 0.5
"""The maximum number of engines that fail at the same time, and the mean seconds from one failure to the next."""
PURGES_IN_CYCLE = 5
"""The number of purges in each cycle, which has one restart of the hub."""
CYCLES = 8
"""The least number of cycles in a soak that lasts a minute or longer."""
SHORTEST, LONGEST = 5.0, 300.0
"""The least and the largest number of seconds in a cycle."""
JUST_REGISTERED, NOT_SAVED = 1.0, 20.0
"""Seconds. A hub that is killed so soon after an engine has registered may not have saved that engine. The second is
for engines that the file of the killed hub does not name: a busy disk may take seconds to write it."""
WARM_UP = 2
"""The number of first cycles, with which the memory and descriptors of all later cycles are compared."""
MAX_GROWTH = 32 * 2**20
"""Bytes by which the hub's memory at the end of a later cycle may exceed its memory at the end of the first cycles."""
COMES_TO_REST = 40.0
"""Seconds within which the hub must give memory and descriptors back at the end of a cycle."""
MAX_DESCRIPTORS = 20
"""The same for the number of the hub's file descriptors."""


class Soak:
    """A cluster that fails at random, its clients, and the checks of their answers.

    Args:
        hub: the process of the hub, which runs.
        rng: chooses all failures and requests. The same seed does not repeat a soak exactly, since times differ.
    """

    def __init__(self, hub: HubProcess, rng: Random) -> None:
        self.hub = hub
        self.rng = rng
        self.fleet = Fleet(hub, ENGINES, HEART_TIMEOUT, rng)
        self.clients = [SoakClient(self, number, unsteady) for number, unsteady in enumerate(UNSTEADY)]
        self.operator = SoakClient(self, len(UNSTEADY), 0.0)
        """The client that purges and checks records. Its connections are never cut."""
        self.figures: Counter[str] = Counter()
        self.wrongs: list[str] = []
        self.disturbed_at = float("-inf")
        """When a hub was stopped, or the next one was ready."""
        self.purged_all_at = float("-inf")
        self.kills: list[tuple[float, float]] = []
        """When a hub was killed, and when the next one was ready."""
        self.saved: list[str] = []
        """The engines that the hub that was killed last had saved."""
        self.memory: list[int] = []
        """Bytes of the hub's memory at the end of each cycle (PSS)."""
        self.descriptors: list[int] = []
        self.listed: dict[str, str] = {}
        """The engines that the hub listed when it was asked last, as uuids by id."""
        self.read_log = 0

    def wrong(self, what: str) -> None:
        """Note a fault. The soak goes on until the end of its cycle, which shows what else is wrong."""
        print(f"WRONG: {what}")
        self.wrongs.append(what)

    async def run(self, seconds: float) -> None:
        """Run the soak for so many seconds."""
        cycle = min(LONGEST, max(SHORTEST, seconds / CYCLES))
        end = trio.current_time() + seconds
        async with self.operator.connected(), trio.open_nursery() as nursery:
            nursery.start_soon(self.fleet.run)
            while trio.current_time() < end or self.figures["cycles"] <= WARM_UP:
                await self._cycle(min(cycle, max(SHORTEST, end - trio.current_time())))
                self.figures["cycles"] += 1
            nursery.cancel_scope.cancel()

    async def _cycle(self, seconds: float) -> None:
        over = trio.Event()
        async with trio.open_nursery() as nursery:
            for client in self.clients:
                nursery.start_soon(client.work, over)
            for _ in range(TROUBLES):
                nursery.start_soon(self.fleet.trouble, over, TROUBLE)
            nursery.start_soon(self._restart, seconds * self.rng.uniform(0.2, 0.6))
            for _ in range(PURGES_IN_CYCLE):
                await trio.sleep(seconds / PURGES_IN_CYCLE)
                await self._purge()
            over.set()
        with trio.move_on_after(SETTLED_WITHIN) as limit:
            await self._settle()
        if limit.cancelled_caught:
            self._tell()
            self.wrong(f"not everything was answered within {SETTLED_WITHIN} s")
        assert not self.wrongs, "\n".join(self.wrongs[:20])
        self._check_log()

    # Restarts of the hub, and purges

    async def _restart(self, delay: float) -> None:
        """Stop or kill the hub after a delay, and start the next one."""
        await trio.sleep(delay)
        is_killed = self.rng.random() < 0.5
        self.disturbed_at = trio.current_time()
        if is_killed:
            self.hub.kill()
            self.kills.append((self.disturbed_at, math.inf))
        else:
            await self.hub.stop()
        await self.hub.gone()
        self.saved = self.hub.noted_engines()
        self.figures["kills" if is_killed else "stops"] += 1
        await trio.sleep(self.rng.uniform(0, 1))
        await self.hub.start()
        await self.hub.ready()
        self.disturbed_at = trio.current_time()
        if is_killed:
            self.kills[-1] = (self.kills[-1][0], self.disturbed_at)

    async def _purge(self) -> None:
        """Purge answered requests: those of one client by msg_ids, or all."""
        client = self.rng.choice(self.clients)
        is_all = self.rng.random() < 0.3
        msg_ids = client.settled()
        if is_all:
            self.purged_all_at = trio.current_time()
            for other in self.clients:
                for msg_id in other.settled():
                    other.asked[msg_id].purged = True
        for msg_id in msg_ids:
            client.asked[msg_id].purged = True
        with trio.move_on_after(5.0):
            content = (
                await self.operator.client.query("purge_request", {"msg_ids": "all" if is_all else msg_ids})
            ).content
            self.figures["purges"] += 1
            # A killed hub may have lost the result of a task, which then runs once more.
            if content["status"] != "ok" and not (self.kills and "pending" in content["evalue"]):
                self.wrong(f"purge: {content}")

    # After the last failure of a cycle

    async def _settle(self) -> None:
        """Wait until all clients and engines are back and all requests are answered, and check that nothing is left."""
        self.fleet.wake()
        async with trio.open_nursery() as nursery:
            for client in self.clients:
                nursery.start_soon(client.finish)
        await self._all_engines_work()
        await self._nothing_is_pending()
        for client in self.clients:
            await client.check_records()
        twice = sum(client.check() for client in self.clients)
        if twice > len(self.kills):
            self.wrong(f"{twice} requests were answered twice, after {len(self.kills)} kills")
        self.figures["answered twice"] += twice
        for client in self.clients:
            client.forget()
        self.fleet.forget()
        self.kills.clear()
        content = (await self.operator.query("purge_request", {"msg_ids": "all"})).content
        assert content["status"] == "ok", content
        left = (await self.operator.query("db_request", {"query": {}, "keys": ["msg_id"]})).content["records"]
        if left:
            self.wrong(f"{len(left)} records are left after everything was purged: {left[:3]}")
        await self._compare()

    async def _all_engines_work(self) -> None:
        """Wait until each engine is registered and has answered.

        An engine that was cut off may still be listed. When the hub notices with this request that it cannot reach the
        engine, the hub answers with an error and loses the engine, which then comes back.
        """
        client = self.operator.client
        while True:
            engines = await self._all_are_registered()
            calls = [client.call(engine, b"settled") for engine in engines]
            contents = [(await client.reply(call)).content for call in calls]
            failed = [(engine, it) for engine, it in zip(engines, contents, strict=True) if it["status"] != "ok"]
            for engine, content in failed:
                failed_at = self.fleet.touched.get(engine.uuid, -math.inf)
                is_recent = trio.current_time() - failed_at < SETTLED_WITHIN
                why = content["evalue"]
                if is_recent and ("no message has reached it" in why or NAMES_AN_ENGINE.fullmatch(why)):
                    self.figures["engines that were out of reach after the last failure"] += 1
                else:
                    self.wrong(f"an engine that is registered does not work: {content}")
                    return
            if not failed:
                return

    async def _all_are_registered(self) -> list[ScriptedEngine]:
        """Wait until all engines are registered. Return them. Engines that a killed hub has not noted are replaced."""
        while True:
            content = (await self.operator.query("connection_request")).content
            known = self.listed = content["engines"]
            for place in self.fleet.places:
                # The hub may have given the id to another engine, if the killed hub has not noted it.
                if (engine := place.engine) is not None and known.get(str(engine.id)) != engine.uuid:
                    self._replace_unknown(place)
            engines = self.fleet.engines
            if len(engines) == len(known) == ENGINES and all(known.get(str(one.id)) == one.uuid for one in engines):
                return engines
            await trio.sleep(0.1)

    def _replace_unknown(self, place: Place) -> None:
        """Replace an engine that is not registered, if the documentation says that it has to be started again."""
        assert place.engine is not None
        within = JUST_REGISTERED if place.engine.uuid in self.saved else NOT_SAVED
        # An engine may read the answer of a hub that is already dead, and connect its heart to the next hub.
        if any(place.began_at < ready and place.registered_at > killed - within for killed, ready in self.kills):
            self.figures["engines that a killed hub has not noted"] += 1
            place.replace()

    async def _nothing_is_pending(self) -> None:
        client = self.operator
        while True:
            queues = (await client.query("queue_request")).content
            del queues["status"]
            unassigned = queues.pop("unassigned")
            query = {"query": {"completed": None}, "keys": ["msg_id"]}
            unfinished = (await client.query("db_request", query)).content["records"]
            if not unassigned and not unfinished and all(q["queue"] == q["tasks"] == 0 for q in queues.values()):
                return
            await trio.sleep(0.1)

    async def _compare(self) -> None:
        """Compare the hub's memory and descriptors with those after the first cycles.

        A hub that comes to rest gives memory back and notices closed connections, one after the other.
        """
        rested_at = trio.current_time() + COMES_TO_REST
        memory, descriptors = self._memory(), self._descriptors()
        while trio.current_time() < rested_at and (memory > self._most_memory or descriptors > self._most_descriptors):
            await trio.sleep(0.2)
            memory, descriptors = min(memory, self._memory()), self._descriptors()
        if memory > self._most_memory:
            self.wrong(f"the hub's memory has grown to {memory} bytes: {self.memory}")
        if descriptors > self._most_descriptors:
            self.wrong(f"the hub has ever more descriptors: {self.descriptors}, {descriptors}")
        self.memory.append(memory)
        self.descriptors.append(descriptors)

    @property
    def _most_memory(self) -> float:
        return max(self.memory[:WARM_UP]) + MAX_GROWTH if len(self.memory) >= WARM_UP else math.inf

    @property
    def _most_descriptors(self) -> float:
        return max(self.descriptors[:WARM_UP]) + MAX_DESCRIPTORS if len(self.memory) >= WARM_UP else math.inf

    def _descriptors(self) -> int:
        return len(os.listdir(f"/proc/{self.hub.pid}/fd"))

    def _memory(self) -> int:
        lines = Path(f"/proc/{self.hub.pid}/smaps_rollup").read_text().splitlines()
        return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("Pss:"))

    def _check_log(self) -> None:
        """Check that the hub has logged no error."""
        new = self.hub.log[self.read_log :]
        self.read_log += len(new)
        for bad in ("Traceback", "internal_error"):
            if (place := new.find(bad)) >= 0:
                self._tell()
                raise AssertionError(new[max(0, place - 2000) : place + 4000])

    def _tell(self) -> None:
        """Print the state of clients, engines and the hub, for the person who looks for the fault."""
        for client in self.clients:
            for msg_id in client.open():
                print(f"open: {msg_id}, {client.asked[msg_id]}, carried out by {self.fleet.by.get(msg_id)}"[:500])
        for at, what, engine_id in self.fleet.story[-30:]:
            print(f"{trio.current_time() - at:.2f} s ago: engine {engine_id}: {what}")
        for place in self.fleet.places:
            if (engine := place.engine) is not None:
                print(f"{engine}, asleep {place.asleep}, holds {engine.held}, dropped {engine.unreadable}")
        for record in self.hub.records(self.hub.unfinished(), "submitted", "engine_uuid").values():
            print(f"unfinished: {record}")
        print(f"the hub lists {self.listed}")
        print(self.hub.log[-5000:])

    @property
    def summary(self) -> list[str]:
        """The numbers of events and requests, for the end of the session."""
        asked: Counter[str] = Counter()
        for client in self.clients:
            asked += client.figures
        mib = [round(size / 2**20, 1) for size in self.memory]
        return [
            f"the hub: {_shown(self.figures)}",
            f"engines: {self.fleet.carried_out} requests carried out, {_shown(self.fleet.events)}",
            f"clients: {_shown(asked)}",
            f"memory of the hub after each cycle: {mib} MiB; descriptors: {self.descriptors}",
        ]


def _shown(figures: Counter[str]) -> str:
    return ", ".join(f"{name} {count}" for name, count in sorted(figures.items()))
