"""The details of a task: its history, its output, and the reason why it waits."""

from __future__ import annotations

from typing import Any

from ..errors import QueryError, StoreError, TaskCancelled
from ..hub.interrupt import InterruptState
from ..hub.records import HUB_NOTES
from ..hub.waiting import MAX_NAMED, why_waiting
from ..records import parse_query
from ..records.record import TEXT_KEYS, TaskRecord, unpacked
from ..runtime import RunningHub
from ..wire.messages import parse_date
from ..wire.tracebacks import traceback_text
from .tasks import FULL_KEYS, row_of, seconds
from .watching import Watch

__all__ = ["output_headers", "task_details", "whole_output"]

MAX_TEXT = 100_000
"""The maximum length of each text in characters. The end of long output is kept, and the beginning of other texts."""
MAX_EXPLAINED = 100
"""The maximum number of engines for which the page says whether they could run a task."""


async def task_details(hub: RunningHub, watch: Watch, msg_id: str) -> dict[str, Any] | None:
    """Return the details of a task, or None if there is no record of it. Raises `StoreError`."""
    store = hub.core.store
    record = (await store.get([msg_id])).get(msg_id)
    if record is None:
        return None
    row = row_of(hub, watch, record.as_dict(("msg_id", *FULL_KEYS)))
    original = None
    if not msg_id.startswith(record.client_uuid or "\0"):  # the hub has chosen the msg_id, so the task was resubmitted
        before = await store.find(parse_query({"resubmitted": msg_id}), ["resubmitted"])
        original = before[0]["msg_id"] if before else None
    content = unpacked("result_content", record.result_content)
    waiting = hub.core.tasks.scheduler.tasks.get(msg_id)
    output = unpacked("execute_result", record.execute_result)
    metadata = unpacked("metadata", record.metadata)
    cancelled = _cancelled(hub, record)
    return {
        "row": row,
        "story": _story(watch, record, row["state"], cancelled),
        "why_waiting": why_waiting(hub.core, msg_id) or _why_at_engine(watch, msg_id),
        "waits_for": [] if waiting is None else sorted(waiting.depends_on)[:MAX_NAMED],
        "waits_for_more": 0 if waiting is None else max(0, len(waiting.depends_on) - MAX_NAMED),
        "stdout": record.stdout[-MAX_TEXT:],
        "stderr": record.stderr[-MAX_TEXT:],
        "stdout_left_out": max(0, len(record.stdout) - MAX_TEXT),
        "stderr_left_out": max(0, len(record.stderr) - MAX_TEXT),
        "outputs": [text for text in [_plain_text(output)] if text is not None],
        "result": _result(record, content, output),
        "error": _error(content) if row["state"] == "failed" else None,
        "cancelled": cancelled,
        "header": unpacked("header", record.header),
        "metadata": metadata,
        **_rules(hub, msg_id, metadata, assigned=record.engine_uuid is not None and record.queue == "task"),
        "resubmitted_as": [record.resubmitted] if record.resubmitted else [],
        "resubmission_of": original,
    }


def _rules(hub: RunningHub, msg_id: str, metadata: Any, *, assigned: bool) -> dict[str, Any]:
    """Return the rules of a task that are not the defaults, the policies that have set some, and its attempts.

    For an unfinished task, also return for each engine whether it could run the task now. Engines that could are first.

    Args:
        hub: the hub.
        msg_id: the task.
        metadata: the metadata in its record.
        assigned: whether an engine has had the task.
    """
    if msg_id in hub.core.tasks.scheduler.tasks:
        found = hub.explain(msg_id)
        engines = sorted(found["engines"], key=lambda each: not each["may"])
        return {
            **{name: found[name] for name in ("rules", "policies", "attempts")},
            "explained": engines[:MAX_EXPLAINED],
            "explained_more": max(0, len(engines) - MAX_EXPLAINED),
        }
    notes = metadata.get(HUB_NOTES) if isinstance(metadata, dict) else None
    notes = notes if isinstance(notes, dict) else {}
    attempts = notes.get("attempts", int(assigned))
    return {
        "rules": notes.get("rules") or {},
        "policies": notes.get("policies") or [],
        "attempts": attempts,
        "explained": [],
        "explained_more": 0,
    }


def _cancelled(hub: RunningHub, record: TaskRecord) -> dict[str, Any] | None:
    """Return who has cancelled a request (``by``), when (``asked``), and what it ``took``; None if nobody has.

    While the request has not ended, ``took`` says what is being done.
    """
    interrupt = hub.core.work.interrupts.open.get(record.msg_id)
    if interrupt is not None and record.completed is None:
        error = interrupt.error_of(_DOING[interrupt.state])
        facts = error.facts if isinstance(error, TaskCancelled) else None
    else:
        metadata = unpacked("result_metadata", record.result_metadata)
        facts = metadata.get("cancelled") if isinstance(metadata, dict) else None
    if not isinstance(facts, dict):
        return None
    asked = parse_date(str(facts.get("asked")))
    return {"by": str(facts.get("by")), "asked": seconds(asked), "took": str(facts.get("took"))}


_DOING = {
    InterruptState.BEHIND: "it has not begun on its engine, or its engine does not answer at the moment",
    InterruptState.UNDER_WAY: "it is being interrupted",
    InterruptState.LANDED: "it was interrupted, and has not ended yet",
    InterruptState.KILLING: "it has not ended in time after it was interrupted, and its engine is being killed",
    InterruptState.OVER: "it has ended",
}


def _story(watch: Watch, record: TaskRecord, state: str, cancelled: dict[str, Any] | None) -> list[dict[str, Any]]:
    """Return the steps of a task, in order. Its start and end are by the engine's clock, the others by the hub's."""
    steps: list[tuple[float | None, str, str]] = [
        (seconds(record.submitted), "submitted", f"by client {record.client_uuid}")
    ]
    for bar in watch.bars.of(record.msg_id):
        seen = watch.engines.by_row.get(bar.row)
        where = "an engine" if seen is None else f"engine {seen.id} ({seen.uuid})"
        steps.append((bar.start, "sent", f"to {where}"))
        if bar.status == "failed" and bar.end is not None and (state == "running" or record.completed is None):
            steps.append((bar.end, "retried", f"after {where}"))
    if record.started is not None:
        steps.append((seconds(record.started), "started", "by the engine's clock"))
    if record.completed is not None:
        steps.append((seconds(record.completed), "completed", state))
    if record.received is not None:
        steps.append((seconds(record.received), "received", "by the hub"))
    if cancelled is not None:
        steps.append((cancelled["asked"], "cancelled", f"by {cancelled['by']}"))
    if record.resubmitted is not None:
        steps.append((None, "resubmitted", f"as {record.resubmitted}"))
    last = max((at for at, _, _ in steps if at is not None), default=0.0)
    steps.sort(key=lambda step: last + 1 if step[0] is None else step[0])
    return [{"t": at, "what": what, "detail": detail} for at, what, detail in steps]


def _plain_text(output: Any) -> str | None:
    data = output.get("data") if isinstance(output, dict) else None
    text = data.get("text/plain") if isinstance(data, dict) else None
    return text[:MAX_TEXT] if isinstance(text, str) else None


def _result(record: TaskRecord, content: Any, output: Any) -> str | None:
    if record.completed is None or not isinstance(content, dict) or content.get("status") != "ok":
        return None
    text = _plain_text(output)
    if text is not None:
        return text
    try:
        size = sum(map(len, record.result_buffers or ()))
    except StoreError as error:  # the buffers are lost
        return str(error)
    return f"{size} bytes, pickled by the engine" if size else None


def _error(content: Any) -> dict[str, str]:
    content = content if isinstance(content, dict) else {}
    return {
        "ename": str(content.get("ename", "")),
        "evalue": str(content.get("evalue", ""))[:MAX_TEXT],
        "traceback": traceback_text(content.get("traceback"))[:MAX_TEXT],
    }


async def whole_output(hub: RunningHub, msg_id: str, stream: str) -> str | None:
    """Return all recorded output of a task; None if there is no record of the task.

    Args:
        hub: The hub.
        msg_id: The task.
        stream: ``stdout`` or ``stderr``.

    Raises:
        QueryError: There is no such stream.
        StoreError: The database cannot be read.
    """
    if stream not in TEXT_KEYS:
        raise QueryError(f"there is no output {stream[:60]!r}; there are {' and '.join(sorted(TEXT_KEYS))}")
    found = await hub.core.store.find(parse_query({"msg_id": msg_id}), [stream])
    return str(found[0][stream]) if found else None


def output_headers(msg_id: str, stream: str) -> dict[str, str]:
    """Return the headers of an answer with the output of a task, which a browser saves as a file."""
    name = "".join(char if char.isascii() and (char.isalnum() or char in "-_") else "-" for char in msg_id)
    return {
        "content-type": "text/plain; charset=utf-8",
        "content-disposition": f'attachment; filename="{name[:100]}-{stream}.txt"',
    }


def _why_at_engine(watch: Watch, msg_id: str) -> str | None:
    """Return why a request that was sent to its engine may not have started; None if it is the engine's first."""
    mine = watch.bars.running.get(msg_id)
    if mine is None or mine[1] < 0:
        return None
    before = watch.bars.running_before(msg_id)
    if not before:
        return None
    seen = watch.engines.by_row.get(mine[1])
    where = "its engine" if seen is None else f"engine {seen.id}"
    others = "one request" if before == 1 else f"{before:,} requests"
    return f"{where} runs one request at a time, and was sent {others} before this one"
