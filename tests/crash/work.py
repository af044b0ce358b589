"""Engines and clients of the crash tests. They know which results are right."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Sequence
from random import Random
from typing import Any, NamedTuple

import trio
import trio.testing

from trio_hub.testing import Request, ScriptedClient, ScriptedEngine
from trio_hub.wire.frames import to_bytes

from .processes import HubProcess

ASKED_AT_A_TIME = 100
CANCELLED_AT_A_TIME = 5
FAILING = b"fails once "
LARGE = 0.03
"""The part of the tasks that have large buffers, which are not in the database but beside it."""
NEAR = 30
"""The number of events before the kill from which on the hub is about to be killed."""


def result_of(request: bytes) -> bytes:
    return b"result of " + request


HEARD_WITHIN = 2.0
"""Seconds after which a client sends its request again if the hub has not answered."""


async def heard(client: ScriptedClient, channel: str) -> None:
    """Send a request until it is answered. The hub has then received all earlier messages of this connection.

    A word may be lost with the connection to a hub that was killed, if the client has not noticed yet that it is gone.
    """
    said: list[str] = []

    def answered() -> list[str]:
        return [word for word in said if word in client.replies]

    while not answered():
        if channel == "task":
            said.append(client.submit(metadata={"after": {"dependencies": 1}}))
        elif channel == "mux":
            said.append(client.call("nobody"))
        else:
            said.append(client.send(channel, "apply_request", metadata={"targets": []}))
        with trio.move_on_after(HEARD_WITHIN):
            await client.wait_until(lambda: bool(answered()))
    assert client.replies[answered()[0]][0].content["status"] == "error"


async def on_disk(hub: HubProcess, engines: Sequence[ScriptedEngine]) -> None:
    """Wait until the hub has noted these engines for the next one."""
    while len(hub.noted_engines()) < len(engines):
        await trio.testing.wait_all_tasks_blocked(0.01)


def hold(engines: Sequence[ScriptedEngine]) -> None:
    for engine in engines:
        engine.hold()


def release(engines: Sequence[ScriptedEngine]) -> None:
    for engine in engines:
        engine.release()


class Workers:
    """The behaviour of all engines: each request has one right answer, and some fail the first time.

    ``runs`` counts how often each was carried out, and ``failures`` those of them that were to fail.
    """

    def __init__(self) -> None:
        self.runs: Counter[str] = Counter()
        self.failures: set[str] = set()

    def __call__(self, request: Request) -> None:
        buffer = to_bytes(request.buffers[0])
        self.runs[request.msg_id] += 1
        if buffer.startswith(FAILING) and request.msg_id not in self.failures:
            self.failures.add(request.msg_id)
            request.fail()
        else:
            request.answer([result_of(buffer)])

    def run_twice(self, msg_ids: Sequence[str]) -> int:
        """Return the number of these requests that engines have carried out more often than necessary."""
        return sum(self.runs[msg_id] > 1 + (msg_id in self.failures) for msg_id in msg_ids)


PATIENT = 1000.0
"""Seconds of grace of requests that are interrupted: no engine is killed."""


class Asked(NamedTuple):
    """A task, and the name of the error with which it may end besides its result: it is cancelled, or has a limit."""

    buffer: bytes
    metadata: dict[str, Any]
    may_end: str = ""


class Asker:
    """A client that submits tasks, and after a crash does what the documentation tells clients to do.

    - ``asked``: all tasks, by msg_id, in the order in which they were submitted;
    - ``fetched``: the results that did not come by themselves;
    - ``again``: how many were submitted again, since the new hub did not know them;
    - ``orphans``: tasks that had to be given another msg_id, since they failed: they had come to the new hub by
      themselves, and what they depend on had not.
    """

    def __init__(self, client: ScriptedClient, engines: Sequence[ScriptedEngine], rng: Random) -> None:
        self.client = client
        self.engines = engines
        self.rng = rng
        self.asked: dict[str, Asked] = {}
        self.fetched: dict[str, bytes] = {}
        self.orphans: set[str] = set()
        self.again = 0
        self.ended: Counter[str] = Counter()
        """The tasks that were cancelled, or ran for too long, by the names of their errors."""
        self._to_cancel: list[str] = []
        self._before = len(client.replies)

    def submit(self) -> None:
        """Submit one more task: a plain one, or one with retries, targets or dependencies."""
        rng = self.rng
        buffer = b"%d of %s" % (len(self.asked), self.client.session.session_id.encode())
        if rng.random() < LARGE:
            buffer += b"." * rng.randint(60_000, 300_000)
        metadata: dict[str, Any] = {}
        kind = rng.random()
        if kind < 0.1:
            buffer = FAILING + buffer
            metadata["retries"] = 3
        elif kind < 0.2:
            metadata["targets"] = [engine.uuid for engine in rng.sample(list(self.engines), rng.randint(1, 3))]
        elif kind < 0.3 and (recent := [one for one in list(self.asked)[-200:] if not self.asked[one].may_end]):
            metadata["after"] = rng.sample(recent, min(rng.randint(1, 3), len(recent)))
        may_end = ""
        if 0.3 <= kind < 0.35:
            metadata["rules"] = {"max_runtime": 0.1, "grace": PATIENT, "priority": rng.randint(-1, 1)}
            may_end = "TaskTimeout"
        elif kind >= 0.9:
            may_end = "TaskCancelled"
        msg_id = self.client.submit(buffer, metadata=metadata)
        self.asked[msg_id] = Asked(buffer, metadata, may_end)
        if may_end == "TaskCancelled":
            self._to_cancel.append(msg_id)
        if len(self._to_cancel) >= CANCELLED_AT_A_TIME:
            self.cancel()

    def cancel(self) -> None:
        """Cancel some of the last tasks: some wait, some run, and some are finished. Do not wait for the answer."""
        self.client.send("registration", "cancel_request", {"msg_ids": self._to_cancel, "grace": PATIENT})
        self._to_cancel = []

    def has(self, msg_id: str) -> bool:
        return msg_id in self.client.replies or msg_id in self.fetched

    def open(self) -> list[str]:
        """The unanswered tasks, in the order in which they were submitted."""
        return [msg_id for msg_id in self.asked if not self.has(msg_id)]

    async def wait_for_all(self) -> None:
        left = self.open()

        def all_here() -> bool:
            while left and self.has(left[-1]):
                left.pop()
            return not left

        await self.client.wait_until(all_here)

    @property
    def received(self) -> int:
        """Return the number of results since `forget`, if only tasks were submitted since then."""
        return len(self.client.replies) - self._before

    async def recover(self, disk: Collection[str], lost: set[str]) -> None:
        """Carry on after a crash: let the hub know the client, ask about unanswered tasks, and get all results.

        Args:
            disk: tasks that were on disk when the hub was killed.
            lost: collects the tasks that the hub does not know any more, and whose results have come.
        """
        await heard(self.client, "task")  # then all messages of the killed hub have arrived
        lost.update(msg_id for msg_id in self.asked if self.client.replies.get(msg_id) and msg_id not in disk)
        completed, unknown = await self.status(self.open())
        if self.rng.random() < 0.5:  # otherwise the hub sends the results: this client has asked
            await self.fetch([msg_id for msg_id in completed if not self.asked[msg_id].may_end])
        for msg_id in unknown:
            if not self.has(msg_id):
                self._submit_again(msg_id, msg_id)
        await self.wait_for_all()
        gone = lost.union(unknown)
        while orphans := [msg_id for msg_id in self.asked if self._is_orphan(msg_id, gone)]:
            for msg_id in orphans:
                self._submit_again(msg_id, self.client.session.new_msg_id())
                del self.asked[msg_id]
            gone.update(orphans)
            self.orphans.update(orphans)
            await self.wait_for_all()

    def _submit_again(self, msg_id: str, new_msg_id: str) -> None:
        buffer, metadata, may_end = self.asked[msg_id]
        if "after" in metadata:  # the hub may have forgotten requests that have succeeded
            metadata = metadata | {"after": [other for other in metadata["after"] if not self.has(other)]}
        self.asked[new_msg_id] = Asked(buffer, metadata, may_end)
        self.client.submit(buffer, metadata=metadata, msg_id=new_msg_id)
        self.again += 1

    def _is_orphan(self, msg_id: str, gone: set[str]) -> bool:
        """Return whether a task has failed only because a task on which it depends was lost with the killed hub."""
        replies = self.client.replies.get(msg_id)
        return (
            replies is not None
            and replies[0].content.get("ename") in ("InvalidDependency", "ImpossibleDependency")
            and not gone.isdisjoint(self.asked[msg_id].metadata.get("after", ()))
        )

    async def status(self, msg_ids: list[str]) -> tuple[list[str], list[str]]:
        """Return which of these tasks are completed, and which are unknown to the hub. All others are pending."""
        if not msg_ids:
            return [], []
        reply = await self.client.query("result_request", {"msg_ids": msg_ids, "status_only": True})
        if reply.content["status"] == "ok":
            return [msg_id for msg_id in msg_ids if msg_id in set(reply.content["completed"])], []
        assert reply.content["ename"] == "KeyError", reply.content
        if len(msg_ids) == 1:
            return [], msg_ids
        half = len(msg_ids) // 2
        halves = [await self.status(msg_ids[:half]), await self.status(msg_ids[half:])]
        return halves[0][0] + halves[1][0], halves[0][1] + halves[1][1]

    async def fetch(self, msg_ids: list[str]) -> None:
        """Ask the hub for results that it does not send by itself."""
        while wanted := sorted(msg_id for msg_id in msg_ids if not self.has(msg_id))[:ASKED_AT_A_TIME]:
            reply = await self.client.query("result_request", {"msg_ids": wanted})
            assert reply.content["completed"] == wanted
            for msg_id, buffer in zip(wanted, reply.buffers, strict=True):
                assert reply.content[msg_id]["result_content"] == {"status": "ok"}
                self.fetched[msg_id] = to_bytes(buffer)

    def check_results(self) -> list[str]:
        """Check that all results have come and are right. Return the msg_ids of results that came twice."""
        twice = []
        for msg_id, (buffer, _, may_end) in self.asked.items():
            replies = self.client.replies.get(msg_id, [])
            assert len(replies) + (msg_id in self.fetched) >= 1
            twice += [msg_id] * (len(replies) - 1)
            for reply in replies:
                if may_end and reply.content["status"] == "error":
                    assert reply.content["ename"] == may_end, reply.content
                    self.ended[may_end] += 1
                    continue
                assert reply.content == {"status": "ok"}, reply.content
                assert [*map(to_bytes, reply.buffers)] == [result_of(buffer)]
            assert self.fetched.get(msg_id, result_of(buffer)) == result_of(buffer)
        return twice

    def forget(self) -> None:
        """Forget all tasks and results."""
        for msg_id in self.asked:
            self.client.replies.pop(msg_id, None)
        for msg_id in self.orphans:
            self.client.replies.pop(msg_id, None)
        self.asked.clear()
        self.fetched.clear()
        self.orphans.clear()
        self._to_cancel.clear()
        self.again = 0
        self._before = len(self.client.replies)


class Fuse:
    """Kills the hub at the moment when a number of things have happened.

    Args:
        what: ``sent`` or ``received``.
        count: how many.
        near: called a little earlier.
        kill: does it.
        askers: whose requests and results are counted.
    """

    def __init__(
        self,
        what: str,
        count: int,
        near: Callable[[], None],
        kill: Callable[[], None],
        askers: Sequence[Asker],
    ) -> None:
        self.what = what
        self.count = count
        self.burnt_at: float | None = None
        self._near: Callable[[], None] | None = near
        self._kill = kill
        self._askers = askers

    def look(self) -> bool:
        """Return whether the number of events is reached or exceeded."""
        if self.burnt_at is None:
            askers = self._askers
            happened = sum(len(asker.asked) if self.what == "sent" else asker.received for asker in askers)
            if self._near is not None and happened >= self.count - NEAR:
                self._near()
                self._near = None
            if happened >= self.count:
                self._kill()
                self.burnt_at = trio.current_time()
                for asker in askers:
                    asker.client._changed()
        return self.burnt_at is not None
