"""The details of a task: its history, its output, and the reason why it waits."""

from __future__ import annotations

from typing import Any

from ..errors import QueryError
from ..hub import Hub
from ..records import parse_query
from ..records.record import TEXT_KEYS, TaskRecord, unpacked
from ..runtime import RunningHub
from ..schedulers.task import Task, TaskState, WorkerState
from .tasks import FULL_KEYS, row_of, seconds
from .watching import Watch

__all__ = ["output_headers", "task_details", "whole_output", "why_waiting"]

MAX_TEXT = 100_000
"""The maximum length of each text in characters. The end of long output is kept, and the beginning of other texts."""
MAX_NAMED = 10
"""The maximum number of tasks or engines in a text. Of further ones, the text gives the number."""


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
    return {
        "row": row,
        "story": _story(watch, record, row["state"]),
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
        "header": unpacked("header", record.header),
        "metadata": unpacked("metadata", record.metadata),
        "resubmitted_as": [record.resubmitted] if record.resubmitted else [],
        "resubmission_of": original,
    }


def _story(watch: Watch, record: TaskRecord, state: str) -> list[dict[str, Any]]:
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
    size = sum(map(len, record.result_buffers or ()))
    return f"{size} bytes, pickled by the engine" if size else None


def _error(content: Any) -> dict[str, str]:
    content = content if isinstance(content, dict) else {}
    traceback = content.get("traceback")
    text = "\n".join(map(str, traceback)) if isinstance(traceback, list) else str(traceback or "")
    return {
        "ename": str(content.get("ename", "")),
        "evalue": str(content.get("evalue", ""))[:MAX_TEXT],
        "traceback": text[:MAX_TEXT],
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


def why_waiting(core: Hub, msg_id: str) -> str | None:
    """Return why a task has no engine yet; None if it has one, or is not waiting."""
    if msg_id in core.intake.uncommitted:
        return "it is being written to disk, which must happen before it is sent to an engine"
    task = core.tasks.scheduler.tasks.get(msg_id)
    if task is None or task.worker is not None:
        return None
    if task.state is TaskState.WAITING:
        return (
            f"it depends on {_some(sorted(task.depends_on))}"
            if task.depends_on
            else "the hub looks up its dependencies"
        )
    return _why_queued(core, task)


def _why_queued(core: Hub, task: Task) -> str:
    workers = core.tasks.scheduler.workers
    if not workers:
        return "no engine is registered"
    may = [ident for ident in workers if task.accepts(ident)]
    reasons = []
    if task.targets is not None:
        reasons.append(f"it may run only on its targets: {_engines(core, task.targets)}")
    if task.refused:
        failed = task.refused - task.unmet
        if failed:
            reasons.append(f"it has failed on engines: {_engines(core, failed)}")
        if task.unmet:
            reasons.append(f"its dependencies are not met on engines: {_engines(core, task.unmet)}")
    if may and all(workers[ident].state is WorkerState.EXPECTED for ident in may):
        reasons.append("the engines that may run it have not come back since the restart of the hub")
    elif may:
        each = f"{core.tasks.scheduler.hwm} task{'s' if core.tasks.scheduler.hwm > 1 else ''} each (setting hwm)"
        who = "all engines are busy" if len(may) == len(workers) else "the engines that may run it are busy"
        reasons.append(f"no free engine: {who}, with {each}; {len(core.tasks.scheduler.queue):,} tasks are queued")
    return "; ".join(reasons)


def _why_at_engine(watch: Watch, msg_id: str) -> str | None:
    """Return why a request that was sent to its engine may not have started; None if it is the engine's first."""
    mine = watch.bars.running.get(msg_id)
    if mine is None or mine[1] < 0:
        return None
    before = sum(row == mine[1] and seq < mine[0] for seq, row, *_ in watch.bars.running.values())
    if not before:
        return None
    seen = watch.engines.by_row.get(mine[1])
    where = "its engine" if seen is None else f"engine {seen.id}"
    others = "one request" if before == 1 else f"{before:,} requests"
    return f"{where} runs one request at a time, and was sent {others} before this one"


def _engines(core: Hub, idents: frozenset[bytes]) -> str:
    names = []
    for ident in idents:
        engine = core.engines.by_ident.get(ident)
        names.append(ident.decode("utf-8", "replace") if engine is None else str(engine.id))
    return _some(sorted(names, key=lambda name: (len(name), name)))


def _some(names: list[str]) -> str:
    more = len(names) - MAX_NAMED
    return ", ".join(names[:MAX_NAMED]) + (f" and {more} more" if more > 0 else "")
