"""The contract suite, which every backend passes."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trio_hub.errors import QueryError
from trio_hub.records import RECORD_KEYS, MemoryStore, Query, Store, parse_query
from trio_hub.records.output import MAX_OUTPUT, NOT_RECORDED

from ..records import oracle
from ..records.strategies import many_records, packed, queries
from .contract import BACKENDS, Opener, at, finished, make
from .sequences import Step, steps, take


@pytest.fixture(params=BACKENDS, scope="module")
def opener(request: pytest.FixtureRequest) -> Opener:
    return BACKENDS[request.param](request)


@pytest.fixture
async def store(opener: Opener) -> AsyncIterator[Store]:
    async with opener() as opened:
        yield opened


async def found(store: Store, query: object) -> list[str]:
    return [values["msg_id"] for values in await store.find(parse_query(query), ["msg_id"])]


# Writing, and reading what was written


async def test_what_was_added_is_there(store: Store) -> None:
    values: dict[str, Any] = {
        "header": {"msg_type": "apply_request", "é": [1.5, None, True]},
        "buffers": [b"one", b""],
        "submitted": at(0),
        "client_uuid": "c",
        "queue": "task",
        "label": {"any": ["thing"]},
        "stdout": "日本\n",
    }
    store.add(make("a", **values))
    (record,) = (await store.get(["a", "unknown"])).values()
    everything = dict.fromkeys(RECORD_KEYS) | {"stderr": ""} | values | {"msg_id": "a"}
    assert record.as_dict() == everything
    assert await store.find(Query.everything(), RECORD_KEYS) == [everything]


async def test_a_record_is_kept_as_it_was_when_it_was_added(store: Store) -> None:
    record = make("a", queue="task")
    store.add(record)
    record.queue = "mux"
    record.completed = at(9)
    assert await found(store, {"queue": "task", "completed": None}) == ["a"]


async def test_a_record_that_was_read_does_not_change_later(store: Store) -> None:
    store.add(make("a", queue="task"))
    before = (await store.get(["a"]))["a"]
    store.update("a", {"queue": "mux"})
    store.append("a", "stdout", "more")
    assert (before.queue, before.stdout) == ("task", "")


async def test_updates_change_what_they_name(store: Store) -> None:
    store.add(make("a", queue="task", content={"x": 1}))
    store.update("a", {"result_content": b'{"status": "ok"}', "completed": at(3), "result_buffers": (b"1",)})
    store.update("a", {"queue": None})
    record = (await store.get(["a"]))["a"]
    assert (record.queue, record.content, record.result_content) == (None, b'{"x": 1}', b'{"status": "ok"}')
    assert record.completed == at(3)
    assert [bytes(buffer) for buffer in record.result_buffers or ()] == [b"1"]


@pytest.mark.parametrize("key", ["msg_id", "colour"])
async def test_an_update_of_what_cannot_be_updated_changes_nothing(store: Store, key: str) -> None:
    store.add(make("a"))
    with pytest.raises(AttributeError, match=key):
        store.update("a", {"queue": "task", key: "b"})
    assert await found(store, {"queue": None}) == ["a"]


async def test_output_grows(store: Store) -> None:
    store.add(make("a", stdout="one "))
    store.append("a", "stdout", "two ")
    assert await found(store, {"stdout": "one two "}) == ["a"]
    for piece in "thrée":
        store.append("a", "stdout", piece)
    store.append("a", "stderr", "!")
    record = (await store.get(["a"]))["a"]
    assert (record.stdout, record.stderr) == ("one two thrée", "!")
    store.append("a", "stdout", "?")
    store.update("a", {"stdout": "anew"})
    store.append("a", "stdout", ".")
    (values,) = await store.find(Query.where(msg_id="a"), ["stdout", "stderr"])
    assert values == {"msg_id": "a", "stdout": "anew.", "stderr": "!"}


async def test_of_much_output_the_beginning_is_kept(store: Store) -> None:
    part = "x" * (MAX_OUTPUT // 4)
    store.add(make("a"))
    store.add(make("b"))
    for _ in range(4):
        store.append("a", "stdout", part)
    record = (await store.get(["a"]))["a"]
    assert len(record.stdout) == MAX_OUTPUT
    for text in ("y", part, "z"):
        store.append("a", "stdout", text)
    store.append("a", "stderr", "!")
    store.append("b", "stderr", part + part + part + "ende" + part)
    records = await store.get(["a", "b"])
    assert records["a"].stdout == 4 * part + NOT_RECORDED
    assert (records["a"].stderr, records["b"].stdout) == ("!", "")
    assert records["b"].stderr == 3 * part + "ende" + part[4:] + NOT_RECORDED
    store.add(make("a"))
    store.append("a", "stdout", "anew")
    store.discard("b")
    store.add(make("b"))
    store.append("b", "stderr", "anew")
    records = await store.get(["a", "b"])
    assert (records["a"].stdout, records["b"].stderr) == ("anew", "anew")


async def test_only_output_can_be_appended_to(store: Store) -> None:
    store.add(make("a", queue="task"))
    with pytest.raises(AttributeError, match="queue"):
        store.append("a", "queue", "s")


async def test_writing_to_an_unknown_record_changes_nothing(store: Store) -> None:
    store.update("a", {"queue": "task"})
    store.append("a", "stdout", "x")
    assert await store.history() == []


async def test_a_record_added_again_replaces_the_first_and_arrives_anew(store: Store) -> None:
    for msg_id in ("a", "b"):
        store.add(make(msg_id, queue="task", stdout="old", submitted=at(0)))
    store.append("a", "stdout", "er")
    store.add(make("a", queue="mux", submitted=at(0)))
    assert await store.history() == ["b", "a"]
    assert (await store.get(["a"]))["a"].stdout == ""
    assert await found(store, {"queue": "task"}) == ["b"]


async def test_what_find_gives_is_the_callers_own(store: Store) -> None:
    store.add(make("a", header={"x": [1]}, label={"y": [2]}))
    (values,) = await store.find(Query.everything())
    values["header"]["x"].append(2)
    values["label"]["y"].append(3)
    assert await found(store, {"header.x": [1], "label.y": [2]}) == ["a"]


@pytest.mark.parametrize(
    ("text", "seen"),
    [(b"{broken", "{broken"), (b"\xff", "\\xff"), (b"[" * 100_000, "[" * 100_000), (b"[1]", [1])],
    ids=["no JSON", "no UTF-8", "too deep", "no object"],
)
async def test_content_that_is_not_what_it_should_be_spoils_no_query(store: Store, text: bytes, seen: object) -> None:
    store.add(make("a"))
    store.update("a", {"content": text, "submitted": at(0)})
    store.add(make("b", content={"code": "1"}, submitted=at(1)))
    assert [values["content"] for values in await store.find(Query.everything())] == [seen, {"code": "1"}]
    assert await found(store, {"content.code": "1"}) == ["b"]
    assert await found(store, {"content": {"$exists": True}}) == ["a", "b"]


# Keys


async def test_keys_are_chosen(store: Store) -> None:
    store.add(make("a", queue="task", buffers=[b"x"]))
    assert await store.find(Query.everything(), ["queue", "queue"]) == [{"msg_id": "a", "queue": "task"}]
    assert await store.find(Query.everything(), []) == [{"msg_id": "a"}]
    (values,) = await store.find(Query.everything())
    assert set(values) == set(RECORD_KEYS) - {"buffers", "result_buffers"}


async def test_unknown_keys_are_refused(store: Store) -> None:
    with pytest.raises(QueryError, match=r"'header\.date'"):
        await store.find(Query.everything(), ["header.date"])


# Order


async def test_history_is_by_submission_then_arrival_and_without_last(store: Store) -> None:
    store.add(make("none1"))
    store.add(make("late", submitted=at(5)))
    store.add(make("early1", submitted=at(1)))
    store.add(make("none2"))
    store.add(make("early2", submitted=at(1)))
    expected = ["early1", "early2", "late", "none1", "none2"]
    assert await store.history() == expected
    assert await found(store, {}) == expected
    store.update("late", {"submitted": at(1)})
    store.update("none1", {"submitted": at(2)})
    assert await store.history() == ["late", "early1", "early2", "none1", "none2"]
    store.add(make("last", submitted=at(9)))
    assert await store.history() == ["late", "early1", "early2", "none1", "last", "none2"]


async def test_recent_is_the_end_of_the_history_backwards(store: Store) -> None:
    assert (await store.recent(3), await store.count()) == ([], 0)
    note = make("note", submitted=at(5))
    note.note = True
    store.add(note)
    for msg_id, moment in (("none1", None), ("late", 5), ("early", 1), ("gone", 2), ("none2", None), ("again", 1)):
        store.add(make(msg_id, submitted=None if moment is None else at(moment)))
    for changed in (False, True):
        if changed:  # all kinds of changes that are not written yet
            store.update("late", {"submitted": at(0)})
            store.update("unknown", {"submitted": at(0)})
            store.discard("gone")
            store.add(make("early", submitted=at(1), completed=at(2)))
            store.update("none2", {"completed": at(9)})
            store.add(make("last", submitted=at(9)))
        for flushed in (False, True):
            if flushed:
                await store.flush()
            # a copy of the records in memory is not sorted by `recent`, so `history` comes last
            recent = await store.recent(9)
            pages = {before: await store.recent(2, before) for before in recent}
            count = await store.count()
            history = await store.history()
            assert recent == history[::-1]
            assert await store.recent(1) == history[-1:]
            assert count == len(history)
            for place, before in enumerate(history):
                assert pages[before] == history[:place][::-1][:2]
    assert history == ["late", "again", "early", "last", "none1", "none2"]
    for before in ("unknown", "note", "gone"):
        with pytest.raises(KeyError, match=before):
            await store.recent(1, before)


# Queries: what ipcontroller gets wrong


@pytest.fixture
def tasks(store: Store) -> Store:
    """Tasks 0 to 5: even ones by engine "e0", odd ones by "e1", the last two unfinished."""
    for number in range(6):
        completed = {"completed": at(number + 0.5)} if number < 4 else {}
        store.add(
            make(
                str(number),
                submitted=at(number),
                engine_uuid=f"e{number % 2}",
                queue="task" if number < 3 else "mux",
                metadata={"number": number, "tags": ["all", f"t{number}"]},
                **completed,
            )
        )
    return store


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        pytest.param({"engine_uuid": "e0", "queue": "task"}, "02", id="several exact keys: all count"),
        pytest.param({"queue": "task", "engine_uuid": "e0", "completed": None}, "", id="the last as well"),
        pytest.param({"metadata.number": {"$gt": 3}}, "45", id="$gt is greater than"),
        pytest.param({"metadata.number": {"$lt": 2}}, "01", id="$lt is less than"),
        pytest.param({"metadata.number": {"$gt": 1, "$lte": 3}}, "23", id="several operators"),
        pytest.param({}, "012345", id="nothing asked"),
        pytest.param({"msg_id": {"$in": []}}, "", id="in nothing"),
        pytest.param({"msg_id": {"$nin": []}}, "012345", id="not in nothing"),
        pytest.param({"metadata.tags": {"$all": ["t3", "all"]}}, "3", id="$all in a list"),
        pytest.param({"queue": {"$all": ["mux"]}}, "345", id="$all in a scalar"),
        pytest.param({"metadata.tags": {"$all": []}}, "", id="$all of nothing"),
        pytest.param({"metadata.number": {"$mod": [3, 1]}}, "14", id="$mod"),
        pytest.param({"completed": {"$exists": True}}, "0123", id="$exists"),
        pytest.param({"completed": {"$exists": False}}, "45", id="$exists not"),
        pytest.param({"completed": None}, "45", id="None"),
        pytest.param({"completed": {"$ne": None}}, "0123", id="not None"),
        pytest.param({"completed": {"$gt": "2024-05-01T12:00:01Z"}}, "123", id="a date in JSON"),
        pytest.param({"completed": {"$lt": "2024-05-01T12:00:01"}}, "0", id="a date without a zone"),
        pytest.param({"submitted": {"$in": [None, "2024-05-01T14:00:02+02:00"]}}, "2", id="dates in a list"),
        pytest.param({"msg_id": {"$in": ["4", "1", "x", 7]}, "engine_uuid": "e1"}, "1", id="ids and more"),
        pytest.param({"metadata.tags.0": "all"}, "", id="paths do not lead through lists"),
        pytest.param({"metadata.number": {"$lt": "x"}}, "", id="a number is not less than a text"),
        pytest.param({"error.ename": {"$ne": "ValueError"}}, "012345", id="missing is unequal"),
        pytest.param({"error.ename": {"$nin": ["ValueError"]}}, "012345", id="missing is not in"),
        pytest.param({"engine_uuid": {"$glob": "?[!1]"}}, "024", id="$glob"),
    ],
)
async def test_queries(tasks: Store, query: object, expected: str) -> None:
    assert await found(tasks, query) == list(expected)


# Dropping


async def test_dropping_by_engine_spares_the_unfinished(tasks: Store) -> None:
    assert await tasks.drop(Query.where(engine_uuid="e0")) == 2
    assert await tasks.history() == ["1", "3", "4", "5"]
    assert await tasks.drop(parse_query({"msg_id": {"$in": ["1", "1", "4", "x"]}})) == 1
    assert await tasks.drop(Query.everything()) == 1
    assert await tasks.drop(Query.everything()) == 0
    assert list(await tasks.get(["0", "1", "4"])) == ["4"]
    tasks.update("4", {"completed": at(9)})
    assert await tasks.drop(Query.everything()) == 1
    assert await tasks.history() == ["5"]


async def test_a_dropped_record_stays_away(store: Store) -> None:
    store.add(finished("a", stdout="x"))
    await store.drop(Query.everything())
    store.update("a", {"queue": "task"})
    store.append("a", "stdout", "x")
    assert await store.get(["a"]) == {}


# Notes of the hub


async def test_notes_of_the_hub_are_not_for_users(store: Store) -> None:
    note = make("note", submitted=at(1), engine_uuid="e", buffers=[b"x"])
    note.note = True
    store.add(make("a", submitted=at(0), engine_uuid="e"))
    store.add(note)
    store.add(finished("b", submitted=at(2), engine_uuid="e"))
    for flushed in (False, True):
        if flushed:
            await store.flush()
        assert await store.history() == ["a", "b"]
        for query in (
            {},
            {"engine_uuid": "e"},
            {"msg_id": {"$in": ["note", "a", "b"]}},
            {"buffers": {"$exists": True}},
        ):
            assert set(await found(store, query)) <= {"a", "b"}
        assert await found(store, {"engine_uuid": {"$glob": "*"}}) == ["a", "b"]
        assert await found(store, {"msg_id": "note"}) == []
        assert list(await store.get(["note", "a"])) == ["a"]
        assert set(await store.fetch(["note", "a", "unknown"])) == {"note", "a"}
        assert await store.drop(parse_query({"msg_id": "note"})) == 0
    assert await store.drop(Query.everything()) == 1
    (kept,) = await store.notes()
    assert (kept.msg_id, kept.note, [bytes(buffer) for buffer in kept.buffers or ()]) == ("note", True, [b"x"])
    assert "note" not in [record.msg_id for record in await store.unfinished()]
    with pytest.raises(AttributeError, match="note"):
        store.update("a", {"note": True})
    store.update("note", {"engine_uuid": "f"})
    assert (await store.fetch(["note"]))["note"].engine_uuid == "f"
    store.discard("note")
    await store.flush()
    assert await store.notes() == []
    assert await store.fetch(["note"]) == {}


async def test_a_note_can_become_a_task_and_a_task_a_note(store: Store) -> None:
    note = make("a")
    note.note = True
    for record, history, notes in ((make("a"), ["a"], 0), (note, [], 1), (make("a"), ["a"], 0)):
        store.add(record)
        assert await store.history() == history
        assert len(await store.notes()) == notes


async def test_flush_and_close(store: Store) -> None:
    store.add(make("a"))
    await store.flush()
    await store.aclose()
    await store.aclose()


# The same answers as the oracle's


@pytest.mark.property
@given(drawn=many_records(), query=queries())
async def test_find_agrees_with_the_oracle(opener: Opener, drawn: list[dict[str, Any]], query: dict[str, Any]) -> None:
    async with opener() as store:
        for values in drawn:
            store.add(packed(values))
        expected = [values for values in oracle.in_order(drawn) if oracle.matches(query, values)]
        # repr, since NaN is not equal to itself
        assert repr(await store.find(parse_query(query), RECORD_KEYS)) == repr(
            [{key: values[key] for key in RECORD_KEYS} for values in expected]
        )


@pytest.mark.property
@given(drawn=many_records(), query=queries(), data=st.data())
async def test_drop_agrees_with_the_oracle(
    opener: Opener, drawn: list[dict[str, Any]], query: dict[str, Any], data: st.DataObject
) -> None:
    async with opener() as store:
        for values in drawn:
            store.add(packed(values))
            if data.draw(st.booleans()):
                values["completed"] = data.draw(st.none() | st.just(at(7)))
                store.update(values["msg_id"], {"completed": values["completed"]})
        going = [values for values in drawn if values["completed"] and oracle.matches(query, values)]
        assert await store.drop(parse_query(query)) == len(going)
        expected = oracle.in_order(values for values in drawn if values not in going)
        assert await store.history() == [values["msg_id"] for values in expected]


@pytest.mark.property
@settings(max_examples=max(20, settings().max_examples // 3))
@given(steps=steps())
async def test_whatever_is_done_it_agrees_with_the_store_in_memory(opener: Opener, steps: list[Step]) -> None:
    oracle = MemoryStore()
    async with opener() as store:
        for step in [*steps, ("history",), ("find", {}), ("flush",), ("history",), ("find", {})]:
            await take(step, store, oracle)
