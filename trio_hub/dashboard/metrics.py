"""The metrics of a hub for Prometheus.

`METRICS` lists all metrics. The hub only counts plain numbers. This module names them and formats them for each scrape.
"""

from __future__ import annotations

import platform
from collections.abc import Callable, Iterator
from math import inf
from typing import Any

from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

from .. import __version__
from ..errors import WireError
from ..runtime import RunningHub
from .histogram import Histogram
from .poolmetrics import POOL_METRICS
from .samples import HubMetric, Numbers, Samples, each, one
from .timings import Timings
from .workmetrics import WORK_METRICS

__all__ = ["METRICS", "HubCollector", "HubMetric", "exposition"]


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
        "Always 1. The labels are the versions of the hub and of Python.",
        ("version", "python_version"),
        lambda _: [((__version__, platform.python_version()), 1)],
    ),
    HubMetric(
        "trio_hub_tasks",
        "gauge",
        "Load-balanced tasks now: queued for an engine, waiting for dependencies, paused, or running.",
        ("state",),
        each(
            lambda numbers: {
                "queued": numbers.statistics.tasks_queued,
                "waiting": numbers.statistics.tasks_waiting,
                "paused": numbers.statistics.tasks_paused,
                "running": numbers.statistics.tasks_running,
            }
        ),
    ),
    HubMetric(
        "trio_hub_direct_requests_pending",
        "gauge",
        "Unanswered direct requests now.",
        (),
        one(lambda numbers: numbers.statistics.direct_pending),
    ),
    HubMetric(
        "trio_hub_requests_submitted_total",
        "counter",
        "Requests received: tasks (task), direct requests (mux) and broadcasts.",
        ("queue",),
        each(lambda numbers: numbers.statistics.submitted_by_queue),
    ),
    HubMetric(
        "trio_hub_requests_finished_total",
        "counter",
        "Requests answered, by outcome: ok, error or aborted.",
        ("queue", "outcome"),
        _outcomes,
    ),
    *WORK_METRICS,
    HubMetric(
        "trio_hub_tasks_taken_away_total",
        "counter",
        "Tasks that were taken away from drained engines at a deadline, and run elsewhere.",
        (),
        one(lambda numbers: numbers.statistics.taken_away),
    ),
    HubMetric(
        "trio_hub_task_wait_seconds",
        "histogram",
        "Time from the submission of a load-balanced task until it was first sent to an engine.",
        (),
        one(lambda numbers: numbers.timings.wait),
    ),
    HubMetric(
        "trio_hub_request_run_seconds",
        "histogram",
        "Time from the sending of a request to its engine until its answer.",
        ("queue",),
        each(lambda numbers: numbers.timings.run),
    ),
    HubMetric(
        "trio_hub_message_handling_seconds",
        "histogram",
        "Time from the receipt of a message until it was handled and its consequences were sent.",
        ("channel",),
        each(lambda numbers: numbers.timings.messages),
    ),
    HubMetric(
        "trio_hub_event_loop_lag_seconds",
        "histogram",
        "How late a task woke up that repeatedly sleeps for half a second.",
        (),
        one(lambda numbers: numbers.timings.loop),
    ),
    HubMetric(
        "trio_hub_engines",
        "gauge",
        "Engines now: alive, registering (hearts not heard yet), or lost (late results are still accepted).",
        ("state",),
        each(
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
        "Engines that completed their registration.",
        (),
        one(lambda numbers: numbers.statistics.engines_registered),
    ),
    HubMetric(
        "trio_hub_engines_lost_total",
        "counter",
        "Engines that are gone, by reason: died, ended, heart, request, shutdown or unreachable.",
        ("reason",),
        each(lambda numbers: numbers.statistics.engines_lost),
    ),
    *POOL_METRICS,
    HubMetric(
        "trio_hub_heartbeats_missed_total",
        "counter",
        "Pings that an engine did not answer within the heartbeat period.",
        (),
        one(lambda numbers: numbers.statistics.heartbeats_missed),
    ),
    HubMetric(
        "trio_hub_client_sessions",
        "gauge",
        "Sessions of clients that have sent a request, at most the last 10,000, including clients that have left.",
        (),
        one(lambda numbers: numbers.statistics.sessions),
    ),
    HubMetric(
        "trio_hub_results_owed",
        "gauge",
        "Results that wait for absent clients now.",
        (),
        one(lambda numbers: numbers.statistics.results_owed),
    ),
    HubMetric(
        "trio_hub_queue_memory_bytes",
        "gauge",
        "Memory that queued tasks use now.",
        (),
        one(lambda numbers: numbers.statistics.queue_memory),
    ),
    HubMetric(
        "trio_hub_subscribers",
        "gauge",
        "Connections that are subscribed to output or to notifications now.",
        (),
        one(lambda numbers: numbers.statistics.subscribers),
    ),
    HubMetric(
        "trio_hub_subscribers_behind",
        "gauge",
        "Subscribers for which messages were dropped and further messages wait now.",
        (),
        one(lambda numbers: numbers.statistics.subscribers_behind),
    ),
    HubMetric(
        "trio_hub_subscribers_waiting_bytes",
        "gauge",
        "Messages that wait for subscribers now. A message counts once for each subscriber.",
        (),
        one(lambda numbers: numbers.statistics.subscribers_waiting),
    ),
    HubMetric(
        "trio_hub_subscribers_dropped_total",
        "counter",
        "Messages that were dropped because a subscriber did not read.",
        (),
        one(lambda numbers: numbers.statistics.subscribers_dropped),
    ),
    HubMetric(
        "trio_hub_subscribers_dropped_bytes_total",
        "counter",
        "Bytes of messages that were dropped because a subscriber did not read.",
        (),
        one(lambda numbers: numbers.statistics.subscribers_dropped_bytes),
    ),
    HubMetric(
        "trio_hub_wire_errors_total",
        "counter",
        "Messages that could not be read, by kind.",
        ("kind",),
        each(lambda numbers: dict.fromkeys(WireError.KINDS, 0) | numbers.statistics.wire_errors),
    ),
    HubMetric(
        "trio_hub_messages_ignored_total",
        "counter",
        "Readable messages without effect, by reason.",
        ("reason",),
        each(lambda numbers: numbers.statistics.ignored),
    ),
    HubMetric(
        "trio_hub_internal_errors_total",
        "counter",
        "Unexpected exceptions, by place in the hub. The log has their tracebacks.",
        ("place",),
        each(lambda numbers: numbers.statistics.internal_errors),
    ),
    HubMetric(
        "trio_hub_service_failures_total",
        "counter",
        "Unexpected errors in services beside the hub, such as the dashboard or retention.",
        ("service",),
        each(lambda numbers: numbers.statistics.service_failures),
    ),
    HubMetric(
        "trio_hub_store_writable",
        "gauge",
        "Whether the task database can be written, 1 or 0.",
        (),
        one(lambda numbers: float(numbers.database.last_error is None)),
    ),
    HubMetric(
        "trio_hub_store_batches_total",
        "counter",
        "Batches written to the task database.",
        (),
        one(lambda numbers: numbers.database.batches),
    ),
    HubMetric(
        "trio_hub_store_records_written_total",
        "counter",
        "Records in the written batches. A record that is written twice counts twice.",
        (),
        one(lambda numbers: numbers.database.written),
    ),
    HubMetric(
        "trio_hub_store_records_trimmed_total",
        "counter",
        "Records that were dropped because of the limits on number, size or age.",
        (),
        one(lambda numbers: numbers.database.trimmed),
    ),
    HubMetric(
        "trio_hub_store_records_not_persisted_total",
        "counter",
        "Records that could not be written and were lost.",
        (),
        one(lambda numbers: numbers.database.not_persisted),
    ),
    HubMetric(
        "trio_hub_store_backlog_records",
        "gauge",
        "Records with changes that are not written yet.",
        (),
        one(lambda numbers: numbers.database.pending),
    ),
    HubMetric(
        "trio_hub_store_backlog_bytes",
        "gauge",
        "Approximate memory used by records with changes that are not written yet.",
        (),
        one(lambda numbers: numbers.database.pending_bytes),
    ),
    HubMetric(
        "trio_hub_store_lag_seconds",
        "gauge",
        "How long the oldest unwritten change has been waiting; 0 if all are written.",
        (),
        one(lambda numbers: numbers.database.lag),
    ),
    HubMetric(
        "trio_hub_store_size_bytes",
        "gauge",
        "Size of the task database on disk (SQLite) or in memory. Absent for PostgreSQL.",
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
    """Makes the metrics from a hub's present numbers."""

    def __init__(self, hub: RunningHub, timings: Timings) -> None:
        self._hub = hub
        self._timings = timings

    def collect(self) -> Iterator[Metric]:
        numbers = Numbers(self._hub, self._hub.statistics(), self._timings, self._hub.pools)
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
    """Return the function that answers scrapes: it takes the ``Accept`` header, and returns the text and its type."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(HubCollector(hub, timings))
    ProcessCollector(registry=registry)

    def scrape(accept: str) -> tuple[bytes, str]:
        encode, content_type = choose_encoder(accept)
        return encode(registry), content_type

    return scrape
