"""No table of the hub grows with engines and clients that come and go, or with answered requests.

Whatever can be reached from the hub is measured, and so will be tables that are yet to come.
"""

from __future__ import annotations

from collections import Counter, deque
from datetime import timedelta
from random import Random
from typing import Any

import pytest

from trio_hub.hub.clients import Clients
from trio_hub.hub.measuring import MeasuredRuns
from trio_hub.records import MemoryStore, NullStore, Store
from trio_hub.schedulers.dependencies import Outcomes
from trio_hub.schedulers.schemes import SCHEMES
from trio_hub.wire.messages import Message
from trio_hub.wire.signing import ReplayWindow

from .durable import DurableStore, crashed, speak
from .world import Peer, World

TABLES = (dict, list, set, frozenset, deque)
NOT_THE_HUBS = ("host", "_host", "parts")
"""Attributes that lead out of the hub, or to parts that have names of their own in it."""
CLEARED_NOW_AND_THEN = {"hub.tasks.scheduler.with_room._heap": 64 + 2 * 10}
"""Tables that may hold entries of the past, and how many entries at most with the engines of these tests."""


def sizes(hub: object) -> Counter[str]:
    """Return the number of entries in each table of the hub, by the path of attributes that leads to the table.

    Tables at the end of the same way, such as those of all engines, count together.
    """
    found: Counter[str] = Counter()
    seen: set[int] = set()
    todo: deque[tuple[str, Any]] = deque([("hub", hub)])  # the shortest way to a table is found first
    while todo:
        way, value = todo.popleft()
        if id(value) in seen:
            continue
        seen.add(id(value))
        if isinstance(value, TABLES):
            found[way] += len(value)
            todo += [(f"{way}[]", item) for item in (value.values() if isinstance(value, dict) else value)]
        elif isinstance(value, tuple):
            todo += [(way, item) for item in value]
        elif type(value).__module__.startswith("trio_hub."):
            slots = {name for each in type(value).__mro__ for name in getattr(each, "__slots__", ())}
            names = (slots | set(getattr(value, "__dict__", ()))) - set(NOT_THE_HUBS)
            todo += [(f"{way}.{name}", getattr(value, name)) for name in sorted(names) if hasattr(value, name)]
    return found


def grown(before: Counter[str], after: Counter[str]) -> dict[str, tuple[int, int]]:
    """Return the tables that have grown, with their sizes before and after."""
    found = {}
    for way, size in after.items():
        if size > CLEARED_NOW_AND_THEN.get(way, before[way]):
            found[way] = (before[way], size)
    return found


def small_world(store: Store | None = None, **settings: Any) -> World:
    """Return a world whose hub has small limits for everything that it remembers."""
    world = World(store=store or NullStore(), **settings)
    world.hub.tasks.scheduler.dependencies.outcomes = Outcomes(size=1)
    world.hub.session.replays = ReplayWindow(size=1)
    world.hub.session.lasting = ReplayWindow(size=1)
    world.hub.owed.clients = Clients(sessions=2)
    world.hub.engines.changes.most = 1
    world.hub.engines.gone._limit = 2
    world.hub.parts.late_results._limit = 2
    world.hub.tasks.measured = MeasuredRuns(world.hub.session, world.hub.labels, sessions=1)
    world.hub.pooling.measure = True
    return world


def look_for_pools(world: World) -> None:
    world.clock.time += timedelta(seconds=10)
    world.hub.pooling.demand()
    world.hub.pooling.engines()


def broadcast(world: World, client: Peer, uuids: list[str], *, gather: bool) -> None:
    metadata = {"targets": [(uuid, 0) for uuid in uuids], "is_broadcast": True, "is_coalescing": gather}
    frames = client.session.write("apply_request", {}, metadata=metadata)
    world.hub.dispatch_monitor_traffic("broadcast_in", [client.ident, *frames])


def request_all_sorts(world: World, client: Peer, uuids: list[str]) -> None:
    """Send every kind of request of this client to these engines."""
    first = world.submit(client, targets=uuids)
    last = world.submit(client, after=[first], timeout=5.0)
    world.submit(client, follow=first, retries=1)
    world.submit(client, after={"dependencies": [first, last], "all": False, "failure": True})
    world.submit(client, after=[f"never of {client.name}"])
    world.submit(client, targets=["nobody"])
    for uuid in [*uuids, "nobody"]:
        world.call(uuid, client)
        world.call(uuid, client, "clear_request", "control_in")
        world.submit(client, targets=[uuid], retries=1)
    for gather in (True, False):
        broadcast(world, client, [*uuids, "nobody"], gather=gather)
    world.answer_questions()


def answer_some(world: World, rng: Random, taken: list[tuple[str, Message]], chance: float) -> None:
    """Have engines answer some of their requests: rightly or with forged replies, once or twice."""
    for channel, request in taken:
        if not channel.endswith("_out") or channel == "iopub_out" or rng.random() > chance:
            continue
        uuid = request.idents[0].decode()
        world.publish(uuid, bytes(request.frames[2]), "stream", {"name": "stdout", "text": "x"})
        world.answer("nobody", request, channel=channel)
        content = {"status": rng.choice(["ok", "ok", "error", "aborted"]), "ename": "E", "evalue": "v"}
        for _ in range(rng.randint(1, 2)):
            world.answer(uuid, request, content, channel=channel, dependencies_met=rng.random() < 0.9)


def answer_until_nothing_comes(world: World, rng: Random) -> None:
    while taken := [item for item in world.take() if item[0].endswith("_out") and item[0] != "iopub_out"]:
        answer_some(world, rng, taken, 1.0)
        world.answer_questions()


def come_and_go(world: World, rng: Random, round_: int) -> None:
    """Have new engines and clients come, work and leave for good. One engine stays."""
    hub = world.hub
    uuids = [f"engine{number} of round {round_}" for number in range(4)]
    clients = [Peer(f"client{number} of round {round_}") for number in range(2)]
    world.host.unreachable = {uuids[3].encode()}
    engines = [world.engine(uuid) for uuid in uuids]
    for uuid in ("stalled", "hasty"):
        world.register(f"{uuid} in round {round_}")
    stalled, hasty = world.host.started[-2:]
    for client in clients:
        request_all_sorts(world, client, uuids)
    kept = world.take()
    look_for_pools(world)
    answer_some(world, rng, kept, 0.5)
    world.beat(f"nobody of round {round_}")
    hub.weigh_hearts()
    hub.purge_stalled_registration(stalled)
    hub.dispatch_query([hasty.ident, *Peer(hasty.uuid).session.write("unregistration_request", {"id": hasty.id})])
    hub.hearts.handle_heart_failure(uuids[0].encode())
    hub.dispatch_query([uuids[1].encode(), *Peer("x").session.write("unregistration_request", {"id": engines[1].id})])
    world.publish(uuids[2], b"{}", "shutdown_reply", {"status": "ok"})
    hub.lose_engine(engines[3], "unreachable")
    answer_some(world, rng, kept, 0.5)  # late, within the grace
    for engine in engines:
        hub.handle_stranded(engine)
        world.beat(engine.uuid)
    answer_some(world, rng, kept, 1.0)  # these answers are late, except those of the engine that stays
    answer_until_nothing_comes(world, rng)
    for engine in [engine for engine in hub.engines.alive.values() if engine.uuid != "stays"]:  # they have come back
        hub.lose_engine(engine, "request")
        hub.handle_stranded(engine)
    for engine, channel in world.host.to_reach:  # as if the time were over within which an engine must be reached
        hub.routes.close_route(engine, channel)
    world.host.to_reach.clear()
    for _, _, time_is_up in world.host.timers:
        time_is_up()
    world.host.timers.clear()
    world.host.started.clear()
    world.take()
    look_for_pools(world)


@pytest.mark.parametrize(("scheme", "hwm"), [*((scheme, 1) for scheme in sorted(SCHEMES)), ("leastload", 0)])
def test_no_table_grows_with_engines_and_clients_that_come_and_go(scheme: str, hwm: int) -> None:
    world = small_world(scheme=scheme, hwm=hwm)
    rng = Random(1)
    world.engine("stays")
    look_for_pools(world)
    before = sizes(world.hub)
    come_and_go(world, rng, 0)
    after_one = sizes(world.hub)
    for round_ in range(1, 11):
        come_and_go(world, rng, round_)
    assert grown(after_one, sizes(world.hub)) == {}
    # nor does the first round leave anything, but for a count of each kind of thing ignored, and what must be short
    assert grown(before, after_one).keys() <= {
        "hub.owed.clients._places",
        "hub.owed.clients._places[]",
        "hub.notices.ignored",
        "hub.labels._names",
        "hub.tasks.measured.times._labels",
        "hub.tasks.measured._last",
        "hub.pooling._assignments",
        "hub.tasks.scheduler.dependencies.outcomes._kinds",
        # the latest gone engines, and the requests that they may still answer
        "hub.broadcasts._gone._by_id",
        "hub.broadcasts._gone._by_ident",
        "hub.broadcasts._late_results._idents",
    }
    assert not world.hub.tasks.scheduler.tasks
    assert world.hub.tasks_submitted == world.hub.tasks_completed + world.hub.tasks_failed + world.hub.answers.count(
        "aborted"
    )


def test_no_table_grows_with_requests_that_are_answered() -> None:
    world = small_world(hwm=2)
    rng = Random(1)
    for uuid in "ab":
        world.engine(uuid)
    measured = []
    for _ in range(10):
        for _ in range(5):
            request_all_sorts(world, world.client, ["a", "b"])
        answer_until_nothing_comes(world, rng)
        assert not world.hub.tasks.scheduler.tasks
        measured.append(sizes(world.hub))
    assert grown(measured[0], measured[-1]) == {}


def stay_away_and_come_back(world: World, rng: Random, round_: int) -> None:
    """Have clients leave before their results come, and get the results on a new connection."""
    clients = [Peer(f"client{number} of round {round_}") for number in range(2)]
    for client in clients:
        world.submit(client)
        world.call("stays", client)
    world.host.gone = {client.ident for client in clients}
    answer_until_nothing_comes(world, rng)
    assert world.hub.owed.clients.owed == 4
    for client in clients:
        speak(world, client)  # the client leaves again
    world.host.gone.clear()
    for client in clients:
        speak(world, client)
    assert world.hub.owed.clients.owed == 0
    world.take()


def test_no_table_grows_with_clients_that_are_away_and_come_back() -> None:
    world = small_world(MemoryStore(max_records=10), hwm=0)
    rng = Random(1)
    world.engine("stays")
    measured = []
    for round_ in range(12):
        stay_away_and_come_back(world, rng, round_)
        measured.append(sizes(world.hub))
    assert {way for way in grown(measured[-2], measured[-1]) if not way.startswith("hub.store.")} == set()


@pytest.mark.parametrize("returns", [False, True])
def test_a_hub_that_took_over_keeps_nothing_of_it(returns: bool) -> None:
    before = World(store=DurableStore())
    rng = Random(1)
    for uuid in "ab":
        before.engine(uuid)
    request_all_sorts(before, before.client, ["a", "b"])
    world = crashed(before)
    for uuid in "ab" if returns else "":
        world.beat(uuid)
        world.answer_questions()
    answer_until_nothing_comes(world, rng)
    world.hub.purge_unheard()
    for engine in [*world.hub.engines.alive.values(), *world.hub.engines.lost]:
        world.hub.lose_engine(engine, "heart")
        world.hub.handle_stranded(engine)
    for _, _, time_is_up in world.host.timers:
        time_is_up()
    world.answer_questions()
    world.engine("new")
    world.answer_questions()
    answer_until_nothing_comes(world, rng)
    speak(world, world.client)
    left = {way for way, size in sizes(world.hub).items() if size and not way.startswith("hub.store.")}
    left = {way.removeprefix("hub.tasks.") for way in left}
    assert not {way for way in left if "pending" in way or "task" in way or "probe" in way or "parked" in way}
    assert not world.hub.gathering.gathered
    assert not world.hub.owed.clients.owed


def test_the_measure_sees_every_table() -> None:
    world = small_world()
    engine = world.engine("a")
    before = sizes(world.hub)
    world.call("a")
    world.submit()
    world.submit()
    broadcast(world, world.client, ["a"], gather=True)
    engine.parked.append(("mux_out", [], "msg_id"))
    ways = set(grown(before, sizes(world.hub)))
    assert {
        "hub.direct.unanswered.pending",
        "hub.broadcasts.unanswered.pending",
        "hub.gathering.gathered",
        "hub.tasks.scheduler.tasks",
    } <= ways
    assert any(way.startswith("hub.tasks.scheduler.queue.") for way in ways)
    for table in (".mux.pending", ".parked", ".running"):  # an engine's, by whichever way
        assert any(way.endswith(table) for way in ways), table
