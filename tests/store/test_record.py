from __future__ import annotations

from trio_hub.store import RECORD_KEYS, TaskRecord, empty_record

from .contract import at, finished


def test_an_empty_record_has_all_keys_and_nothing_in_them() -> None:
    assert len(RECORD_KEYS) == 23
    assert empty_record() == dict.fromkeys(RECORD_KEYS) | {"stdout": "", "stderr": ""}
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
