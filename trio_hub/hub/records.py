"""Makes task records out of messages."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from functools import lru_cache
from sys import intern
from typing import Any

import msgspec

from ..records.record import TaskRecord, empty_record
from ..schedulers.dependencies import Outcome
from ..schedulers.rules import NO_RULES, TaskRules, parse_rules
from ..schedulers.task import Task
from ..wire.messages import Message, parse_date
from ..wire.packers import Packer, packer_named

__all__ = [
    "HUB_NOTES",
    "empty_record",
    "init_record",
    "outcome_of",
    "packed_rules",
    "record_of_result",
    "unpacked_rules",
    "with_rules",
]

HUB_NOTES = "trio_hub"
"""The key that the hub adds to the metadata in the record of a task that has rules or several attempts."""
_HUB_NOTES = HUB_NOTES.encode()
REMEMBERED = 1000
"""The number of kinds of rules whose JSON is remembered."""
_json = packer_named("json")


class _Rules(msgspec.Struct):
    rules: dict[str, Any]
    policies: list[str]


_rules = _json.decoder(_Rules)


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


def with_rules(metadata: bytes | None, task: Task, packed: bytes = b"") -> bytes | None:
    """Return the metadata for the record of a task, with the rules that apply to it, for queries.

    Under the key `HUB_NOTES`, this adds the ``rules`` that are not the defaults, the names of the ``policies`` that
    have set some of them, and the number of ``attempts`` if there were several. If a task has none of these, its
    metadata stays as it is. The message that engines get has none of it. ``packed`` are the rules and policies as
    `packed_rules` returns them, if they are known.
    """
    if task.rules is NO_RULES and not task.policies and task.attempts <= 1:
        return metadata
    if task.attempts > 1:
        notes = {"rules": task.rules.as_dict(), "policies": list(task.policies), "attempts": task.attempts}
        return _json.repacked(metadata or b"{}", {HUB_NOTES: notes})
    packed = packed or packed_rules(task.rules, task.policies)
    if metadata is None or metadata[-1:] != b"}" or metadata[-2:-1] in b"{ \t\r\n":
        return _json.repacked(metadata or b"{}", {HUB_NOTES: msgspec.Raw(packed)})
    return b'%b, "%b": %b}' % (metadata[:-1], _HUB_NOTES, packed)  # it is a JSON object: it was decoded before


@lru_cache(REMEMBERED)
def packed_rules(rules: TaskRules, policies: tuple[str, ...]) -> bytes:
    """Return rules that are not the defaults, and the policies that have set some of them, in JSON."""
    return _json.pack({"rules": rules.as_dict(), "policies": list(policies)})


def unpacked_rules(packed: bytes) -> tuple[TaskRules, tuple[str, ...]]:
    """Return what `packed_rules` has packed; for no bytes, no rules. Raises `WireError` if the bytes are damaged."""
    if not packed:
        return NO_RULES, ()
    found = _rules(packed)
    return parse_rules(found.rules), tuple(found.policies)


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
