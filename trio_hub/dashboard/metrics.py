"""A hub's metrics, as Prometheus takes them.

`METRICS` is the whole list. The hub only adds to plain numbers; what they are called, and which text that makes, is
decided here, when somebody asks.
"""

from __future__ import annotations

import platform
from collections.abc import Callable, Iterable, Iterator, Mapping
from math import inf
from typing import Any, Literal, NamedTuple, TypeAlias

from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

from .. import __version__
from ..errors import WireError
from ..runtime import DatabaseStatistics, RunningHub, Statistics
from .histogram import Histogram
from .timings import Timings

__all__ = ["METRICS", "HubCollector", "HubMetric", "exposition"]


class Numbers(NamedTuple):
    """What metrics are made of."""

    statistics: Statistics
    timings: Timings

    @property
    def database(self) -> DatabaseStatistics:
        return self.statistics.database


Samples: TypeAlias = Iterable[tuple[tuple[str, ...], float | Histogram]]
"""Values of a metric, each with those of its labels."""


class HubMetric(NamedTuple):
    """One metric: its name as it stands in a query, its type, what it tells, its labels, and where it comes from."""

    name: str
    kind: Literal["counter", "gauge", "histogram"]
    text: str
    labels: tuple[str, ...]
    samples: Callable[[Numbers], Samples]


def _one(value: Callable[[Numbers], float | Histogram]) -> Callable[[Numbers], Samples]:
    return lambda numbers: [((), value(numbers))]


def _each(values: Callable[[Numbers], Mapping[str, float] | Mapping[str, Histogram]]) -> Callable[[Numbers], Samples]:
    return lambda numbers: [((label,), value) for label, value in values(numbers).items()]


def _outcomes(numbers: Numbers) -> Samples:
    for queue, outcomes in numbers.statistics.outcomes.items():
        for outcome, count in outcomes.items():
            yield (queue, outcome), count


def _size(numbers: Numbers) -> Samples:
    return [] if numbers.database.size is None else [((), numbers.database.size)]


METRICS: tuple[HubMetric, ...] = (
    HubMetric(
        "trio_hub_build_info",
        "gauge",
        "Always 1; its labels tell the versions of the hub and of Python.",
        ("version", "python_version"),
        lambda _: [((__version__, platform.python_version()), 1)],
    ),
    HubMetric(
        "trio_hub_tasks",
        "gauge",
        "Load-balanced tasks now: queued for an engine, waiting for what they depend on, or running.",
        ("state",),
        _each(
            lambda numbers: {
                "queued": numbers.statistics.tasks_queued,
                "waiting": numbers.statistics.tasks_waiting,
                "running": numbers.statistics.tasks_running,
            }
        ),
    ),
    HubMetric(
        "trio_hub_direct_requests_pending",
        "gauge",
        "Direct requests that are not answered, now.",
        (),
        _one(lambda numbers: numbers.statistics.direct_pending),
    ),
    HubMetric(
        "trio_hub_requests_submitted_total",
        "counter",
        "Requests received: tasks (task), direct requests (mux) and broadcasts.",
        ("queue",),
        _each(lambda numbers: numbers.statistics.submitted_by_queue),
    ),
    HubMetric(
        "trio_hub_requests_finished_total",
        "counter",
        "Requests answered, by outcome: ok, error or aborted.",
        ("queue", "outcome"),
        _outcomes,
    ),
    HubMetric(
        "trio_hub_task_wait_seconds",
        "histogram",
        "From a load-balanced task's submission until it was sent to an engine for the first time.",
        (),
        _one(lambda numbers: numbers.timings.wait),
    ),
    HubMetric(
        "trio_hub_request_run_seconds",
        "histogram",
        "From when a request was sent to its engine until it was answered.",
        ("queue",),
        _each(lambda numbers: numbers.timings.run),
    ),
    HubMetric(
        "trio_hub_message_handling_seconds",
        "histogram",
        "From when the hub had received a message until all that it asks for was done or on its way out.",
        ("channel",),
        _each(lambda numbers: numbers.timings.messages),
    ),
    HubMetric(
        "trio_hub_event_loop_lag_seconds",
        "histogram",
        "How late a task of the event loop woke that sleeps half a second at a time.",
        (),
        _one(lambda numbers: numbers.timings.loop),
    ),
    HubMetric(
        "trio_hub_engines",
        "gauge",
        "Engines now: alive, registering (their hearts were not heard yet), or lost (late results are still taken).",
        ("state",),
        _each(
            lambda numbers: {
                "alive": numbers.statistics.engines,
                "registering": numbers.statistics.registering,
                "lost": numbers.statistics.lost,
            }
        ),
    ),
    HubMetric(
        "trio_hub_engines_registered_total",
        "counter",
        "Engines that became usable.",
        (),
        _one(lambda numbers: numbers.statistics.engines_registered),
    ),
    HubMetric(
        "trio_hub_engines_lost_total",
        "counter",
        "Engines that are gone, by reason: heart, process, request, shutdown or unreachable.",
        ("reason",),
        _each(lambda numbers: numbers.statistics.engines_lost),
    ),
    HubMetric(
        "trio_hub_heartbeats_missed_total",
        "counter",
        "Pings that an engine did not answer in their period.",
        (),
        _one(lambda numbers: numbers.statistics.heartbeats_missed),
    ),
    HubMetric(
        "trio_hub_client_sessions",
        "gauge",
        "Sessions of clients that have sent a request, the last 10,000; those that have left included.",
        (),
        _one(lambda numbers: numbers.statistics.sessions),
    ),
    HubMetric(
        "trio_hub_results_owed",
        "gauge",
        "Results that wait for clients which are away, now.",
        (),
        _one(lambda numbers: numbers.statistics.results_owed),
    ),
    HubMetric(
        "trio_hub_queue_memory_bytes",
        "gauge",
        "Memory that queued tasks take up now.",
        (),
        _one(lambda numbers: numbers.statistics.queue_memory),
    ),
    HubMetric(
        "trio_hub_subscribers",
        "gauge",
        "Connections that have subscribed to output or to notifications, now.",
        (),
        _one(lambda numbers: numbers.statistics.subscribers),
    ),
    HubMetric(
        "trio_hub_subscribers_behind",
        "gauge",
        "Of these, the ones from which messages were dropped, and for which others wait still, now.",
        (),
        _one(lambda numbers: numbers.statistics.subscribers_behind),
    ),
    HubMetric(
        "trio_hub_subscribers_waiting_bytes",
        "gauge",
        "Messages that wait for subscribers now; a message counts for each of them.",
        (),
        _one(lambda numbers: numbers.statistics.subscribers_waiting),
    ),
    HubMetric(
        "trio_hub_subscribers_dropped_total",
        "counter",
        "Messages that were dropped since a subscriber did not read.",
        (),
        _one(lambda numbers: numbers.statistics.subscribers_dropped),
    ),
    HubMetric(
        "trio_hub_subscribers_dropped_bytes_total",
        "counter",
        "Bytes of these messages.",
        (),
        _one(lambda numbers: numbers.statistics.subscribers_dropped_bytes),
    ),
    HubMetric(
        "trio_hub_wire_errors_total",
        "counter",
        "Messages that could not be read, by kind.",
        ("kind",),
        _each(lambda numbers: dict.fromkeys(WireError.KINDS, 0) | numbers.statistics.wire_errors),
    ),
    HubMetric(
        "trio_hub_messages_ignored_total",
        "counter",
        "Readable messages without effect, by reason.",
        ("reason",),
        _each(lambda numbers: numbers.statistics.ignored),
    ),
    HubMetric(
        "trio_hub_internal_errors_total",
        "counter",
        "Unexpected exceptions, by the place in the hub; the log has their tracebacks.",
        ("place",),
        _each(lambda numbers: numbers.statistics.internal_errors),
    ),
    HubMetric(
        "trio_hub_service_failures_total",
        "counter",
        "Unexpected errors of what runs beside the hub, such as the dashboard or retention; the hub went on.",
        ("service",),
        _each(lambda numbers: numbers.statistics.service_failures),
    ),
    HubMetric(
        "trio_hub_store_writable",
        "gauge",
        "Whether the task database can be written, 1 or 0.",
        (),
        _one(lambda numbers: float(numbers.database.last_error is None)),
    ),
    HubMetric(
        "trio_hub_store_batches_total",
        "counter",
        "Times that something was written to the task database.",
        (),
        _one(lambda numbers: numbers.database.batches),
    ),
    HubMetric(
        "trio_hub_store_records_written_total",
        "counter",
        "Records changed in what was written; one that is written twice counts twice.",
        (),
        _one(lambda numbers: numbers.database.written),
    ),
    HubMetric(
        "trio_hub_store_records_trimmed_total",
        "counter",
        "Records that were dropped since they were more, larger or older than is to be kept.",
        (),
        _one(lambda numbers: numbers.database.trimmed),
    ),
    HubMetric(
        "trio_hub_store_records_not_persisted_total",
        "counter",
        "Records that were lost instead of being written.",
        (),
        _one(lambda numbers: numbers.database.not_persisted),
    ),
    HubMetric(
        "trio_hub_store_backlog_records",
        "gauge",
        "Records of which something is not yet written, now.",
        (),
        _one(lambda numbers: numbers.database.pending),
    ),
    HubMetric(
        "trio_hub_store_backlog_bytes",
        "gauge",
        "Memory that these records take up, roughly.",
        (),
        _one(lambda numbers: numbers.database.pending_bytes),
    ),
    HubMetric(
        "trio_hub_store_lag_seconds",
        "gauge",
        "Since when the oldest change has been waiting to be written; 0 if all are.",
        (),
        _one(lambda numbers: numbers.database.lag),
    ),
    HubMetric(
        "trio_hub_store_size_bytes",
        "gauge",
        "What the task database takes up on disk (SQLite) or in memory; absent where only a server knows.",
        (),
        _size,
    ),
)

_FAMILIES: dict[str, Any] = {
    "counter": CounterMetricFamily,
    "gauge": GaugeMetricFamily,
    "histogram": HistogramMetricFamily,
}


class HubCollector(Collector):
    """Makes metrics of a hub's numbers now."""

    def __init__(self, hub: RunningHub, timings: Timings) -> None:
        self._hub = hub
        self._timings = timings

    def collect(self) -> Iterator[Metric]:
        numbers = Numbers(self._hub.statistics(), self._timings)
        for metric in METRICS:
            family = _FAMILIES[metric.kind](metric.name, metric.text, labels=metric.labels)
            for labels, value in metric.samples(numbers):
                if isinstance(value, Histogram):
                    buckets = [
                        ("+Inf" if bound == inf else repr(float(bound)), count) for bound, count in value.buckets()
                    ]
                    family.add_metric(labels, buckets=buckets, sum_value=value.sum)
                else:
                    family.add_metric(labels, value)
            yield family


def exposition(hub: RunningHub, timings: Timings) -> Callable[[str], tuple[bytes, str]]:
    """What answers a scrape: of its ``Accept`` header it makes the text, and the type of that."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(HubCollector(hub, timings))
    ProcessCollector(registry=registry)

    def scrape(accept: str) -> tuple[bytes, str]:
        encode, content_type = choose_encoder(accept)
        return encode(registry), content_type

    return scrape
