"""Where the rules of a task come from: its metadata, its label if it is a dict, and the policies of the hub."""

from __future__ import annotations

import json
import sys
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from ipyparallel.serialize import pack_apply_message

from trio_hub.errors import WireError
from trio_hub.hub.policies import MAX_KEY, REMEMBERED, Policies
from trio_hub.records import NullStore
from trio_hub.schedulers.policy import Policy, parse_policy
from trio_hub.schedulers.rules import NO_RULES, RULE_NAMES, parse_rules

from .durable import DurableStore, crashed
from .test_cost import Calls
from .world import Peer, World

NIGHT = {"name": "night", "label": "night-*", "priority": -5, "max_attempts": 3}
ALL = {"name": "all", "priority": 1, "max_runtime": 60.0}


def world(*tables: dict[str, Any], **settings: Any) -> World:
    return World(policies=[parse_policy(table) for table in tables], **settings)


def applied(it: World, msg_id: str) -> tuple[dict[str, Any], tuple[str, ...]]:
    """Return the rules of a queued task that are not the defaults, and the policies that have set some of them."""
    task = it.hub.tasks.scheduler.tasks[msg_id]
    return task.rules.as_dict(), task.policies


def fit(value: int) -> int:
    return value


# Where rules come from


def test_a_task_says_its_rules_in_its_metadata() -> None:
    it = World()
    msg_id = it.submit(rules={"priority": 5, "needs": {"gpu": 1}, "unknown": 1})
    assert applied(it, msg_id) == ({"priority": 5, "needs": {"gpu": 1.0}}, ())
    assert it.hub.tasks.scheduler.tasks[it.submit(rules={})].rules is NO_RULES
    assert it.hub.tasks.scheduler.tasks[it.submit(rules={"priority": None})].rules is NO_RULES


def test_a_stock_client_says_them_in_a_dict_as_label() -> None:
    it = World()
    msg_id = it.submit(Peer("stock", username="ada"), label={"run": 7, "priority": 5, "retry_on": ["death"]})
    assert applied(it, msg_id) == ({"priority": 5, "retry_on": ["death"]}, ())
    assert it.record(msg_id)["label"] == {"run": 7, "priority": 5, "retry_on": ["death"]}
    assert it.hub.tasks.scheduler.tasks[it.submit(label={"run": 7})].rules is NO_RULES
    assert it.hub.tasks.scheduler.tasks[it.submit(label="priority")].rules is NO_RULES


def test_later_places_fill_what_earlier_ones_leave_open() -> None:
    it = world(
        {"name": "first", "priority": 1, "max_attempts": 1, "grace": 1}, {"name": "second", "grace": 2, "weight": 2}
    )
    msg_id = it.submit(rules={"priority": 3}, label={"priority": 2, "max_attempts": 2})
    said = {"priority": 3, "max_attempts": 2, "grace": 1.0, "weight": 2.0}
    assert applied(it, msg_id) == (said, ("first", "second"))
    assert applied(it, it.submit(rules={"grace": 5, "weight": 5}, label={"priority": 2, "max_attempts": 2}))[1] == ()


@pytest.mark.parametrize(
    ("metadata", "told"),
    [
        ({"rules": {"priority": "high"}}, "priority is 'high': it must be a whole number from -1000 to 1000"),
        ({"rules": [1]}, "rules is '[1]': it must be a mapping of rules to values"),
        ({"label": {"needs": 3}}, "needs is '3': it must be a mapping of at most 50 names to amounts or tags"),
        ({"label": {"max_runtime": -1}}, "max_runtime is '-1': it must be a number of seconds"),
    ],
)
def test_a_wrong_rule_is_refused_with_its_name(metadata: dict[str, Any], told: str) -> None:
    it = world(ALL)
    for _ in range(2):
        it.submit(**metadata)
        [reply] = it.replies("task_in")
        assert reply["status"] == "error"
        assert told in reply["evalue"]
    assert not it.hub.tasks.scheduler.tasks
    assert not it.hub.notices.internal_errors


# Policies


def test_a_policy_gives_rules_to_the_tasks_that_match() -> None:
    it = world(
        NIGHT, {"name": "fit", "function": "fit", "needs": {"gpu": 1}}, {"name": "ada", "user": "ada", "weight": 3}
    )
    call = tuple(bytes(buffer) for buffer in pack_apply_message(fit, (1,), {}))
    night = ({"priority": -5, "max_attempts": 3}, ("night",))
    for _ in range(2):
        assert applied(it, it.submit(label="night-7")) == night
        assert applied(it, it.submit(label="day-7")) == ({}, ())
        assert applied(it, it.submit(buffers=call)) == ({"needs": {"gpu": 1.0}}, ("fit",))
        both = applied(it, it.submit(Peer("c", username="ada"), buffers=call, label="night-7"))
        assert both[1] == ("night", "fit", "ada")
        assert both[0] == {"priority": -5, "max_attempts": 3, "needs": {"gpu": 1.0}, "weight": 3.0}


def test_a_client_is_matched_by_its_session() -> None:
    it = world({"name": "c", "client": "client-*", "priority": 2})
    assert applied(it, it.submit(Peer("client-1"))) == ({"priority": 2}, ("c",))
    assert applied(it, it.submit(Peer("other"))) == ({}, ())


def test_every_function_is_found_however_many_there_are() -> None:
    it = world({"name": "fit", "function": "fit", "priority": 2})
    for number in range(300):
        it.submit(buffers=(b"%d" % number,))
    call = tuple(bytes(buffer) for buffer in pack_apply_message(fit, (1,), {}))
    assert applied(it, it.submit(buffers=call)) == ({"priority": 2}, ("fit",))


def test_a_policy_of_default_values_is_named_all_the_same() -> None:
    it = world({"name": "plain", "priority": 0}, {"name": "all", "priority": 7})
    msg_id = it.submit()
    assert applied(it, msg_id) == ({}, ("plain",))
    assert it.record(msg_id)["metadata"]["trio_hub"] == {"rules": {}, "policies": ["plain"]}


def test_policies_are_listed_added_and_removed_while_the_hub_runs() -> None:
    it = world(NIGHT, ALL)
    before = it.submit(label="night-1")
    told = it.query("policy_request")["policies"]
    assert told == [{"source": "configuration"} | NIGHT, {"source": "configuration"} | ALL]
    high, late = {"name": "high", "priority": 9}, {"name": "late", "label": "night-*", "priority": 3}
    it.query("policy_request", {"action": "add", "policy": high})
    told = it.query("policy_request", {"action": "add", "policy": late})["policies"]
    assert [policy["name"] for policy in told] == ["late", "high", "night", "all"]
    assert it.host.state_changes == 2
    assert applied(it, it.submit(label="night-1"))[0]["priority"] == 3
    assert applied(it, it.submit())[0]["priority"] == 9
    assert applied(it, before)[0]["priority"] == -5, "rules are found once"
    for name in ("late", "night", "high"):
        told = it.query("policy_request", {"action": "remove", "name": name})["policies"]
    assert [policy["name"] for policy in told] == ["all"]
    assert applied(it, it.submit(label="night-1"))[0]["priority"] == 1


def test_an_added_policy_takes_the_place_of_one_of_the_configuration() -> None:
    it = world(NIGHT)
    policies = it.hub.parts.policies
    policies.add(NIGHT | {"priority": 7})
    policies.add(NIGHT | {"priority": 8})
    assert [(policy["priority"], policy["source"]) for policy in policies.listed()] == [(8, "added")]
    policies.remove("night")
    assert [(policy["priority"], policy["source"]) for policy in policies.listed()] == [(-5, "configuration")]
    policies.remove("night")
    assert policies.listed() == []
    assert not policies.active


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ({"action": "add"}, "WireError: a policy must have a name"),
        ({"action": "add", "policy": {"name": "n", "prio": 1}}, "WireError: policy 'n': 'prio' is no condition and no"),
        ({"action": "remove", "name": "x"}, "there is no policy 'x'; the policies are: night"),
        ({"action": "burn"}, "ValueError: the action must be list, add or remove, not 'burn'"),
    ],
)
def test_a_wrong_query_is_refused_and_changes_nothing(content: dict[str, Any], told: str) -> None:
    it = world(NIGHT)
    reply = it.query("policy_request", content)
    assert reply["status"] == "error"
    assert told in f"{reply['ename']}: {reply['evalue']}"
    assert it.host.state_changes == 0
    assert len(it.query("policy_request")["policies"]) == 1


def test_there_is_a_limit_of_added_policies(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trio_hub.hub.policies.MAX_POLICIES", 2)
    policies = World().hub.parts.policies
    for name in ("a", "b", "a"):
        policies.add({"name": name, "priority": 1})
    with pytest.raises(WireError, match="at most 2 policies can be added"):
        policies.add({"name": "c", "priority": 1})


def test_policies_of_an_earlier_hub_are_added_again() -> None:
    before = World()
    before.hub.parts.policies.add(NIGHT)
    before.hub.parts.policies.add({"name": "high", "priority": 9})
    after = world(ALL)
    after.hub.parts.policies.restore([*before.hub.parts.policies.added, {"name": "wrong"}, 3])
    assert [policy["name"] for policy in after.hub.parts.policies.listed()] == ["high", "night", "all"]


odd = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.just("huge").map(lambda _: 10**5000)
    | st.floats()
    | st.text(max_size=3),
    lambda inner: (
        st.lists(inner, max_size=2)
        | st.dictionaries(st.sampled_from([*sorted(RULE_NAMES), "name", "label", "user", "", "*"]), inner, max_size=4)
    ),
    max_leaves=6,
)


@given(odd, odd, odd)
@pytest.mark.property
def test_whatever_is_said_a_task_is_queued_or_refused(rules: Any, label: Any, policy: Any) -> None:
    it = world(NIGHT)
    messages = [("policy_request", {"action": "add", "policy": policy, "name": rules}, it.hub.dispatch_query)]
    messages += [("policy_request", {"action": rules, "name": label}, it.hub.dispatch_query)]
    messages += [("tag_request", {"engine": rules, "tags": label, "remove": policy}, it.hub.dispatch_query)]
    messages += [("registration_request", {"uuid": "a", "offers": label}, it.hub.dispatch_query)]
    for msg_type, content, dispatch in messages:
        dispatch([it.client.ident, *message(it.client, msg_type, {}, content)])
        assert len(it.take("query")) == 1
    frames = [it.client.ident, *message(it.client, "apply_request", {"rules": rules, "label": label}, {})]
    it.hub.dispatch_monitor_traffic("task_in", frames)
    assert len(it.hub.tasks.scheduler.tasks) + len(it.take("task_in")) == 1
    assert not it.hub.notices.internal_errors


def message(client: Peer, msg_type: str, metadata: Any, content: Any) -> list[Any]:
    """Return a message with any metadata and content, as Python's json module writes them."""
    digits = sys.get_int_max_str_digits()
    sys.set_int_max_str_digits(0)
    try:
        written = [json.dumps(part).encode() for part in (metadata, content)]
    finally:
        sys.set_int_max_str_digits(digits)
    header = client.session.packer.pack(client.session.new_header(msg_type))
    return client.session.seal([header, b"{}", *written])


# What it costs


class CountingPolicy(Policy):
    asked = 0

    def matches(self, label: Any, function: str, client: str, user: str) -> bool:
        CountingPolicy.asked += 1
        return super().matches(label, function, client, user)


def test_each_policy_is_asked_once_for_each_kind_of_task() -> None:
    policies = [CountingPolicy(str(number), label=f"night-{number}", said={"priority": 1}) for number in range(100)]
    it = World(policies=policies)
    CountingPolicy.asked = 0
    for _ in range(20):
        it.submit(label="night-1")
        it.submit(Peer("another"), label="night-1", retries=2)
        it.submit(label="night-2")
    assert CountingPolicy.asked == 200


def test_what_is_remembered_is_bounded() -> None:
    it = world(NIGHT)
    policies = it.hub.parts.policies
    for number in range(REMEMBERED + 50):
        it.submit(label=f"day-{number}")
    assert len(policies._remembered) == REMEMBERED
    assert applied(it, it.submit(label="night-" + "x" * MAX_KEY)) == ({"priority": -5, "max_attempts": 3}, ("night",))
    assert len(policies._remembered) == REMEMBERED


def calls_to_submit(it: World, **metadata: Any) -> int:
    frames = [it.client.ident, *it.client.session.write("apply_request", {}, metadata=metadata, buffers=(b"f",))]
    calls = Calls()
    with calls.counted():
        it.hub.dispatch_monitor_traffic("task_in", frames)
    return calls.count


def test_no_policies_and_no_rules_cost_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*args: Any) -> None:
        raise AssertionError

    monkeypatch.setattr(Policies, "applied_to", fail)
    it = World(store=NullStore())
    it.engine("a")
    for label in (None, "", "night"):
        it.submit(label=label)
    assert len(it.hub.tasks.scheduler.tasks) == 3
    assert not it.hub.notices.internal_errors


def test_a_policy_costs_a_task_few_calls_and_more_policies_no_more() -> None:
    tables = [{"name": f"p{number}", "function": "fit", "label": f"l{number}", "priority": 1} for number in range(300)]
    none, few, many = World(store=NullStore()), world(tables[0], store=NullStore()), world(*tables, store=NullStore())
    for it in (none, few, many):
        it.engine("a")
        it.submit(label="l0")
        it.submit(label="l0")
    plain, one, all_of_them = (calls_to_submit(it, label="l0") for it in (none, few, many))
    assert one <= plain + 20
    assert all_of_them == one


# Records


@pytest.mark.parametrize("packer", ["json", "msgpack"])
def test_what_applied_is_in_the_record_and_not_in_the_message(packer: str) -> None:
    it = world(NIGHT, packer=packer)
    msg_id = it.submit(label="night-1", rules={"needs": {"gpu": 2}})
    expected = {"rules": {"priority": -5, "max_attempts": 3, "needs": {"gpu": 2.0}}, "policies": ["night"]}
    metadata = {"label": "night-1", "rules": {"needs": {"gpu": 2}}}
    assert it.record(msg_id)["metadata"] == metadata | {"trio_hub": expected}
    found = it.query("db_request", {"query": {"metadata.trio_hub.rules.priority": {"$lt": 0}}, "keys": ["label"]})
    assert [record["msg_id"] for record in found["records"]] == [msg_id]
    engine = it.engine("a", offers={"gpu": 2})
    [(_, request)] = it.take("task_out")
    assert it.reader.packer.unpack_untrusted(request.raw_metadata) == metadata
    it.answer("a", request)
    assert engine.completed == 1
    assert it.record(msg_id)["metadata"]["trio_hub"] == expected


def test_attempts_are_in_the_record_when_there_are_several() -> None:
    it = World()
    it.engine("a")
    msg_id = it.submit(retries=2)
    fails = {"status": "error", "ename": "ValueError", "evalue": "", "traceback": []}
    for attempt in (1, 2):
        [(_, request)] = it.take("task_out")
        assert it.query("details_request", {"msg_ids": [msg_id]})["details"][msg_id]["attempts"] == attempt
        it.answer("a", request, fails)
    [(_, request)] = it.take("task_out")
    assert "trio_hub" not in it.reader.packer.unpack_untrusted(request.raw_metadata)
    it.answer("a", request)
    record = it.record(msg_id)
    assert record["metadata"] == {"retries": 2, "trio_hub": {"rules": {}, "policies": [], "attempts": 3}}
    assert it.query("details_request", {"msg_ids": [msg_id]})["details"][msg_id]["attempts"] is None


def test_a_resubmitted_task_gets_its_own_rules_and_the_policies_of_now() -> None:
    it = world(NIGHT)
    it.engine("a")
    msg_id = it.submit(label="night-1", rules={"weight": 2})
    [(_, request)] = it.take("task_out")
    it.answer("a", request)
    it.hub.parts.policies.remove("night")
    it.hub.parts.policies.add({"name": "late", "priority": 4})
    again = it.query("resubmit_request", {"msg_ids": [msg_id]})["resubmitted"][msg_id]
    assert applied(it, again) == ({"priority": 4, "weight": 2.0}, ("late",))
    [(_, request)] = it.take("task_out")
    assert it.reader.packer.unpack_untrusted(request.raw_metadata) == {"label": "night-1", "rules": {"weight": 2}}


@pytest.mark.parametrize("ename", ["ValueError", "OSError"])
def test_the_name_of_an_exception_decides_on_a_retry(ename: str) -> None:
    it = World()
    it.engine("a")
    it.submit(rules={"max_attempts": 2, "retry_on": ["ValueError"]})
    [(_, request)] = it.take("task_out")
    it.answer("a", request, {"status": "error", "ename": ename, "evalue": "", "traceback": []})
    assert len(it.take("task_out")) == (ename == "ValueError")
    assert len(it.replies("task_in")) == (ename == "OSError")


def test_a_task_with_rules_that_is_read_back_from_disk_is_sent_as_it_came() -> None:
    it = world(NIGHT, store=DurableStore(), queue_memory=1)
    engine = it.engine("a")
    first = it.submit(label="night-1")
    second = it.submit(label="night-2")
    task = it.hub.tasks.scheduler.tasks[second]
    assert task.frames is None
    assert isinstance(it.hub.store, DurableStore)
    it.hub.store.commit()
    [(_, request)] = it.take("task_out")
    assert request.header.msg_id == first
    it.answer("a", request)
    it.answer_questions()
    [(_, request)] = it.take("task_out")
    assert request.header.msg_id == second
    assert it.reader.packer.unpack_untrusted(request.raw_metadata) == {"label": "night-2"}
    assert engine.worker is not None
    assert list(engine.worker.running) == [second]


def test_rules_of_a_task_stay_what_they_were_at_its_submission() -> None:
    assert parse_rules({"priority": 0}) is NO_RULES
    it = world(NIGHT)
    msg_id = it.submit(label="night-1")
    it.hub.parts.policies.remove("night")
    assert applied(it, msg_id) == ({"priority": -5, "max_attempts": 3}, ("night",))


# After a restart


def durable(*tables: dict[str, Any], **settings: Any) -> World:
    return world(*tables, store=DurableStore(), **settings)


@pytest.mark.parametrize("packer", ["json", "msgpack"])
def test_the_next_hub_goes_by_the_rules_that_applied_at_submission(packer: str) -> None:
    before = durable(NIGHT, packer=packer)
    msg_id = before.submit(label="night-1", rules={"needs": {"gpu": 1, "site": "a"}, "retry_on": ["death"]})
    plain = before.submit()
    after = crashed(before, policies=[parse_policy(ALL)])
    needs = {"needs": {"gpu": 1.0, "site": "a"}, "retry_on": ["death"]}
    assert applied(after, msg_id) == ({"priority": -5, "max_attempts": 3} | needs, ("night",))
    assert applied(after, plain) == ({}, ())
    assert after.record(msg_id)["metadata"]["trio_hub"]["policies"] == ["night"]
    for uuid in ("a", "b"):
        after.engine(uuid, offers={"gpu": 1, "site": "a"})
    after.answer_questions()
    sent = {request.header.msg_id: request for _, request in after.take("task_out")}
    request = sent[msg_id]
    metadata = after.reader.packer.unpack_untrusted(request.raw_metadata)
    assert metadata.pop("attempt")
    assert metadata == {
        "label": "night-1",
        "rules": {"needs": {"gpu": 1, "site": "a"}, "retry_on": ["death"]},
        "retries": 0,
    }


def test_attempts_and_deaths_are_counted_on() -> None:
    before = durable()
    for uuid in ("a", "b"):
        before.engine(uuid)
    msg_id = before.submit(rules={"max_attempts": 5, "max_deaths": 2})
    [(_, request)] = before.take("task_out")
    fails = {"status": "error", "ename": "ValueError", "evalue": "", "traceback": []}
    before.answer("a", request, fails)
    [(_, request)] = before.take("task_out")
    assert request.idents[0] == b"b"
    engine = before.hub.engines.by_ident[b"b"]
    before.hub.lose_engine(engine, "died")
    before.hub.handle_stranded(engine)  # the task goes to the first engine once more
    task = before.hub.tasks.scheduler.tasks[msg_id]
    assert (task.attempts, task.deaths) == (3, (b"b",))
    after = crashed(before)
    task = after.hub.tasks.scheduler.tasks[msg_id]
    assert task.worker is not None
    assert (task.attempts, task.deaths, task.rules.max_deaths) == (3, (b"b",), 2)
    again = crashed(after, engines={})
    task = again.hub.tasks.scheduler.tasks[msg_id]
    assert (task.attempts, task.deaths) == (3, (b"b",))
    engine = again.hub.engines.by_ident[b"a"]
    again.hub.lose_engine(engine, "heart")
    again.hub.handle_stranded(engine)
    [reply] = again.replies("task_in")
    assert "lost with 2 engines (b, a)" in reply["evalue"]


def test_the_first_attempt_counts_though_nobody_has_noted_it() -> None:
    before = durable()
    before.engine("a")
    msg_id, queued = before.submit(), before.submit()
    after = crashed(before)
    assert after.hub.tasks.scheduler.tasks[msg_id].attempts == 1
    assert after.hub.tasks.scheduler.tasks[queued].attempts == 0
