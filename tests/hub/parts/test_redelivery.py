from __future__ import annotations

import pytest

from trio_hub.hub.redelivery import Presumption, Redelivery
from trio_hub.records.record import TaskRecord

from ..durable import Notes


def sent_by_the_hub_before(*msg_ids: str) -> Redelivery:
    notes = Notes()
    notes.now = set(msg_ids)
    return Redelivery(Notes(notes))


def test_a_client_that_does_not_ask_has_the_result() -> None:
    redelivery = sent_by_the_hub_before("x")
    redelivery.presume_sent("x", "session")
    redelivery.asked_about("another", ["x"])
    assert redelivery.presumptions == {"x": Presumption.SENT}
    assert not redelivery.is_missed("x")
    assert redelivery.presumptions == {}


def test_a_client_that_asks_gets_it_once() -> None:
    redelivery = sent_by_the_hub_before("x")
    redelivery.presume_sent("x", "session")
    redelivery.asked_about("session", ["x", "y"])
    assert redelivery.is_missed("x")
    assert not redelivery.is_missed("x")
    assert redelivery.take_missed("session", [TaskRecord("x", client_uuid="session")]) == []


@pytest.mark.parametrize(("session", "missed"), [("session", ["x"]), ("another", [])])
def test_a_recorded_result_is_sent_again_to_its_own_client_once(session: str, missed: list[str]) -> None:
    redelivery = sent_by_the_hub_before("x")
    records = [TaskRecord(msg_id, client_uuid="session") for msg_id in "xy"]
    assert redelivery.take_missed(session, records) == missed
    assert redelivery.take_missed(session, records) == []


def test_without_notes_nothing_was_delivered() -> None:
    redelivery = Redelivery(None)
    redelivery.note("x")
    assert not redelivery.keeps_notes
    assert not redelivery.was_delivered("x")
