"""A bench for tests of single parts: it has the parts below a part, and fakes for its ports."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random
from typing import Any

from trio_hub.errors import HubError
from trio_hub.hub import EngineConnector, EngineState, HeartMonitor
from trio_hub.hub.admission import Admission
from trio_hub.hub.announcer import Announcer
from trio_hub.hub.answers import Answers
from trio_hub.hub.assignments import Assignments
from trio_hub.hub.attention import Attention
from trio_hub.hub.changes import EngineChanges
from trio_hub.hub.engines import Engines
from trio_hub.hub.intake import Intake
from trio_hub.hub.labels import Labels
from trio_hub.hub.late import LateResults
from trio_hub.hub.notices import Notices
from trio_hub.hub.owed import OwedResults
from trio_hub.hub.policies import Policies
from trio_hub.hub.redelivery import Redelivery
from trio_hub.hub.replies import Replies
from trio_hub.hub.routes import Routes
from trio_hub.records import MemoryStore, Store
from trio_hub.records.record import TaskRecord
from trio_hub.schedulers.dependencies import Outcome
from trio_hub.schedulers.unanswered import Direct
from trio_hub.wire.frames import Frames
from trio_hub.wire.messages import Message, Session

from ..durable import Notes
from ..world import KEY, Clock, FakeHost, Peer, run_now


class BenchHost(FakeHost):
    """A `FakeHost` without a hub. Queries go to the bench's store."""

    store: Store

    def ask_store(self, call: Any, then: Any) -> None:
        def ask() -> None:
            try:
                answer = run_now(call(self.store))
            except Exception as error:
                answer = error
            then(answer)

        self.questions.append(ask)

    def answer(self) -> None:
        """Have the store answer all its queries."""
        while self.questions:
            self.questions.pop(0)()


class Bench:
    """The lower parts of a hub; a test builds the part that it is about on top of them."""

    def __init__(
        self, store: Store | None = None, *, strict: bool = False, notes: Notes | None = None, memory: int = 1 << 20
    ) -> None:
        self.clock = Clock()
        self.host = BenchHost()
        self.store = self.host.store = MemoryStore() if store is None else store
        self.session = Session(KEY, session_id="hub", now=self.clock)
        self.client = Peer("client")
        self.notices = Notices(self.host)
        self.replies = Replies(self.host, self.session, self.notices)
        self.redelivery = Redelivery(notes)
        changes = EngineChanges(self.session, self.clock, self.notices, repeat_losses=True)
        self.owed = OwedResults(self.host, self.session, self.store, self.notices, self.redelivery, changes)
        self.answers = Answers(
            self.host, self.session, self.store, self.clock, self.notices, self.redelivery, self.owed, strict=strict
        )
        self.intake = Intake(self.host, self.session, self.store, self.notices, strict=strict, queue_memory=memory)
        self.pending: set[str] = set()
        """The msg_ids of requests that other queues have."""
        self.admission = Admission(
            self.host,
            self.session,
            self.clock,
            self.intake,
            self.owed,
            self.replies,
            self.notices,
            is_pending=self.pending.__contains__,
            queries=("history_request",),
        )
        self.routes = Routes(self.host, self.session, self.notices)
        self.heartmonitor = HeartMonitor(b"token")
        self.engines = Engines(
            self.host,
            self.session,
            self.replies,
            self.notices,
            self.heartmonitor,
            changes,
            hb_period=3000,
            engine_info={"interface": "tcp://*"},
        )
        self.announcer = Announcer(self.notices, Labels())
        self.policies = Policies(self.session, Labels(), self.host.state_changed)
        self.late_results = LateResults(self.answers, self.notices)
        self.attention = Attention()
        self.ended: list[tuple[str, Outcome]] = []

    @property
    def below(self) -> dict[str, Any]:
        """Return the constructor arguments of a queue of recorded requests."""
        names = (
            "notices",
            "replies",
            "intake",
            "answers",
            "admission",
            "routes",
            "engines",
            "announcer",
            "late_results",
            "attention",
        )
        return {name: getattr(self, name) for name in names}

    def request_ended(self, msg_id: str, outcome: Outcome) -> None:
        self.ended.append((msg_id, outcome))

    def assignments(self) -> Assignments:
        return Assignments(
            self.host,
            self.session,
            self.store,
            self.clock,
            Random(1),
            hwm=1,
            scheme="leastload",
            notices=self.notices,
            intake=self.intake,
            answers=self.answers,
            routes=self.routes,
            by_ident=self.engines.by_ident,
            is_pending=self.pending.__contains__,
        )

    def engine(self, uuid: str = "a", engine_id: int = 0) -> EngineConnector:
        """Add an engine to the registry, as if it had registered."""
        engine = EngineConnector(engine_id, uuid)
        engine.state = EngineState.ALIVE
        self.engines.alive[engine_id] = self.engines.by_ident[engine.ident] = engine
        return engine

    def message(self, msg_type: str = "apply_request", content: Any = None, **others: Any) -> Message:
        """Return a message of a client, as the hub reads it."""
        frames = self.client.session.write(msg_type, content or {}, **others)
        return self.session.read_untrusted([self.client.ident, *frames])

    def reply_to(self, uuid: str, request: Message, content: dict[str, Any] | None = None, **metadata: Any) -> Message:
        """Return an engine's reply, as the hub reads it."""
        content = {"status": "ok"} if content is None else content
        frames = Peer(uuid).session.write(
            request.header.msg_type.replace("_request", "_reply"),
            content,
            parent=request.raw_header,
            metadata={"status": content.get("status"), **metadata},
        )
        return self.session.read_untrusted([uuid.encode(), *frames])

    def sent(self, channel: str) -> list[Message]:
        """Return the messages that were sent on a channel, as the receiver reads them."""
        return [
            Session(KEY, session_id="reader", now=self.clock).read_untrusted(frames)
            for name, frames in self.host.sent
            if name == channel
        ]

    def contents(self, channel: str) -> list[dict[str, Any]]:
        return [self.session.content(message) for message in self.sent(channel)]

    def record(self, msg_id: str) -> TaskRecord:
        found: TaskRecord = run_now(self.store.get([msg_id]))[msg_id]
        return found


class FakeQueue:
    """A `trio_hub.hub.ports.Queue` that records its calls."""

    def __init__(self, outstanding: Sequence[str] = (), repeatable: Sequence[Direct] = ()) -> None:
        self.msg_ids = list(outstanding)
        self.directs = list(repeatable)
        self.given_up: list[tuple[str, str]] = []
        self.lost: list[tuple[str, str]] = []

    def outstanding(self, engine: EngineConnector) -> list[str]:
        return self.msg_ids

    def give_up(self, ident: bytes, msg_id: str, error: HubError) -> None:
        self.given_up.append((msg_id, str(error)))

    def answer_lost(self, engine: EngineConnector, msg_id: str, cause: str) -> None:
        self.lost.append((msg_id, cause))

    def repeatable(self, engine: EngineConnector, msg_ids: Sequence[str]) -> list[Direct]:
        return self.directs

    def frames_of(self, direct: Direct, record: TaskRecord) -> Frames:
        return [b"once more"]

    def stop(self, error: HubError) -> None:
        self.given_up.append(("all", str(error)))


class FakeWatcher:
    """A `trio_hub.hub.ports.EngineWatcher` that records its calls, or raises."""

    def __init__(self, told: list[str], *, fails: bool = False, owes: bool = False) -> None:
        self.told = told
        self.fails = fails
        self.owes = owes

    def engine_lost(self, engine: EngineConnector) -> None:
        self._tell("lost", engine)

    def engine_settled(self, engine: EngineConnector) -> None:
        self._tell("settled", engine)

    def owes_answers(self, engine: EngineConnector) -> bool:
        return self.owes

    def _tell(self, what: str, engine: EngineConnector) -> None:
        self.told.append(f"{what} {engine.uuid}")
        if self.fails:
            raise ZeroDivisionError("a bug")
