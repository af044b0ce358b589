"""The journal of events, and the alerts, with a fake clock."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from trio_hub import HubConfig
from trio_hub.dashboard.alerts import AGAIN, KEEP, STARTING, Alerts, Concern, Look, concerns, grown
from trio_hub.dashboard.journal import MAX_ENTRIES, NEAR, Entry, Journal, JournalEvent, as_rows
from trio_hub.hub.events import (
    BlockEnded,
    BlockStarted,
    BlockSubmitted,
    EngineDraining,
    EngineRegistered,
    EngineReturned,
    EngineSettled,
    EngineShutdownRequested,
    EngineUnregistered,
    HubShutdownRequested,
    HubStopping,
    PoolScaled,
    RecordsPurged,
    RegistrationStalled,
    RequestsAborted,
    RequestsResubmitted,
    TaskCancelled,
)
from trio_hub.testing import open_hub

from ..runtime.support import within_limit


class Kept:
    """A journal with a clock, and engines whose causes of death a test says."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.causes: dict[str, str] = {}
        self.journal = Journal(
            lambda uuid: self.causes.get(uuid, ""), lambda event: event.reason == "shutdown", lambda: self.now
        )

    def texts(self) -> list[str]:
        return [entry.text for entry in self.journal.since(0)]

    def lose(self, id: int, cause: str = "", reason: str = "heart") -> None:
        self.causes[f"uuid-{id}"] = cause
        self.journal.happened(EngineUnregistered(id, f"uuid-{id}", reason))


def test_it_says_which_engines_come_and_go_and_why() -> None:
    kept = Kept()
    happened = kept.journal.happened
    for event in (
        EngineRegistered(3, "uuid-3"),
        RegistrationStalled(4, "uuid-4"),
        EngineReturned(5, "uuid-5"),
        RecordsPurged(1200, "0123456789"),
        HubStopping("SIGTERM"),
    ):
        happened(event)
        kept.now += 60
    kept.lose(3, "killed by signal 9 (SIGKILL)")
    kept.now += 60
    kept.lose(5, "", "shutdown")
    assert kept.texts() == [
        "Engine 5 has left.",
        "Engine 3 was lost: killed by signal 9 (SIGKILL).",
        "The hub stops: SIGTERM.",
        "purged 1,200 records",
        "Engine 5 is usable again.",
        "Engine 4 asked to register, but its heart was not heard in time.",
        "Engine 3 has registered.",
    ]
    assert kept.journal.losses == 1, "an engine that was told to end is not lost"
    assert [row["who"] for row in as_rows(kept.journal.since(0))][3] == "client 01234567"


def test_it_says_what_clients_have_done() -> None:
    kept = Kept()
    happened = kept.journal.happened
    events: list[JournalEvent] = [
        RequestsAborted(3, "0123456789", "ada"),
        RequestsAborted(1000, "0123456789", "ada"),  # the request that went through another engine
        RequestsAborted(1, "9876543210", "bob"),
        RequestsResubmitted(2, "0123456789", "ada"),
        RecordsPurged(0, "0123456789", "ada"),
        EngineShutdownRequested(7, "uuid-7", True, "0123456789", "ada"),
        *(EngineShutdownRequested(id, f"uuid-{id}", False, "0123456789", "ada") for id in range(10)),
        HubShutdownRequested("0123456789"),
        HubStopping("a client's shutdown_request"),
    ]
    for event in events:
        happened(event)
    rows = as_rows(kept.journal.since(0))
    ada = "client 01234567 (ada)"
    assert [(row["who"], row["text"]) for row in rows] == [
        ("", "The hub stops: a client's shutdown_request."),
        ("client 01234567", "asked the hub to stop"),
        (ada, "asked 10 engines to end: the last ones are 4, 5, 6, 7, 8, 9"),
        (ada, "asked engine 7 to restart"),
        (ada, "purged 0 records"),
        (ada, "resubmitted 2 requests"),
        ("client 98765432 (bob)", "asked to abort 1 request"),
        (ada, "asked to abort 1,003 requests"),
    ]


def test_it_says_what_becomes_of_the_blocks_of_pools() -> None:
    kept = Kept()
    events: list[JournalEvent] = [
        BlockSubmitted("slurm", "slurm-1", 4),
        BlockSubmitted("local", "local-1", 1),
        BlockSubmitted("slurm", "slurm-2", 4),
        BlockStarted("local", "local-1"),
        *(BlockStarted("slurm", f"slurm-{number}") for number in range(1200)),
        BlockEnded("slurm", "slurm-1", True, "Requested node configuration is not available."),
        BlockEnded("slurm", "slurm-2", True, "PREEMPTED"),
        BlockEnded("local", "local-1", False, ""),
        PoolScaled("slurm", 0, 16, "ada"),
        PoolScaled("slurm", 1, 1, "ada"),
    ]
    for event in events:
        kept.journal.happened(event)
    assert [(row["kind"], row["level"], row["who"], row["text"]) for row in as_rows(kept.journal.since(0))] == [
        ("pool_scaled:slurm", "info", "ada", "scaled pool slurm to 1 engine"),
        ("pool_scaled:slurm", "info", "ada", "scaled pool slurm to 0 to 16 engines"),
        ("blocks_ended:local", "info", "", "Block local-1 of pool local has ended."),
        (
            "blocks_failed:slurm",
            "warn",
            "",
            "2 blocks of pool slurm have failed. The last one is slurm-2: PREEMPTED.",
        ),
        (
            "blocks_started:slurm",
            "info",
            "",
            "1,200 blocks of pool slurm have started. The last one is slurm-1199.",
        ),
        ("blocks_started:local", "info", "", "Block local-1 of pool local has started."),
        (
            "blocks_submitted:slurm",
            "info",
            "",
            "Pool slurm has asked for 2 blocks. The last one is slurm-2 with 4 engines.",
        ),
        ("blocks_submitted:local", "info", "", "Pool local has asked for block local-1 with 1 engine."),
    ]
    kept.now += 60
    refused = "sbatch: error: invalid partition specified: nowhere."
    kept.journal.happened(BlockEnded("slurm", "slurm-3", True, refused))
    assert kept.texts()[0] == f"Block slurm-3 of pool slurm has failed: {refused}"


def test_it_says_who_cancels_and_drains() -> None:
    kept = Kept()
    for number in range(1200):
        kept.journal.happened(TaskCancelled(f"task {number}", "ada", "interrupted"))
    kept.journal.happened(TaskCancelled("another", "bob", "withdrawn"))
    kept.journal.happened(EngineDraining(3, "uuid-3", True, "ada"))
    kept.journal.happened(EngineDraining(4, "uuid-4", True, "ada", "shutdown"))
    kept.journal.happened(EngineDraining(3, "uuid-3", False, "bob"))
    assert [(row["who"], row["kind"], row["text"]) for row in as_rows(kept.journal.since(0))] == [
        ("bob", "undrained", "undrained engine 3"),
        ("ada", "drained", "drained 2 engines: 3, 4"),
        ("bob", "cancelled", "cancelled 1 request"),
        ("ada", "cancelled", "cancelled 1,200 requests"),
    ]


def test_engines_that_go_together_are_one_entry() -> None:
    kept = Kept()
    for id in range(1000):
        kept.lose(id, "its heart has stopped")
        kept.now += 0.001
    (entry,) = kept.journal.since(0)
    expected = (
        "1,000 engines were lost: the last ones are 994, 995, 996, 997, 998, 999. Engine 999: its heart has stopped."
    )
    assert (entry.text, entry.count, kept.journal.losses) == (expected, 1000, 1000)
    kept.now += NEAR + 1
    kept.lose(7)
    assert kept.texts() == ["Engine 7 was lost.", expected]


def test_a_cause_that_is_found_out_later_is_told() -> None:
    kept = Kept()
    kept.lose(1)
    before = kept.journal.seq
    kept.journal.learn()
    assert kept.journal.seq == before, "there is nothing new"
    kept.causes["uuid-1"] = "killed by signal 9 (SIGKILL), out of memory"
    kept.journal.learn()
    assert kept.texts() == ["Engine 1 was lost: killed by signal 9 (SIGKILL), out of memory."]
    assert kept.journal.since(before) == kept.journal.since(0)
    kept.journal.happened(EngineSettled(1, "uuid-1"))
    kept.causes["uuid-1"] = "something else"
    kept.journal.learn()
    assert kept.texts() == ["Engine 1 was lost: killed by signal 9 (SIGKILL), out of memory."]


def test_equal_events_are_counted_but_not_those_of_others() -> None:
    kept = Kept()
    kept.journal.note("error", "bad", "One.", count=2)
    kept.journal.note("other", "info", "Another.")
    kept.journal.note("error", "bad", "Two.")
    kept.journal.note("error", "bad", "Three.", who="ada")
    assert [(entry.text, entry.count) for entry in kept.journal.since(0)] == [
        ("Three.", 1),
        ("Two.", 3),
        ("Another.", 1),
    ]
    kept.journal.note("action", "info", "did it", who="ada", near=-1.0)
    kept.journal.note("action", "info", "did it", who="ada", near=-1.0)
    assert kept.texts()[:2] == ["did it", "did it"]


def test_only_what_has_changed_is_asked_for() -> None:
    kept = Kept()
    first = kept.journal.note("a", "info", "A.")
    kept.now += 100
    kept.journal.note("b", "info", "B.")
    seq = kept.journal.seq
    assert kept.journal.since(seq) == []
    kept.journal.note("b", "info", "B again.")
    ((changed),) = kept.journal.since(seq)
    assert (changed.text, changed.id) == ("B again.", 2)
    assert kept.journal.since(0, limit=1) == [changed]
    assert kept.journal.latest("a", kept.now) is first
    kept.now += 3600
    assert kept.journal.latest("a", kept.now) is None


def test_the_last_entries_are_kept_and_taken_over() -> None:
    kept = Kept()
    for number in range(MAX_ENTRIES + 20):
        kept.journal.note(f"kind {number}", "info", f"{number}")
    assert len(kept.journal.since(0)) == MAX_ENTRIES
    assert kept.texts()[-1] == "20"
    later = Kept()
    later.journal.restore(reversed(kept.journal.since(0)))
    assert later.texts() == kept.texts()
    later.journal.note("new", "info", "New.")
    assert later.texts()[0] == "New."
    assert len(later.texts()) == MAX_ENTRIES


def test_texts_of_others_are_limited_and_can_be_written() -> None:
    kept = Kept()
    kept.lose(1, "\udcff" + "x" * 10_000)
    (entry,) = kept.journal.since(0)
    assert len(entry.text) < 600
    entry.text.encode()


# Alerts


def shown(alerts: Alerts) -> list[tuple[str, str, bool]]:
    return [(alert["id"], alert["text"], alert["until"] is None) for alert in alerts.shown()]


FAILING = Concern("failing", "warn", "Tasks are failing.")


def test_an_alert_stays_for_a_while_when_it_is_over() -> None:
    alerts = Alerts()
    assert alerts.look(100.0, [FAILING]) == ([FAILING], [])
    assert shown(alerts) == [("failing:100", "Tasks are failing.", True)]
    _, ended = alerts.look(101.0, [])
    assert [alert.until for alert in ended] == [101.0]
    for t in (102.0, 101.0 + KEEP):
        assert alerts.look(t, []) == ([], [])
        assert shown(alerts) == [("failing:100", "Tasks are failing.", False)]
    alerts.look(102.0 + KEEP, [])
    assert shown(alerts) == []


def test_an_alert_that_flickers_is_one() -> None:
    alerts = Alerts()
    for second in range(100):
        begun, _ = alerts.look(100.0 + second, [FAILING] if second % 2 else [])
        assert bool(begun) == (second == 1)
    assert shown(alerts) == [("failing:101", "Tasks are failing.", True)]
    alerts.look(200.0, [])
    assert alerts.look(201.0 + AGAIN, [FAILING])[0] == [FAILING], "the journal notes that it comes again"


def test_a_state_that_is_told_only_after_a_while() -> None:
    alerts = Alerts()
    slow = Concern("no_engine", "bad", "3 tasks wait.", after=5.0)
    for second in (100.0, 104.9):
        assert alerts.look(second, [slow]) == ([], [])
    assert alerts.look(104.95, []) == ([], [])
    assert alerts.look(105.0, [slow]) == ([], []), "it has not lasted"
    assert alerts.look(110.0, [slow]) == ([slow], [])
    assert shown(alerts) == [("no_engine:110", "3 tasks wait.", True)]


def test_an_event_is_told_until_it_is_an_hour_old_and_again_with_the_next_one() -> None:
    alerts = Alerts()
    assert alerts.look(500.0, [Concern("lost", "warn", "1 engine.", last=400.0)]) == ([], [])
    (alert,) = alerts.shown()
    assert (alert["id"], alert["event"], alert["since"], alert["until"]) == ("lost:400", True, 400.0, 400.0)
    alerts.look(600.0, [Concern("lost", "warn", "2 engines.", last=590.0)])
    assert shown(alerts) == [("lost:590", "2 engines.", False)]
    assert alerts.look(601.0, []) == ([], [])
    assert shown(alerts) == []


def test_the_worst_comes_first_and_what_is_over_last() -> None:
    alerts = Alerts()
    worst = Concern("database", "bad", "The disk is full.")
    lost = Concern("lost", "warn", "Lost.", last=90.0)
    slow = Concern("loop", "warn", "Slow.")
    alerts.look(100.0, [FAILING, lost, slow, worst])
    alerts.look(101.0, [FAILING, lost, worst])
    assert [text for _, text, _ in shown(alerts)] == ["The disk is full.", "Tasks are failing.", "Lost.", "Slow."]


async def test_what_needs_attention() -> None:
    async with within_limit(), open_hub(HubConfig(db="memory")) as hub:
        statistics = hub.statistics()
    fine = Look(statistics, 1000.0, 0.0, 0.0, 0.01, 10, 1000, 0, None, 0, None, None)

    def found(look: Look = fine, **changes: Any) -> list[str]:
        return [concern.text for concern in concerns(replace(look, statistics=replace(statistics, **changes)))]

    def stay(look: Look, **changes: Any) -> Iterable[bool]:
        return (one.stays for one in concerns(replace(look, statistics=replace(statistics, **changes))))

    assert found() == []
    assert found(tasks_queued=3) == ["3 tasks wait, but no engine is alive."]
    away = ("a is away", "b is away", "c is away", "d is away")
    one: dict[str, Any] = {"local_engines": 4, "local_engines_missing": away[:1]}
    assert found(**one) == ["1 of 4 local engines cannot be used: a is away."]
    assert all(stay(fine, **one))
    assert not any(stay(replace(fine, started=1000.0 - STARTING), **one)), "they are still coming"
    (text,) = found(local_engines=4, local_engines_missing=away)
    assert text.endswith(": a is away; b is away; c is away; and others.")
    lost = Entry(1, 1, 900.0, 900.0, "engine_lost", "warn", "…", subjects=[3], cause="killed by signal 9 (SIGKILL)")
    assert found(replace(fine, lost=1, last_lost=lost)) == [
        "1 engine was lost in the last hour. Engine 3: killed by signal 9 (SIGKILL)."
    ]
    assert found(replace(fine, lost=5, last_lost=lost)) == [
        "5 engines were lost in the last hour. The latest is engine 3: killed by signal 9 (SIGKILL)."
    ]
    assert found(replace(fine, lost=5)) == ["5 engines were lost in the last hour."]
    assert len(found(replace(fine, errors=1))) == 1
    error = Entry(1, 1, 900.0, 900.0, "error", "bad", "The service 'x' has failed.")
    assert found(replace(fine, errors=2, last_error=error, crashed=replace_text(error, "It crashed."))) == [
        "It crashed.",
        "2 unexpected errors in the hub in the last hour: see the log for the traceback. The latest: "
        "The service 'x' has failed.",
    ]
    assert found(replace(fine, failing=0.123)) == ["Tasks are failing: about 0.12/s."]
    assert found(replace(fine, failing=1234.5)) == ["Tasks are failing: about 1,234/s."]
    assert found(replace(fine, loop_p99=0.31)) == ["The hub's event loop was 0.3 s late (p99 of the last minute)."]
    assert found(replace(fine, descriptors=900))[0].startswith("900 of 1,000 file descriptors are in use")
    behind: dict[str, Any] = {"subscribers_behind": 1, "subscribers_waiting": 3_000_000}
    assert found(**behind)[0].startswith("1 client connection does not read output or notifications: 3 MB wait")
    database = replace(statistics.database, last_error="disk full", not_persisted=1, lag=11.2, pending=5)
    assert found(database=database) == [
        "The database cannot be written: disk full",
        "1 record was lost: writing failed.",
        "The database is 11 s behind: 5 records wait.",
    ]


def replace_text(entry: Entry, text: str) -> Entry:
    return Entry(entry.id, entry.seq, entry.t, entry.last, "crashed", entry.level, text)


def test_what_has_grown() -> None:
    assert grown({}, {"a": 2}) == {"a": 2}
    assert grown({"a": 2}, {"a": 2}) == {}
    assert grown({"a": 1, "b": 5}, {"a": 3, "b": 5}) == {"a": 2}
