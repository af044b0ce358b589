from __future__ import annotations

import json

from hypothesis import given
from hypothesis import strategies as st

from trio_hub.records import RECORD_KEYS, TaskRecord, empty_record
from trio_hub.records.record import HUB_KEYS, unpacked

from ..databases.contract import at, finished
from .strategies import json_values


def test_an_empty_record_has_all_keys_and_nothing_in_them() -> None:
    assert len(RECORD_KEYS) == 23
    assert empty_record() == dict.fromkeys(RECORD_KEYS) | {"stdout": "", "stderr": ""}
    assert TaskRecord.__struct_fields__ == (*RECORD_KEYS, *HUB_KEYS)
    assert TaskRecord("a").as_dict() == empty_record() | {"msg_id": "a"}


def test_a_copy_has_every_key() -> None:
    record = TaskRecord("a")
    for number, key in enumerate(RECORD_KEYS):
        setattr(record, key, number)
    copied = record.copy()
    assert [getattr(copied, key) for key in RECORD_KEYS] == list(range(23))


def test_what_it_says_of_itself() -> None:
    record = finished("a", queue="task", buffers=[b"12"], result_buffers=[b"345", b""], completed=at(0))
    assert repr(record) == "<TaskRecord a queue=task completed=2024-05-01 12:00:00+00:00>"
    assert record.buffer_bytes == 5


@given(json_values, st.booleans())
def test_whatever_stock_sessions_write_is_read(value: object, ascii_only: bool) -> None:
    text = json.dumps(value, ensure_ascii=ascii_only).encode("utf-8", "surrogatepass")
    assert repr(unpacked("content", text)) == repr(value)  # NaN is not equal to itself


@given(
    st.binary()
    | st.text('[]{}":,0123456789.eE+-truefalsn\\ \ud800', max_size=12).map(
        lambda text: text.encode("utf-8", "surrogatepass")
    )
)
def test_what_is_no_json_is_read_as_the_library_reads_it_or_told_as_text(data: bytes) -> None:
    try:
        expected = json.loads(data)
    except ValueError:
        expected = data.decode("utf-8", "backslashreplace")
    assert repr(unpacked("content", data)) == repr(expected)
