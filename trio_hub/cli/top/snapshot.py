"""The snapshots that `top` shows: the answers of a hub, and the rates computed from two consecutive answers.

The queries cost a hub little, however busy it is and however large its database: three queries for counters, one for
the requests at engines (only if they are few), and one for the requests finished in a period so short that a few
hundred are expected.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from ...errors import RemoteError
from ..asking.pools import reasons, state_of
from ..asking.records import ROW_KEYS, Load, find_latest, load_of, name_rows, row_of, window

if TYPE_CHECKING:
    from ...client import Client

__all__ = ["EngineRow", "PoolRow", "Sampler", "Snapshot"]

FEW = 500
"""The maximum number of requests that a query is expected to return."""
KEPT = 200
"""The maximum number of finished requests to keep, and of failed requests."""
SHOWN = 50
"""The number of finished requests, the latest, whose functions' names the hub is asked for."""
FIRST_LOOK = 50
"""The number of finished requests in the first snapshot."""


LONG_AGO = datetime(2000, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class EngineRow:
    """An engine in a snapshot.

    - ``running``, ``label``, ``name``: the msg_id, the label and the name of the function of the request that was
      submitted first among the engine's;
    - ``since``: when that request was first seen at the engine;
    - ``earlier``: whether the request may have started before that;
    - ``drained``: whether the engine is drained.
    """

    id: int
    uuid: str
    tasks: int
    direct: int
    completed: int
    rate: float | None = None
    running: str | None = None
    label: Any = None
    name: str | None = None
    since: datetime | None = None
    earlier: bool = False
    drained: bool = False

    @property
    def state(self) -> str:
        return "busy" if self.tasks + self.direct else "idle"


@dataclass(frozen=True)
class PoolRow:
    """A pool in a snapshot: numbers of engines, what the pool does in a word, and why it does not grow or shrink."""

    name: str
    state: str
    min: int
    max: int
    wanted: int
    asked: int
    coming: int
    there: int
    idle: int
    why: str


@dataclass(frozen=True)
class Snapshot:
    """The state of a hub at one moment. None means unknown. Rates are per second.

    - ``seconds``: the time since the previous snapshot;
    - ``queued``, ``waiting``, ``paused``: the unassigned tasks by state; None for an ipcontroller;
    - ``priorities``: the number of queued tasks by priority, the highest first;
    - ``cancelling``: the number of requests that are interrupted, and have not ended yet;
    - ``pools``: the pools that are sized by demand;
    - ``latest``, ``failures``: finished requests as `row_of` returns them, the latest first;
    - ``sampled``: whether the hub was asked for only some of the finished requests, so that ``failed`` is an estimate;
    - ``trouble``: why there are no records.
    """

    address: str
    at: datetime
    seconds: float | None = None
    engines: tuple[EngineRow, ...] = ()
    unassigned: int | None = None
    queued: int | None = None
    waiting: int | None = None
    paused: int | None = None
    priorities: Mapping[int, int] = field(default_factory=dict)
    cancelling: int = 0
    pools: tuple[PoolRow, ...] = ()
    finished: float | None = None
    submitted: float | None = None
    failed: float | None = None
    sampled: bool = False
    latest: tuple[Mapping[str, Any], ...] = ()
    failures: tuple[Mapping[str, Any], ...] = ()
    trouble: str | None = None

    @property
    def tasks(self) -> int:
        return sum(engine.tasks for engine in self.engines)

    @property
    def direct(self) -> int:
        return sum(engine.direct for engine in self.engines)

    @property
    def completed(self) -> int:
        return sum(engine.completed for engine in self.engines)

    @property
    def busy(self) -> int:
        return sum(1 for engine in self.engines if engine.state == "busy")


@dataclass
class Sampler:
    """Takes snapshots, and remembers what the next snapshot needs."""

    client: Client
    last: Snapshot | None = None
    _received: datetime | None = None
    """When the hub received the last result that it has reported, by its clock."""
    _knows_work: bool = True
    """Whether the hub has not refused the query for the numbers of controlled work."""
    _knows_pools: bool = True
    """Whether the hub has not refused the query for pools."""
    _latest: deque[dict[str, Any]] = field(default_factory=lambda: deque(maxlen=KEPT))
    _failures: deque[dict[str, Any]] = field(default_factory=lambda: deque(maxlen=KEPT))

    async def look(self) -> Snapshot:
        """Take a new snapshot. Raises `HubLostError`."""
        now = datetime.now(UTC)
        load = await load_of(self.client)
        work = await self._work()
        pools = await self._pools()
        uuids = self.client.engines
        seconds = None if self.last is None else max(1e-3, (now - self.last.at).total_seconds())
        before = {} if self.last is None else {engine.uuid: engine for engine in self.last.engines}
        finished = None
        if seconds is not None:
            done = {uuids.get(id, ""): engine["completed"] for id, engine in load.engines.items()}
            new = [number - before[uuid].completed for uuid, number in done.items() if uuid in before]
            finished = sum(max(0, number) for number in new) / seconds
        failed, sampled, trouble = None, False, None
        running: dict[str, list[dict[str, Any]]] = {}
        try:
            running = await self._running(load)
            failed, sampled = await self._finished(finished, seconds, now)
        except RemoteError as error:  # a hub that keeps no records, or cannot read them now
            trouble = str(error)
        await name_rows(self.client, [requests[0] for requests in running.values()])
        engines = [
            replace(
                self._engine(id, uuids.get(id, ""), load.engines[id], running, before, seconds, now),
                drained=str(id) in work.get("drained", {}),
            )
            for id in load.engines
        ]
        self.last = Snapshot(
            address=self.client.address,
            at=now,
            seconds=seconds,
            engines=tuple(engines),
            unassigned=load.unassigned,
            queued=work.get("queued"),
            waiting=work.get("waiting"),
            paused=work.get("paused"),
            priorities={int(priority): number for priority, number in work.get("priorities", {}).items()},
            cancelling=work.get("cancelling", 0),
            pools=pools,
            finished=finished,
            submitted=self._submitted(load, finished, seconds),
            failed=failed,
            sampled=sampled,
            latest=tuple(reversed(self._latest)),
            failures=tuple(reversed(self._failures)),
            trouble=trouble,
        )
        return self.last

    async def _work(self) -> dict[str, Any]:
        """Return the numbers of controlled work; an empty dict if the hub does not know them."""
        if self.client.kind != "trio-hub" or not self._knows_work:
            return {}
        try:
            return await self.client.query("work_status_request", {})
        except RemoteError:  # a hub of an older version
            self._knows_work = False
            return {}

    async def _pools(self) -> tuple[PoolRow, ...]:
        """Return the pools that are sized by demand; an empty tuple if the hub does not know pools."""
        if self.client.kind != "trio-hub" or not self._knows_pools:
            return ()
        try:
            found = await self.client.pools()
        except RemoteError:  # a hub of an older version
            self._knows_pools = False
            return ()
        names = ("name", "min", "max", "wanted", "asked", "coming", "there", "idle")
        return tuple(
            PoolRow(**{name: pool[name] for name in names}, state=state_of(pool), why=reasons(pool))
            for pool in found
            if not pool["fixed"]
        )

    def _submitted(self, load: Load, finished: float | None, seconds: float | None) -> float | None:
        """Return the rate of submitted requests: the finished ones plus the increase of the unfinished ones."""
        last = self.last
        if last is None or seconds is None or finished is None or load.unassigned is None or last.unassigned is None:
            return None
        unfinished = load.unassigned + load.tasks + load.direct
        return max(0.0, finished + (unfinished - last.unassigned - last.tasks - last.direct) / seconds)

    async def _running(self, load: Load) -> dict[str, list[dict[str, Any]]]:
        """Return the requests of each engine, by uuid, the oldest first; an empty dict if there are too many.

        A request has the name of its function if the last snapshot has it.
        """
        if not 0 < load.tasks + load.direct <= FEW:
            return {}
        condition = {"completed": {"$eq": None}, "engine_uuid": {"$ne": None}}
        names = {} if self.last is None else {engine.running: engine.name for engine in self.last.engines}
        running: dict[str, list[dict[str, Any]]] = {}
        for record in await self.client.db_query(condition, ["engine_uuid", "label", "submitted"]):
            record["name"] = names.get(record["msg_id"])
            running.setdefault(record["engine_uuid"], []).append(record)
        return running

    async def _finished(self, rate: float | None, seconds: float | None, now: datetime) -> tuple[float | None, bool]:
        """Ask for the latest finished requests. Return the failures per second, and whether that is an estimate."""
        covered = seconds
        sampled = False
        if self._received is None:
            records = await find_latest(self.client, {}, ROW_KEYS, enough=FIRST_LOOK, by="received")
        else:
            since = self._received
            if rate is not None and seconds is not None and rate * seconds > FEW:
                covered = FEW / rate
                since = max(since, now - timedelta(seconds=covered))
                sampled = True
            records = await self.client.db_query({"received": window(since, None)}, ROW_KEYS)
        records.sort(key=lambda record: record["received"])
        rows = [row_of(record, self.client.engines) for record in records]
        known = {row["msg_id"] for row in self._latest}
        new = [row for row in rows if row["msg_id"] not in known]
        failures = [row for row in new if row["state"] == "failed"]
        self._latest.extend(new)
        self._failures.extend(failures)
        self._received = records[-1]["received"] if records else self._received or LONG_AGO
        await name_rows(self.client, new[-SHOWN:])
        return None if covered is None else len(failures) / covered, sampled

    def _engine(
        self,
        id: int,
        uuid: str,
        load: Mapping[str, int],
        running: Mapping[str, list[dict[str, Any]]],
        before: Mapping[str, EngineRow],
        seconds: float | None,
        now: datetime,
    ) -> EngineRow:
        old = before.get(uuid)
        rate = None if old is None or seconds is None else max(0, load["completed"] - old.completed) / seconds
        row = EngineRow(id, uuid, load["tasks"], load["queue"], load["completed"], rate)
        if not running.get(uuid):
            return row
        first = running[uuid][0]
        since, earlier = now, self.last is None
        if old is not None and old.running == first["msg_id"]:
            since, earlier = old.since or now, old.earlier
        return replace(
            row, running=first["msg_id"], label=first["label"], name=first["name"], since=since, earlier=earlier
        )
