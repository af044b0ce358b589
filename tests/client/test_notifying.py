"""Which engines a client knows, when lists and notifications come in any order."""

from __future__ import annotations

from trio_hub.client.notifying import Engines


def notify(engines: Engines, verb: str, engine_id: int, uuid: str) -> None:
    engines.publish_untrusted(f"{verb}_notification", {"id": engine_id, "uuid": uuid})


def test_a_list_says_nothing_of_engines_that_were_heard_of_later() -> None:
    engines = Engines()
    engines.replace({0: "a", 1: "b"}, engines.heard)
    heard = engines.heard
    notify(engines, "unregistration", 0, "a")
    notify(engines, "registration", 2, "c")
    engines.replace({0: "a", 1: "b", 3: "d"}, heard)
    assert engines.uuids == {1: "b", 2: "c", 3: "d"}
    engines.replace({1: "b"}, engines.heard)
    assert engines.uuids == {1: "b"}


def test_two_lists_on_their_way() -> None:
    engines = Engines()
    first = engines.heard
    notify(engines, "registration", 0, "a")
    second = engines.heard
    notify(engines, "registration", 1, "b")
    engines.replace({}, first)
    assert engines.uuids == {0: "a", 1: "b"}
    engines.replace({0: "a"}, second)
    assert engines.uuids == {0: "a", 1: "b"}
    engines.replace({0: "a"}, engines.heard)
    assert engines.uuids == {0: "a"}
