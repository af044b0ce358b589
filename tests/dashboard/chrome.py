"""The rules of Chrome and Perfetto for a trace: https://chromium.googlesource.com/catapult, "Trace Event Format"."""

from __future__ import annotations

import json
from typing import Any

METADATA = {"process_name", "thread_name"}


def tasks_in(trace: str) -> list[dict[str, Any]]:
    """Check a trace, and return its tasks."""
    whole = json.loads(trace)
    assert whole["displayTimeUnit"] in ("ms", "ns")
    threads, tasks = set(), []
    for event in whole["traceEvents"]:
        assert isinstance(event["name"], str)
        assert type(event["pid"]) is int
        if event["ph"] == "M":
            assert event["name"] in METADATA
            assert isinstance(event["args"]["name"], str)
            if event["name"] == "thread_name":
                threads.add((event["pid"], event["tid"]))
        else:
            assert event["ph"] == "X"
            assert event["name"]
            assert isinstance(event["cat"], str)
            assert type(event["tid"]) is int
            assert all(type(event[key]) is int and event[key] >= 0 for key in ("ts", "dur"))
            assert isinstance(event["args"], dict)
            tasks.append(event)
    assert {(task["pid"], task["tid"]) for task in tasks} <= threads, "each row has a name"
    until: dict[tuple[int, int], int] = {}
    for task in sorted(tasks, key=lambda task: (task["ts"], task["dur"])):
        row = task["pid"], task["tid"]
        assert task["ts"] >= until.get(row, 0), "Perfetto drops what lies partly upon something else"
        until[row] = task["ts"] + task["dur"]
    return tasks
