"""Random sequences of calls of a store, for two stores that must give the same answers."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from trio_hub.records import RECORD_KEYS, Store, parse_query
from trio_hub.records.record import HUB_KEYS

from ..records.strategies import many_records, packed, queries, value_of

__all__ = ["Step", "steps", "take"]

# The name of a method of `Store`, and its arguments.
Step = tuple[Any, ...]

msg_ids = st.sampled_from(["a", "b", "task", "é", "m4"])


def keyed(key: str) -> st.SearchStrategy[tuple[str, Any]]:
    return st.tuples(st.just(key), value_of(key))


keys_and_values = st.sampled_from(sorted({*RECORD_KEYS} - {"msg_id"})).flatmap(keyed)


@st.composite
def steps(draw: st.DrawFn, *, failing: bool = False) -> list[Step]:
    """Draw the calls of a store; with ``failing`` also the steps ``("fail",)`` and ``("work",)``, for its database."""
    records = draw(many_records())
    drawn: list[Step] = [("add", values) for values in records]
    more: st.SearchStrategy[Step] = st.one_of(
        st.tuples(st.just("add"), st.sampled_from(records)) if records else st.nothing(),
        st.tuples(st.just("update"), msg_ids, keys_and_values),
        st.tuples(st.just("append"), msg_ids, st.sampled_from(["stdout", "stderr"]), st.sampled_from(["x", "é"])),
        st.tuples(st.just("discard"), msg_ids),
        st.tuples(st.sampled_from(["flush", "history", *(["fail", "work"] if failing else [])])),
        st.tuples(st.just("get"), st.lists(msg_ids, max_size=4)),
        st.tuples(st.just("find"), queries() | st.lists(msg_ids).map(lambda ids: {"msg_id": {"$in": ids}})),
        st.tuples(st.just("drop"), queries()),
    )
    drawn += draw(st.lists(more, max_size=15))
    return draw(st.permutations(drawn)) if draw(st.booleans()) else drawn


async def take(step: Step, store: Store, oracle: Store) -> None:
    """Make the same call of both stores, and check that they give the same answer."""
    match step:
        case "add", values:
            store.add(packed(values))
            oracle.add(packed(values))
        case "update", msg_id, (key, value):
            changes = {key: getattr(packed({"msg_id": msg_id, key: value}), key)}
            store.update(msg_id, changes)
            oracle.update(msg_id, changes)
            changes.clear()  # the dict is the caller's, so the stores must not depend on it
        case "append", msg_id, key, text:
            store.append(msg_id, key, text)
            oracle.append(msg_id, key, text)
        case "discard", msg_id:
            store.discard(msg_id)
            oracle.discard(msg_id)
        case ["flush"]:
            await store.flush()
        case ["history"]:
            history = await oracle.history()
            assert await store.history() == history
            assert await store.count() == await oracle.count() == len(history)
            for limit in (1, 3):
                for each in (store, oracle):
                    assert await each.recent(limit) == history[::-1][:limit]
                    for place, msg_id in enumerate(history):
                        assert await each.recent(limit, msg_id) == history[:place][::-1][:limit]
        case "get", asked:
            got, expected = await store.get(asked), await oracle.get(asked)
            assert got.keys() == expected.keys()
            for msg_id in got:
                values = got[msg_id].as_dict((*RECORD_KEYS, *HUB_KEYS))
                assert plain(values) == plain(expected[msg_id].as_dict((*RECORD_KEYS, *HUB_KEYS)))
        case "find", query:
            parsed = parse_query(query)
            found, expected_dicts = await store.find(parsed, RECORD_KEYS), await oracle.find(parsed, RECORD_KEYS)
            assert list(map(plain, found)) == list(map(plain, expected_dicts))
        case "drop", query:
            parsed = parse_query(query)
            assert await store.drop(parsed) == await oracle.drop(parsed)
        case _:
            raise AssertionError(step)


def plain(values: dict[str, Any]) -> str:
    """Return a text to compare, since NaN is not equal to itself, and buffers may have different types."""
    for key in ("buffers", "result_buffers"):
        if values[key] is not None:
            values[key] = list(map(bytes, values[key]))
    return repr(values)
