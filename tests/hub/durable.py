"""A store without a disk that outlives its hub. The test decides what is committed, and when."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Generator, Sequence
from datetime import timedelta
from typing import Any

from trio_hub.errors import StoreError
from trio_hub.hub.custody import AWAY
from trio_hub.records import MemoryStore
from trio_hub.records.query import parse_query
from trio_hub.records.record import TaskRecord
from trio_hub.wire.frames import Frames
from trio_hub.wire.messages import Message

from .world import Peer, World, run_now

__all__ = [
    "DurableStore",
    "Notes",
    "answer_probes",
    "carry_out",
    "crashed",
    "everything",
    "frames_sent",
    "probes",
    "running_on",
    "speak",
]


class DurableStore(MemoryStore):
    """A `MemoryStore` of which `crashed` keeps what was committed.

    - ``auto``: whether everything is committed at once; else `commit` does it;
    - ``failing``: whether reading fails;
    - ``asked``: the msg_ids of each call of `fetch` and `get`.
    """

    durable = True

    def __init__(self, committed: Sequence[TaskRecord] = (), *, auto: bool = True) -> None:
        super().__init__()
        self.auto = True
        self.failing = False
        self.asked: list[list[str]] = []
        self._disk = MemoryStore()
        self._writes: list[Callable[[MemoryStore], object]] = []
        self._calls: list[Callable[[], None]] = []
        for record in committed:
            self.add(record)
        self.auto = auto

    def add(self, record: TaskRecord) -> None:
        super().add(record)
        kept = record.copy()
        self._write(lambda disk: disk.add(kept))

    def update(self, msg_id: str, changes: dict[str, Any]) -> None:
        super().update(msg_id, changes)
        kept = dict(changes)
        self._write(lambda disk: disk.update(msg_id, kept))

    def append(self, msg_id: str, key: str, text: str) -> None:
        super().append(msg_id, key, text)
        self._write(lambda disk: disk.append(msg_id, key, text))

    def discard(self, msg_id: str) -> None:
        super().discard(msg_id)
        self._write(lambda disk: disk.discard(msg_id))

    def _write(self, write: Callable[[MemoryStore], object]) -> None:
        if self.auto:
            write(self._disk)
        else:
            self._writes.append(write)

    def after_commit(self, call: Callable[[], None]) -> None:
        if self._writes:
            self._calls.append(call)
        else:
            call()

    def commit(self) -> None:
        """Put everything on disk that was written until now."""
        writes, self._writes = self._writes, []
        calls, self._calls = self._calls, []
        for write in writes:
            write(self._disk)
        for call in calls:
            call()

    @property
    def committed(self) -> dict[str, TaskRecord]:
        """Return the records on disk, by msg_id, in the order of arrival."""
        return {kept.record.msg_id: kept.current() for kept in self._disk._records.values()}

    async def fetch(self, msg_ids: Sequence[str]) -> dict[str, TaskRecord]:
        self.asked.append(list(msg_ids))
        if self.failing:
            raise StoreError("the disk is gone")
        return await super().fetch(msg_ids)

    async def drop(self, query: Any) -> int:
        dropped = await super().drop(query)
        for msg_id in self.committed.keys() - self._records.keys():
            self._write(lambda disk, msg_id=msg_id: disk.discard(msg_id))  # type: ignore[misc]
        return dropped

    async def unfinished(self) -> list[TaskRecord]:
        open_records = [
            kept.current().copy()
            for kept in self._records.values()
            if kept.record.completed is None and not kept.record.note
        ]
        for record in open_records:
            record.content = record.buffers = None
        return open_records

    async def undelivered(self, window: timedelta) -> list[tuple[str, str]]:
        found = [kept.record for kept in self._records.values() if kept.record.client_uuid is not None]
        times = [record.received for record in found if record.received is not None]
        since = max(times) - window if times else None
        return [
            (record.msg_id, record.client_uuid)
            for record in sorted(found, key=lambda record: (record.received is not None, record.received))
            if record.client_uuid is not None
            and (record.owed or (since is not None and record.received is not None and record.received >= since))
        ]


class Notes:
    """Notes of the results that were sent (`trio_hub.hub.ports.SentResults`), which outlive the hub."""

    def __init__(self, earlier: Notes | None = None) -> None:
        self.earlier: set[str] = set() if earlier is None else earlier.earlier | earlier.now
        self.now: set[str] = set()

    def note(self, msg_id: str) -> None:
        self.now.add(msg_id)

    def was_delivered(self, msg_id: str) -> bool:
        return msg_id in self.earlier


def crashed(
    world: World,
    *,
    engines: dict[int, str] | None = None,
    remembered: dict[int, str] | None = None,
    carry_on: bool = True,
    **settings: Any,
) -> World:
    """Return the world of the next hub after this hub was killed, with the committed records and the notes.

    Args:
        engines: those in the list of engines; None: all that the last hub had.
        remembered: the engines that the next hub takes up only when their hearts are heard, as uuids by id.
        carry_on: whether it takes over, or writes off, what the last has left.
    """
    old = world.hub
    assert isinstance(old.store, DurableStore)
    store = DurableStore(list(old.store.committed.values()), auto=old.store.auto)
    notes = world.settings.get("sent_results")
    sent_results = Notes(notes) if isinstance(notes, Notes) else None
    settings = {
        "strict": old.intake.strict,
        "sent_results": sent_results,
        "hwm": old.tasks.scheduler.hwm,
    } | settings
    settings.setdefault("session_id", f"{old.session.session_id}'")
    successor = World(store=store, packer=world.packer, **settings)
    successor.client = world.client
    successor.clock.time = max(world.clock.time, world.client.session.now())
    successor.host.gone = {AWAY}
    if engines is None:
        engines = {engine.id: engine.uuid for engine in old.engines.alive.values()}
    successor.hub.restore_engines(engines, old.engines.next_engine_id)
    successor.hub.remember_engines(remembered or {})
    # as the engine state file does
    successor.hub.parts.offers.restore(old.parts.offers.saved())
    successor.hub.parts.policies.restore(old.parts.policies.added)
    successor.hub.work.restore(old.work.saved())
    steps = successor.hub.recovery.take_over() if carry_on else successor.hub.recovery.write_off()
    carry_out(steps)
    return successor


def carry_out(steps: Generator[Awaitable[Any], Any, int]) -> int:
    """Run a generator whose steps do not wait, and return its result."""
    answer = None
    while True:
        try:
            answer = run_now(steps.send(answer))
        except StopIteration as finished:
            return int(finished.value)


def running_on(world: World) -> dict[str, str]:
    """Return the engines of the running tasks, by msg_id."""
    tasks = world.hub.tasks.scheduler.tasks.values()
    return {task.msg_id: task.worker.ident.decode() for task in tasks if task.worker is not None}


def frames_sent(world: World, channel: str) -> list[Frames]:
    """Return the frames that were sent on a channel since the last call."""
    sent: list[Frames] = [[bytes(frame) for frame in frames] for name, frames in world.host.sent if name == channel]
    world.host.sent = [item for item in world.host.sent if item[0] != channel]
    return sent


def probes(world: World, uuid: str) -> list[tuple[str, Message]]:
    """Return the probes that an engine was sent since the last call, and leave its other messages."""
    asked = []
    for item in list(world.host.sent):
        channel, frames = item
        if channel.endswith("_out") and channel != "iopub_out" and bytes(frames[0]) == uuid.encode():
            message = world.read(frames)
            if message.header.msg_type == "kernel_info_request":
                world.host.sent.remove(item)
                asked.append((channel, message))
    return asked


def answer_probes(world: World, uuid: str) -> int:
    """Have an engine answer the hub's probes, and return their number."""
    asked = probes(world, uuid)
    for channel, message in asked:
        world.answer(uuid, message, channel=channel)
    return len(asked)


def speak(world: World, client: Peer, channel: str = "task_in") -> None:
    """Have a client send a message, so that it gets the results that are owed to it."""
    world.hub.owed.heard_of(channel, [client.ident], client.session.session_id)
    world.answer_questions()


def everything(query: dict[str, Any] | None = None) -> Any:
    return parse_query(query or {})
