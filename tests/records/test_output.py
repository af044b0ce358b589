"""The limit for recorded output."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trio_hub.records import output
from trio_hub.records.output import NOT_RECORDED, OutputLimit


@pytest.mark.property
@given(limit=st.integers(0, 20), texts=st.lists(st.text("é", max_size=10)))
def test_what_is_recorded_is_the_beginning_and_then_the_note_once(limit: int, texts: list[str]) -> None:
    outputs = OutputLimit(limit)
    recorded = "".join(outputs.recorded("a", "stdout", text) for text in texts)
    printed = "".join(texts)
    assert recorded == (printed if len(printed) <= limit else printed[:limit] + NOT_RECORDED)
    assert outputs.recorded("a", "stderr", "") == ""
    assert outputs.recorded("b", "stdout", "x" * limit) == "x" * limit


def test_only_those_that_printed_last_are_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(output, "_REMEMBERED", 2)
    outputs = OutputLimit(1)
    for msg_id in ("a", "b", "a", "c"):
        outputs.recorded(msg_id, "stdout", "x")
    assert outputs.recorded("a", "stdout", "x") == ""
    assert outputs.recorded("b", "stdout", "x") == "x"


def test_only_output_is_output() -> None:
    with pytest.raises(AttributeError, match="queue"):
        OutputLimit().recorded("a", "queue", "x")
