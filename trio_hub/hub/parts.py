"""Builds the parts of the hub, and connects the calls that go upwards."""

from __future__ import annotations

from collections.abc import Callable, Container, Sequence
from datetime import datetime
from random import Random
from typing import Any, Required, TypedDict

from ..pools.settings import PoolSettings
from ..records import Store
from ..schedulers.policy import Policy
from ..wire.messages import Message, Session
from .aborting import Aborting
from .admission import Admission
from .announcer import Announcer
from .answers import Answers
from .assignments import Assignments
from .attention import Attention
from .broadcasts import Broadcasts
from .changes import EngineChanges
from .control import ControlChannel
from .direct import DirectQueue
from .engines import Engines
from .explaining import Explanations
from .gathering import Gathering
from .goodbyes import Goodbyes
from .heartmonitor import HeartMonitor
from .hearts import Hearts
from .intake import Intake
from .labels import Labels
from .late import LateResults
from .notices import Notices
from .offers import Offers
from .output import Output
from .owed import OwedResults
from .policies import Policies
from .pooling import Pooling
from .ports import Host, Queue, SentResults
from .queries import Queries
from .recovery import Recovery
from .redelivery import Redelivery
from .replies import Replies
from .restored import RestoredBroadcasts
from .returning import ReturningEngines
from .routes import Routes
from .scattered import Scattered
from .tasks import TaskQueue
from .waiting import Details
from .workcontrol import WorkControl
from .workstatus import WorkStatus

__all__ = ["Parts", "Settings"]


class _Below(TypedDict):
    """The constructor arguments that all queues of recorded requests share."""

    notices: Notices
    replies: Replies
    intake: Intake
    answers: Answers
    admission: Admission
    routes: Routes
    engines: Engines
    announcer: Announcer
    late_results: LateResults
    attention: Attention


class Settings(TypedDict, total=False):
    """The settings of a `Hub`.

    - ``now``: the current time, aware and in UTC;
    - ``heart_token``: unguessable bytes, see `HeartMonitor`;
    - ``hwm``, ``scheme``: see `TaskScheduler`; ``unmet_timeout``: see `Assignments`;
    - ``policies``: see `Policies`; ``pools``: see `Bringing`;
    - ``max_heartmonitor_misses``: see `HeartMonitor`;
    - ``hb_period``, ``engine_info``, ``usage_period``: see `Engines`;
    - ``broadcast_channels``: the channels to engines; an engine is connected to the one with index id modulo their
      number;
    - ``strict``: whether requests are on disk before an engine sees them, and results before a client does;
    - ``queue_memory``: see `Intake`;
    - ``sent_results``: notes which results were sent; None if no hub can come after this hub;
    - ``forgotten``: see `Freshness`.
    """

    now: Required[Callable[[], datetime]]
    heart_token: Required[bytes]
    hwm: int
    scheme: str
    unmet_timeout: float
    policies: Sequence[Policy]
    pools: Sequence[PoolSettings]
    max_heartmonitor_misses: int
    hb_period: int
    engine_info: dict[str, Any]
    usage_period: float
    broadcast_channels: Sequence[str]
    strict: bool
    queue_memory: int
    sent_results: SentResults | None
    forgotten: datetime | None


class Parts:
    """Builds the parts, from the bottom to the top, and connects them.

    Args:
        host, session, store, rng: see `Hub`.
        queries: the kinds of message that are queries.
        now, heart_token, and the other arguments: see `Settings`.
    """

    def __init__(
        self,
        host: Host,
        session: Session,
        store: Store,
        rng: Random,
        *,
        queries: Container[str],
        now: Callable[[], datetime],
        heart_token: bytes,
        hwm: int = 1,
        scheme: str = "leastload",
        unmet_timeout: float = 0.0,
        policies: Sequence[Policy] = (),
        pools: Sequence[PoolSettings] = (),
        max_heartmonitor_misses: int = 10,
        hb_period: int = 3000,
        engine_info: dict[str, Any] | None = None,
        usage_period: float = 0.0,
        broadcast_channels: Sequence[str] = ("broadcast_out",),
        strict: bool = False,
        queue_memory: int = 256 << 20,
        sent_results: SentResults | None = None,
        forgotten: datetime | None = None,
    ) -> None:
        # Reports and answers, which all other parts need.
        self.notices = notices = Notices(host)
        self.replies = replies = Replies(host, session, notices)
        self.redelivery = redelivery = Redelivery(sent_results)
        changes = EngineChanges(session, now, notices, repeat_losses=scheme != "pure")
        self.owed = owed = OwedResults(host, session, store, notices, redelivery, changes)
        self.answers = answers = Answers(host, session, store, now, notices, redelivery, owed, strict=strict)
        # Requests that come in, and messages to engines.
        self.intake = intake = Intake(host, session, store, notices, strict=strict, queue_memory=queue_memory)
        self.admission = admission = Admission(
            host,
            session,
            now,
            intake,
            owed,
            replies,
            notices,
            is_pending=self.is_pending,
            queries=queries,
            forgotten=forgotten,
        )
        self.routes = routes = Routes(host, session, notices)
        heartmonitor = HeartMonitor(heart_token, max_heartmonitor_misses)
        self.engines = engines = Engines(
            host,
            session,
            replies,
            notices,
            heartmonitor,
            changes,
            hb_period=hb_period,
            engine_info=engine_info or {},
            usage_period=usage_period,
        )
        self.hearts = Hearts(heartmonitor, engines, notices, now)
        self.goodbyes = Goodbyes(host, session, notices, engines)
        self.late_results = LateResults(answers, notices)
        attention = Attention()
        # The queues.
        self.labels = labels = Labels()
        self.policies = Policies(session, labels, host.state_changed, policies)
        self.announcer = Announcer(notices, labels)
        self.assignments = assignments = Assignments(
            host,
            session,
            store,
            now,
            rng,
            hwm=hwm,
            scheme=scheme,
            unmet_timeout=unmet_timeout,
            notices=notices,
            intake=intake,
            answers=answers,
            routes=routes,
            by_ident=engines.by_ident,
            is_pending=self.is_pending,
            pools=pools,
        )
        below: _Below = {
            "notices": notices,
            "replies": replies,
            "intake": intake,
            "answers": answers,
            "admission": admission,
            "routes": routes,
            "engines": engines,
            "announcer": self.announcer,
            "late_results": self.late_results,
            "attention": attention,
        }
        self.tasks = tasks = TaskQueue(host, session, now, policies=self.policies, assignments=assignments, **below)
        self.offers = Offers(session, engines=engines, scheduler=tasks.scheduler, changed=host.state_changed)
        self.direct = direct = DirectQueue(host, session, now, request_ended=tasks.request_ended, **below)
        self.gathering = gathering = Gathering(
            session, store, notices=notices, answers=answers, request_ended=tasks.request_ended
        )
        scattered = Scattered(host, session, notices=notices, intake=intake, owed=owed)
        self.broadcasts = broadcasts = Broadcasts(
            host,
            session,
            now,
            channels=broadcast_channels,
            gathering=gathering,
            scattered=scattered,
            request_ended=tasks.request_ended,
            **below,
        )
        self.aborting = aborting = Aborting(
            session, notices, intake=intake, routes=routes, tasks=tasks, is_pending=self.is_pending
        )
        self.restored = RestoredBroadcasts(
            session, engines=engines, gathering=gathering, scattered=scattered, broadcasts=broadcasts
        )
        self.control = ControlChannel(
            session,
            notices=notices,
            replies=replies,
            admission=admission,
            routes=routes,
            engines=engines,
            intake=intake,
            abort=aborting.abort_with,
        )
        self.work = work = WorkControl(
            host,
            session,
            store,
            now,
            notices=notices,
            attention=attention,
            intake=intake,
            routes=routes,
            control=self.control,
            engines=engines,
            assignments=assignments,
            tasks=tasks,
            direct=direct,
            broadcasts=broadcasts,
            gathering=gathering,
            is_pending=self.is_pending,
        )
        aborting.connect(work.cancelling.cancel_own)
        self.output = Output(host, session, store, notices, engines)
        # Requests of an earlier hub, and queries of clients.
        self.recovery = Recovery(
            session,
            store,
            notices=notices,
            redelivery=redelivery,
            owed=owed,
            answers=answers,
            engines=engines,
            tasks=tasks,
            direct=direct,
            broadcasts=self.restored,
            carry_on=work.carry_on,
        )
        returning = ReturningEngines(
            host,
            notices=notices,
            routes=routes,
            engines=engines,
            direct=direct,
            broadcasts=broadcasts,
            scheduler=tasks.scheduler,
        )
        self.queries = Queries(
            host,
            session,
            store,
            notices,
            now,
            redelivery=redelivery,
            owed=owed,
            answers=answers,
            engines=engines,
            tasks=tasks,
            abort=aborting.abort_for,
            is_pending=self.is_pending,
        )
        self.details = Details(
            session,
            store,
            labels=labels,
            intake=intake,
            tasks=tasks,
            direct=direct,
            broadcasts=broadcasts,
            engines=engines,
            is_pending=self.is_pending,
        )
        self.explanations = Explanations(
            session, scheduler=tasks.scheduler, engines=engines, intake=intake, details=self.details
        )
        self.work_status = WorkStatus(
            scheduler=tasks.scheduler, engines=engines, draining=work.draining, interrupts=work.interrupts
        )
        self.queries_of_commands = _queries_of_commands(self)
        """The queries that only this project's clients send: their handlers, by type of message."""

        self.pooling = Pooling(
            now,
            bringing=assignments.bringing,
            engines=engines,
            tasks=tasks,
            direct=direct,
            broadcasts=broadcasts,
            answers=answers,
            work=work,
        )
        # The calls that go upwards.
        self.result_queues: dict[str, Queue] = {
            "mux_out": direct,
            "task_out": tasks,
            "control_out": self.control,
            **dict.fromkeys(broadcast_channels, broadcasts),
        }
        """The queue of each channel on which engines answer."""
        routes.connect(self.result_queues, returning.engine_proven)
        # Routes and tasks are told of a lost engine before the queues whose requests fail: tasks may depend on these.
        engines.connect(
            work.draining.engine_joined,
            returning.engine_returned,
            (routes, tasks, work.interrupts, work.draining, direct, broadcasts, self.control),
        )

    def is_pending(self, msg_id: str) -> bool:
        """Return whether a task, direct request or broadcast with this msg_id waits for its answer."""
        return (
            msg_id in self.tasks.scheduler.tasks
            or msg_id in self.direct.unanswered.pending
            or msg_id in self.broadcasts.unanswered.pending
            or msg_id in self.gathering.gathered
            or msg_id in self.intake.uncommitted
        )


def _queries_of_commands(parts: Parts) -> dict[str, Callable[[list[bytes], Message], Any]]:
    return {
        "engines_request": parts.work.orders.engines_request,
        "details_request": parts.details.details_request,
        "explain_request": parts.explanations.explain_request,
        "policy_request": parts.policies.policy_request,
        "tag_request": parts.offers.tag_request,
        "cancel_request": parts.work.orders.cancel_request,
        "drain_request": parts.work.orders.drain_request,
        "work_status_request": parts.work_status.work_status_request,
    }
