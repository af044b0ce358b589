"""Values are read from columns as they were written."""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trio_hub.databases import columns
from trio_hub.databases.columns import (
    SMALL,
    buffer_chunks,
    buffers_column,
    date_column,
    from_buffers,
    from_date,
    from_label,
    from_text,
    label_column,
    text_column,
)
from trio_hub.records.matching import same

from ..records.strategies import json_values

# every code point, the difficult ones often
any_texts = st.text(st.characters(codec=None) | st.sampled_from("\0\x01\\'x0\ud83d\ude00"))


@pytest.mark.property
@given(any_texts)
def test_texts_come_back(text: str) -> None:
    column = text_column(text)
    assert from_text(column) == text
    assert "\0" not in column
    assert column.encode().decode() == column


@pytest.mark.parametrize("text", ["", "task", "é日本😀", "a\nb\x02", "\\x01"])
def test_usual_texts_are_stored_as_they_are(text: str) -> None:
    assert text_column(text) == text


def test_two_surrogates_in_a_row_stay_two() -> None:
    text = "\ud83d" + "\ude00"
    assert [ord(character) for character in from_text(text_column(text))] == [0xD83D, 0xDE00]
    assert from_label(label_column([text])) == [text]


@pytest.mark.property
@given(st.datetimes(timezones=st.just(UTC)), st.datetimes(timezones=st.just(UTC)))
def test_dates_come_back_and_sort(one: datetime, other: datetime) -> None:
    assert from_date(date_column(one)) == one
    assert (date_column(one) < date_column(other)) is (one < other)


@pytest.mark.parametrize("moment", [datetime.min, datetime.max, datetime(1969, 12, 31, 23, 59, 59, 999999)])
def test_the_first_and_the_last_date_come_back(moment: datetime) -> None:
    moment = moment.replace(tzinfo=UTC)
    back = from_date(date_column(moment))
    assert back == moment
    assert back.utcoffset() == timedelta(0)


@pytest.mark.property
@given(json_values | any_texts)
def test_labels_come_back(label: Any) -> None:
    column = label_column(label)
    assert same(from_label(column), label)
    assert (column is None) is (label is None)


def test_labels_with_what_is_not_quite_json_come_back() -> None:
    label = {"": [math.inf, 10**400, "\0\ud800"]}
    assert from_label(label_column(label)) == label
    assert from_label(label_column("\x01")) == "\x01"


@pytest.mark.parametrize("label", [object(), 10**5000, {b"x": 1}], ids=["object", "huge", "bytes"])
def test_a_label_that_is_no_json_stops_nobody(label: Any) -> None:
    assert from_label(label_column(label)).startswith("a label that is no JSON: ")


@pytest.mark.property
@given(
    st.none() | st.lists(st.binary(max_size=40), max_size=5),
    st.sampled_from([bytes, memoryview, lambda data: memoryview(bytearray(data))]),
)
def test_buffers_come_back(buffers: list[bytes] | None, kind: Any) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(columns, "SMALL", 60)
        patch.setattr(columns, "CHUNK", 7)
        given = None if buffers is None else tuple(map(kind, buffers))
        column, large = buffers_column(given)
        assert large is (sum(map(len, buffers or ())) >= 60)
        chunks = [bytes(chunk) for chunk in buffer_chunks(given or ())] if large else []
        assert all(0 < len(chunk) <= 7 for chunk in chunks)
        patch.setattr(columns, "CHUNK", 5)  # files keep the chunks of the version that wrote them
        assert from_buffers(column, chunks) == (None if buffers is None else tuple(buffers))


def test_large_buffers_leave_the_row() -> None:
    column, large = buffers_column((b"x" * SMALL, b"", b"y"))
    assert large
    assert column is not None
    assert len(column) < 20
    assert [len(chunk) for chunk in buffer_chunks((b"x" * SMALL, b"", b"y"))] == [SMALL, 1]
