"""Makes task records out of messages."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from sys import intern
from typing import Any

from ..records.record import TaskRecord, empty_record
from ..schedulers.dependencies import Outcome
from ..wire.messages import Message, parse_date
from ..wire.packers import Packer

__all__ = ["empty_record", "init_record", "outcome_of", "record_of_result"]


def init_record(
    msg: Message, packer: Packer, *, queue: str, now: Callable[[], datetime], label: Any = None
) -> TaskRecord:
    """Return the record of a request that has just come. ``now`` is called if the request has no date."""
    header = msg.header
    raw_header, raw_metadata, raw_content = _as_json(msg, packer)
    return TaskRecord(
        header.msg_id,
        header=raw_header,
        metadata=raw_metadata,
        content=raw_content,
        buffers=tuple(msg.frames[6:]),
        submitted=msg.date or parse_date(header.date) or now(),
        client_uuid=intern(header.session),  # one text for all requests of a client
        queue=queue,
        label=label,
    )


def record_of_result(
    msg: Message, packer: Packer, *, engine_uuid: str, started: str | None, now: datetime
) -> dict[str, Any]:
    """Return the changes that a reply makes to the record of its request."""
    raw_header, raw_metadata, raw_content = _as_json(msg, packer)
    return {
        "result_header": raw_header,
        "result_metadata": raw_metadata,
        "result_content": raw_content,
        "result_buffers": tuple(msg.frames[6:]),
        "started": parse_date(started),
        "completed": parse_date(msg.header.date) or now,
        "received": now,
        "engine_uuid": engine_uuid,
    }


def _as_json(msg: Message, packer: Packer) -> tuple[bytes, bytes, bytes]:
    """Return header, metadata and content of a message as JSON. Raises `WireError`."""
    raw_content = msg.frames[5]
    if type(raw_content) is not bytes:
        raw_content = bytes(raw_content)
    if packer.is_json:
        return msg.raw_header, msg.raw_metadata, raw_content
    to_json = packer.to_json
    return to_json(msg.raw_header), to_json(msg.raw_metadata), to_json(raw_content)


def outcome_of(record: TaskRecord) -> Outcome:
    """Return how a completed request ended, for the tasks that depend on it."""
    content = record.as_dict(("result_content",))["result_content"]
    ok = isinstance(content, dict) and content.get("status") == "ok"
    return Outcome(ok, record.engine_uuid.encode("utf-8", "replace") if record.engine_uuid else None)
