"""What engines offer: said at the registration, changed by an administrator, kept over a restart. And explanations."""

from __future__ import annotations

from typing import Any

import pytest

from trio_hub.schedulers.rules import MAX_NAMES, parse_needs
from trio_hub.wire.messages import error_content

from .durable import DurableStore, answer_probes, crashed
from .test_cancelling import pass_time
from .world import World


def offers(it: World, uuid: str) -> dict[str, Any]:
    """Return what an engine offers, after checking that the scheduler knows it, too."""
    engine = it.hub.engines.by_ident[uuid.encode()]
    assert engine.worker is not None
    assert engine.worker.offers == engine.offers
    return dict(engine.offers)


def test_an_engine_says_what_it_offers_when_it_registers() -> None:
    it = World()
    it.engine("a", offers={"gpu": 2, "memory": "32G", "site": "a"})
    it.engine("b")
    it.engine("c", offers=None)
    assert offers(it, "a") == {"gpu": 2.0, "memory": 32.0 * 2**30, "site": "a"}
    assert offers(it, "b") == offers(it, "c") == {}


@pytest.mark.parametrize("wrong", [3, {"gpu": -1}, {"": 1}, {"gpu": []}, {str(n): 1 for n in range(MAX_NAMES + 1)}])
def test_an_engine_with_unusable_offers_is_refused(wrong: Any) -> None:
    it = World()
    reply = it.register("a", offers=wrong)
    assert (reply["status"], reply["ename"]) == ("error", "ValueError")
    assert reply["evalue"].startswith("offers")
    assert it.register("b")["id"] == 0, "no id is used up"


def test_an_administrator_tags_engines() -> None:
    it = World()
    it.engine("a", offers={"gpu": 2, "site": "a"})
    reply = it.query("tag_request", {"engine": 0, "tags": {"memory": "1k", "site": "b"}, "remove": ["gpu", "unknown"]})
    assert reply == {"status": "ok", "engine": 0, "offers": {"memory": 1024.0, "site": "b"}}
    assert offers(it, "a") == {"memory": 1024.0, "site": "b"}
    assert it.host.state_changes == 1
    assert it.query("tag_request", {"engine": "a", "tags": {"gpu": True}})["offers"]["gpu"] == 1.0
    assert it.query("tag_request", {"engine": 0})["offers"] == offers(it, "a")


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ({"engine": 7}, "IndexError: no engine '7' is registered (registered: 0)"),
        ({"engine": "x"}, "IndexError: no engine 'x' is registered (registered: 0)"),
        ({"engine": True}, "IndexError: no engine 'true'"),
        ({}, "IndexError: no engine 'null'"),
        ({"engine": 0, "tags": {"gpu": 0}}, "WireError: tags[gpu] is '0': it must be a positive amount"),
        ({"engine": 0, "tags": [1]}, "WireError: tags is '[1]': it must be a mapping"),
        ({"engine": 0, "remove": "gpu"}, "TypeError: remove must be a list of names of tags, not 'gpu'"),
        ({"engine": 0, "tags": {str(n): 1 for n in range(MAX_NAMES)}}, "WireError: an engine can have at most 50 tags"),
    ],
)
def test_wrong_tags_are_refused_and_change_nothing(content: dict[str, Any], told: str) -> None:
    it = World()
    it.engine("a", offers={"gpu": 2})
    reply = it.query("tag_request", content)
    assert reply["status"] == "error"
    assert f"{reply['ename']}: {reply['evalue']}".replace('"', "").startswith(told)
    assert offers(it, "a") == {"gpu": 2.0}
    assert it.host.state_changes == 0


def test_an_engine_that_comes_back_offers_what_it_did() -> None:
    it = World()
    engine = it.engine("a", offers={"gpu": 2})
    it.query("tag_request", {"engine": 0, "tags": {"site": "a"}})
    it.hub.lose_engine(engine, "heart")
    it.hub.handle_stranded(engine)
    it.beat("a")
    assert it.hub.flush_route(engine, "task_out")
    assert answer_probes(it, "a") == 1
    assert it.hub.engines.by_ident[b"a"] is engine
    assert offers(it, "a") == {"gpu": 2.0, "site": "a"}


def test_the_next_hub_gives_engines_what_they_offered() -> None:
    before = World(store=DurableStore())
    for uuid in ("a", "b", "c"):
        before.engine(uuid, offers={"gpu": 2} if uuid != "c" else None)
    before.query("tag_request", {"engine": "a", "tags": {"site": "a"}})
    before.hub.lose_engine(before.hub.engines.by_ident[b"b"], "heart")
    saved = before.hub.parts.offers.saved()
    assert saved == {"a": {"gpu": 2.0, "site": "a"}, "b": {"gpu": 2.0}}
    after = crashed(before, remembered={1: "b"})
    after.hub.parts.offers.restore(saved | {"c": {"gpu": -1}, "unknown": {"gpu": 1}})
    assert offers(after, "a") == {"gpu": 2.0, "site": "a"}
    assert offers(after, "c") == {}
    assert [engine.offers for engine in after.hub.engines.gone] == [parse_needs("offers", {"gpu": 2})]
    assert after.hub.parts.offers.saved() == saved


# Explanations


def test_each_engine_is_explained() -> None:
    it = World()
    it.hub.parts.policies.add({"name": "low", "priority": -3})
    for uuid in ("a", "b"):
        it.engine(uuid)
    running = [it.submit(), it.submit()]
    msg_id = it.submit(targets=["b"])
    found = it.query("explain_request", {"msg_id": msg_id})
    assert (found["status"], found["state"], found["msg_id"]) == ("ok", "queued", msg_id)
    assert (found["rules"], found["policies"]) == ({"priority": -3}, ["low"])
    assert (found["attempts"], found["deaths"]) == (0, [])
    assert found["why"].startswith("it may run only on its targets: 1")
    assert [(each["id"], each["uuid"], each["may"], each["word"]) for each in found["engines"]] == [
        (0, "a", False, "not_a_target"),
        (1, "b", False, "full"),
    ]
    assert found["engines"][0]["text"] == "is not among its targets"
    found = it.query("explain_request", {"msg_id": running[0]})
    assert (found["state"], found["attempts"]) == ("running", 1)
    assert [each["may"] for each in found["engines"]] == [True, False]


def test_why_a_task_with_rules_waits() -> None:
    it = World()
    it.engine("a", offers={"site": "a"})
    it.engine("b")
    it.hub.tasks.scheduler.drain(it.hub.tasks.scheduler.workers[b"b"])

    def why(msg_id: str) -> Any:
        return it.query("explain_request", {"msg_id": msg_id})["why"]

    nowhere = it.submit(rules={"needs": {"gpu": 1}})
    assert why(nowhere) == "it needs gpu=1, which no engine offers, even when it is idle"
    runs, low = it.submit(), it.submit(rules={"priority": -1})
    assert why(runs) is None
    busy = "no free engine: the engines that may run it are busy, with 1 task each (setting hwm); 2 tasks are queued"
    assert why(low) == f"these engines are drained: 1; {busy}, 1 of them with a higher priority than -1"
    it.query("tag_request", {"engine": "a", "tags": {"gpu": 1}})
    assert why(nowhere) == f"these engines lack what it needs (gpu=1): 1; {busy}"


def test_why_a_paused_task_waits() -> None:
    it = World()
    it.engine("a")
    msg_id = it.submit(rules={"max_attempts": 3, "retry_pause": 30})
    for attempt, seconds in ((1, 30), (2, 60)):
        [(_, request)] = it.take("task_out")
        it.answer("a", request, error_content("ValueError", "no"))
        expected = f"attempt {attempt} did not succeed; the next begins after a pause of {seconds} s (rule retry_pause)"
        found = it.query("explain_request", {"msg_id": msg_id})
        assert (found["state"], found["why"]) == ("paused", expected)
        pass_time(it, seconds)


@pytest.mark.parametrize(
    ("content", "told"),
    [({"msg_id": "x"}, "x is no load-balanced task, or has finished, or is unknown"), ({}, "msg_id must be a text")],
)
def test_what_cannot_be_explained(content: dict[str, Any], told: str) -> None:
    reply = World().query("explain_request", content)
    assert reply["status"] == "error"
    assert told in reply["evalue"]


def test_a_task_that_is_not_on_disk_yet_is_explained() -> None:
    it = World(store=DurableStore(auto=False), strict=True)
    it.engine("a")
    msg_id = it.submit()
    found = it.query("explain_request", {"msg_id": msg_id})
    assert (found["state"], found["engines"]) == ("recording", [])
    assert found["why"].startswith("it is being written to disk")


def test_a_task_that_all_engines_refuse_says_so_and_fails_after_the_limit() -> None:
    world = World(unmet_timeout=60)
    world.engine("a")
    msg_id = world.submit()
    [(_, request)] = world.take("task_out")
    unmet = {"status": "error", "ename": "UnmetDependency", "evalue": "", "traceback": []}
    world.answer("a", request, unmet, dependencies_met=False)
    why = world.query("details_request", {"msg_ids": [msg_id]})["details"][msg_id]["why"]
    assert "it has a functional dependency that no engine meets: all engines have refused it" in why
    [(_, seconds, call)] = [timer for timer in world.host.timers if not timer[0].cancelled]
    assert seconds == 60
    call()
    [(_, answer)] = world.take("task_in")
    assert world.content(answer)["ename"] == "ImpossibleDependency"
    assert "no engine could run the task for 60 s (setting unmet_timeout)" in world.content(answer)["evalue"]
