"""The clients of a soak. They submit and abort requests, leave, come back, and look for missing answers."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, TypeVar

import trio

from tests.crash.work import FAILING, Asker, heard
from tests.runtime.proxy import Network, open_network
from trio_hub.schedulers.broadcast import sub_msg_id
from trio_hub.testing import Received, ScriptedClient, open_client
from trio_hub.testing.peer import new_uuid
from trio_hub.wire.frames import Buffer
from trio_hub.wire.messages import Session

from .engines import ALWAYS_FAILING
from .requests import LONG, MANY, SHORT, Request

if TYPE_CHECKING:
    from .soak import Soak

T = TypeVar("T")

ANSWERED_WITHIN = 2.0
"""Seconds after which a query is repeated, since it may have been lost with the hub or with a connection."""
OVERDUE = 2.0
"""Seconds after which a client asks what has become of a request."""
IN_FLIGHT = 2.0
"""Seconds before and after a cut in which messages may have been lost with a connection."""
AT_MOST_OPEN = 60
"""Unanswered requests beyond which a client asks for no more work."""


class SoakClient:
    """A client with a session that lives on while its connections come and go.

    Args:
        soak: the soak that this client is part of.
        number: tells the clients apart in buffers.
        unsteady: the probability that the client leaves, and that its connections are cut, after each of its steps.
    """

    def __init__(self, soak: Soak, number: int, unsteady: float) -> None:
        self.soak = soak
        self.rng = soak.rng
        self.number = number
        self.unsteady = unsteady
        self.session = new_uuid()
        self.asked: dict[str, Request] = {}
        """All requests since the last `forget`, by msg_id."""
        self.replies: defaultdict[str, list[Received]] = defaultdict(list)
        self.fetched: set[str] = set()
        """The msg_ids of requests whose results the client had to ask for."""
        self.figures: Counter[str] = Counter()
        self.disturbed_at = 0.0
        """When connections of this client, or the hub, were disturbed last."""
        self._overdue: set[str] = set()
        """Requests that were completed, and not answered, when this client asked the last time."""
        self._own: Session | None = None
        self._client: ScriptedClient | None = None
        self._network: Network | None = None
        self._count = 0

    @property
    def client(self) -> ScriptedClient:
        assert self._client is not None
        return self._client

    # Coming and going

    @asynccontextmanager
    async def connected(self) -> AsyncGenerator[None, None]:
        """Be connected for the length of the block. Tries again if the hub dies meanwhile."""
        while True:
            with trio.CancelScope(deadline=trio.current_time() + 3 * ANSWERED_WITHIN) as scope:
                async with (
                    open_network(self.soak.hub.client_info) as network,
                    open_client(network.info, session=self.session) as client,
                ):
                    scope.deadline = float("inf")
                    self._client, self._network = client, network
                    for msg_id, replies in client.replies.items():
                        self.replies[msg_id] += replies
                    client.replies = self.replies
                    if self._own is None:
                        self._own = client.session
                    client.session = self._own  # this session never uses a msg_id twice, on any connection
                    self.disturbed_at = trio.current_time()
                    try:
                        yield
                    finally:
                        self.disturbed_at = trio.current_time()
                        self._note_unreadable()
                        self._client = self._network = None
                    return

    def _note_unreadable(self) -> None:
        for error in self.client.unreadable:
            if error.kind == "replayed":
                # A client that asks about a result after a restart of the hub is sent it, also if it is on its way.
                self.figures["the same message again, which clients drop"] += 1
            else:
                self.soak.wrong(f"{self.number} was sent what it cannot read: {error}")
        self.client.unreadable.clear()

    async def work(self, over: trio.Event) -> None:
        """Come, work for a while, leave with results owed, and come back, until it is over."""
        while not over.is_set():
            async with self.connected():
                while not over.is_set():
                    await self._do_something()
                    if await self._pause(over, 0.1):
                        break
                    if self.rng.random() < self.unsteady:
                        self.figures["times away"] += 1
                        break
            await self._pause(over, 0.5)

    async def finish(self) -> None:
        """Wait until every request is answered."""
        async with self.connected():
            while self.open():
                with trio.move_on_after(OVERDUE / 4):
                    await self.client.wait_until(lambda: not self.open())
                await self._chase()
            self._note_unreadable()

    async def _pause(self, over: trio.Event, seconds: float) -> bool:
        """Do nothing for a while, about so many seconds. Return whether it is over."""
        with trio.move_on_after(self.rng.expovariate(1 / seconds)):
            await over.wait()
        return over.is_set()

    # Work

    def open(self) -> list[str]:
        return [msg_id for msg_id in self.asked if msg_id not in self.replies and msg_id not in self.fetched]

    async def _do_something(self) -> None:
        rng = self.rng
        await self._chase()
        if len(self.open()) < AT_MOST_OPEN:
            for _ in range(rng.choice((1, 1, 5, 20))):
                rng.choices((self._task, self._direct, self._broadcast), (8, 3, 1))[0]()
        happening = rng.random()
        if happening < 0.1:
            self._abort()
        elif happening < 0.25:
            await self._ask()
        elif happening > 1 - self.unsteady and self._network is not None:
            self.figures["cuts"] += 1
            self._network.reset()
            self.disturbed_at = trio.current_time()

    def _buffer(self, prefix: bytes = b"") -> bytes:
        self._count += 1
        return b"%s%d of %d" % (prefix, self._count, self.number) + b"." * self.rng.choice((0, 0, 0, 1000, 100_000))

    def _note(self, msg_id: str, request: Request) -> None:
        self.asked[msg_id] = request
        self.figures[request.status] += 1

    def _task(self) -> None:
        rng = self.rng
        buffer = self._buffer()
        metadata: dict[str, Any] = {}
        depends_on: tuple[str, ...] = ()
        kind = rng.random()
        engines = self.soak.fleet.engines
        if kind < 0.1:
            buffer, metadata = self._buffer(FAILING), {"retries": MANY}
        elif kind < 0.2:
            metadata = {"retries": rng.choice((1, 3, MANY))}
        elif kind < 0.25:
            buffer = self._buffer(ALWAYS_FAILING)
        elif kind < 0.35 and engines:
            metadata = {
                "targets": [engine.uuid for engine in rng.sample(engines, rng.randint(1, min(3, len(engines))))]
            }
        elif kind < 0.5:
            # a request of another queue travels by another connection, and may be overtaken until it is answered
            recent = [
                msg_id
                for msg_id, request in list(self.asked.items())[-50:]
                if not request.purged and (request.queue == "task" or msg_id in self.replies)
            ]
            depends_on = tuple(rng.sample(recent, min(rng.randint(1, 3), len(recent))))
            if depends_on:
                metadata = {rng.choice(("after", "after", "follow")): list(depends_on)}
        elif kind < 0.55:
            metadata = {"timeout": rng.choice((SHORT, LONG))}
        msg_id = self.client.submit(buffer, metadata=metadata)
        self._note(msg_id, Request("task", buffer, trio.current_time(), metadata, depends_on=depends_on))

    def _direct(self) -> None:
        if not (engines := self.soak.fleet.engines):
            return
        buffer = self._buffer(self.rng.choice((b"", b"", b"", ALWAYS_FAILING)))
        uuid = self.rng.choice(engines).uuid
        self._note(self.client.call(uuid, buffer), Request("mux", buffer, trio.current_time(), target=uuid))

    def _broadcast(self) -> None:
        engines = self.soak.fleet.engines
        if engines:
            chosen = self.rng.sample(engines, self.rng.randint(1, len(engines)))
            targets = [(engine.uuid, engine.id) for engine in chosen]
            self._send_broadcast(self._buffer(), targets, self.rng.random() < 0.5, self.client.session.new_msg_id())

    def _send_broadcast(self, buffer: bytes, targets: list[tuple[str, int]], gathered: bool, msg_id: str) -> None:
        metadata = {"targets": targets, "is_broadcast": True, "is_coalescing": gathered}
        self.client.send("broadcast", "apply_request", metadata=metadata, buffers=[buffer], msg_id=msg_id)
        now = trio.current_time()
        uuids = tuple(uuid for uuid, _ in targets)
        if gathered:
            self._note(msg_id, Request("broadcast", buffer, now, metadata, gathered=uuids, parent=msg_id))
            return
        for uuid in uuids:
            self._note(
                sub_msg_id(msg_id, uuid), Request("broadcast", buffer, now, metadata, target=uuid, parent=msg_id)
            )

    def _abort(self) -> None:
        """Abort some open requests, as stock clients do: tell every engine."""
        some = self.rng.sample(left := self.open(), min(5, len(left)))
        for msg_id in some:
            self.asked[msg_id].aborted = True
            self.figures["aborted"] += 1
        names = [self.asked[msg_id].parent or msg_id for msg_id in some]
        for request in self.asked.values():
            if request.parent in names:  # a broadcast is aborted as a whole
                request.aborted = True
        for engine in self.soak.fleet.engines:
            self.client.control(engine, "abort_request", {"msg_ids": names})

    # Questions

    async def query(self, msg_type: str, content: dict[str, Any] | None = None) -> Received:
        """Send a query, again and again until it is answered."""
        return await again(lambda: self.client.query(msg_type, content))

    async def _ask(self) -> None:
        """Ask one question, and check the answer as far as it is known."""
        kind = self.rng.choice(("queue_request", "connection_request", "history_request", "records"))
        self.figures["queries"] += 1
        if kind != "records":
            content = (await self.query(kind)).content
            if content["status"] != "ok":
                self.soak.wrong(f"{kind}: {content}")
            return
        some = self.rng.sample(list(self.asked), min(20, len(self.asked)))
        for msg_id, (result, buffers) in (await self._records(some)).items():
            self._check(msg_id, result, buffers)

    async def _records(self, msg_ids: list[str]) -> dict[str, tuple[dict[str, Any], list[Buffer]]]:
        """Return the content and the buffers of the recorded results, by msg_id."""
        keys = ["msg_id", "result_content", "result_buffers", "completed"]
        reply = await self.query("db_request", {"query": {"msg_id": {"$in": msg_ids}}, "keys": keys})
        buffers = list(reply.buffers)
        found = {}
        for record, count in zip(reply.content["records"], reply.content["result_buffer_lens"], strict=True):
            own, buffers = buffers[:count], buffers[count:]
            if record["completed"]:
                found[record["msg_id"]] = record["result_content"], own
        return found

    def _check(self, msg_id: str, content: dict[str, Any], buffers: list[Buffer]) -> None:
        request = self.asked[msg_id]
        stopped = self.soak.disturbed_at >= request.at - IN_FLIGHT
        if wrong := request.wrong(content, buffers, self._has_failed, stopped):
            self.soak.wrong(
                f"{msg_id} ({request.status}, {str(request.metadata)[:200]}, aborted {request.aborted}): {wrong}"
            )

    def _has_failed(self, msg_id: str) -> bool:
        """Return whether a request has failed, or the hub may not know that it has succeeded."""
        request = self.asked[msg_id]
        replies = self.replies.get(msg_id, ())
        failed = any(reply.content["status"] != "ok" for reply in replies) or request.outcome not in ("", "ok")
        return failed or request.sent_again or request.purged or self._is_excused(request)

    def _is_excused(self, request: Request) -> bool:
        """Return whether a message of this request may have been lost with a connection or with a hub."""
        return max(self.disturbed_at, self.soak.disturbed_at) >= request.at - IN_FLIGHT

    def _may_be_unknown(self, request: Request) -> bool:
        """Return whether the hub may have no record of this request, although it was sent."""
        return self._is_excused(request) or self.soak.purged_all_at >= request.at

    async def _chase(self) -> None:
        """Submit overdue requests again that the hub does not know, and fetch results that were not sent."""
        now = trio.current_time()
        overdue = [msg_id for msg_id in self.open() if now - self.asked[msg_id].at > OVERDUE]
        if not overdue:
            return
        for queue in {self.asked[msg_id].queue for msg_id in overdue}:
            await heard(self.client, queue)  # so the hub has received all earlier requests
        completed, unknown = await again(lambda: Asker(self.client, [], self.rng).status(overdue))
        late = [msg_id for msg_id in completed if msg_id in self._overdue and msg_id not in self.replies]
        self._overdue = set(completed)
        for msg_id, (content, buffers) in (await self._records(late) if late else {}).items():
            if msg_id in self.replies:
                continue
            if not self._is_excused(self.asked[msg_id]):
                self.soak.wrong(f"{msg_id} ({self.asked[msg_id].status}) is completed, and was never answered")
            self._check(msg_id, content, buffers)
            self.asked[msg_id].outcome = content["status"]
            self.fetched.add(msg_id)
            self.figures["fetched"] += 1
        for msg_id in unknown:
            if msg_id not in self.replies:
                self._send_again(msg_id)

    def _send_again(self, msg_id: str) -> None:
        request = self.asked[msg_id]
        if not self._may_be_unknown(request):
            self.soak.wrong(f"{msg_id} ({request.status}) is unknown to the hub, and nothing has happened to it")
        request.sent_again, request.at = True, trio.current_time()
        self.figures["submitted again"] += 1
        if request.queue == "task":
            metadata = dict(request.metadata)
            for name in {"after", "follow"} & metadata.keys():  # the hub may not know requests that have ended
                metadata[name] = [other for other in metadata[name] if other in self.open()]
            self.client.submit(request.buffer, metadata=metadata, msg_id=msg_id)
        elif request.queue == "mux":
            self.client.send("mux", "apply_request", to=request.target, buffers=[request.buffer], msg_id=msg_id)
        else:
            uuids = request.gathered or (request.target,)
            metadata = request.metadata | {
                "targets": [pair for pair in request.metadata["targets"] if pair[0] in uuids]
            }
            self.client.send(
                "broadcast", "apply_request", metadata=metadata, buffers=[request.buffer], msg_id=request.parent
            )

    async def check_records(self) -> None:
        """Check that each successful request is recorded, and that the recorded results are right."""
        settled = self.settled()
        for place in range(0, len(settled), 200):
            some = settled[place : place + 200]
            records = await self.soak.operator._records(some)
            for msg_id, (content, buffers) in records.items():
                self._check(msg_id, content, buffers)
            for msg_id in some:
                request = self.asked[msg_id]
                is_ok = [reply.content["status"] for reply in self.replies.get(msg_id, ())] == ["ok"]
                # a killed hub loses the records of its last moments
                if msg_id not in records and is_ok and not self._may_be_unknown(request):
                    self.soak.wrong(f"{msg_id} ({request.status}) is not recorded")

    # Accounts

    def settled(self) -> list[str]:
        """The msg_ids of the requests that are answered and not purged."""
        return [
            msg_id
            for msg_id, request in self.asked.items()
            if not request.purged and (msg_id in self.replies or msg_id in self.fetched)
        ]

    def check(self) -> int:
        """Check all answers. Return how many requests were answered twice."""
        twice = 0
        for msg_id, request in self.asked.items():
            replies = self.replies.get(msg_id, [])
            refused = [reply for reply in replies if reply.content.get("ename") == "RequestRefused"]
            if refused and not request.sent_again:
                self.soak.wrong(f"{msg_id} was refused: {refused[0].content['evalue']}")
            answers = [reply for reply in replies if reply not in refused]
            for reply in answers:
                self._check(msg_id, reply.content, reply.buffers)
                self.figures[
                    "ok" if reply.content["status"] == "ok" else reply.content.get("ename", "aborted before it ran")
                ] += 1
            if len(answers) > 1:
                twice += 1
                print(f"{msg_id} ({request.status}) was answered {len(answers)} times")
        return twice

    def forget(self) -> None:
        self.asked.clear()
        self.replies.clear()
        self.fetched.clear()


async def again(ask: Callable[[], Awaitable[T]]) -> T:
    """Ask again and again, until there is an answer."""
    while True:
        with trio.move_on_after(ANSWERED_WITHIN):
            return await ask()
