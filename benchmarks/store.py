"""Measures the speed of the SQLite database of records, and how much space a purge gives back.

    python benchmarks/store.py --records 1000000 --purge 900000

fills a new file with finished records: as in a hub, one batch adds a record, and another batch updates it with its
result. Then it makes the usual queries, purges the oldest records, and trims. It prints one JSON object: the CPU time
(µs) per record for both writes, median times (ms) of the queries, sizes (MB), and the seconds of the purge.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random
from typing import Any

from trio_hub.databases.backend import Change, Reader, Retention
from trio_hub.databases.sqlite.database import open_sqlite
from trio_hub.records import Query, TaskRecord, parse_query
from trio_hub.records.query import parse_keys

START = datetime(2024, 5, 1, tzinfo=UTC)
HEADER = json.dumps({"msg_id": "x" * 40, "msg_type": "apply_request", "session": "y" * 36, "more": "z" * 200}).encode()


def made(number: int, session: str) -> TaskRecord:
    """Return the record of a new task, of about 1 kB."""
    return TaskRecord(
        f"{session}_4711_{number}",
        header=HEADER,
        metadata=b'{"follow": [], "after": [], "targets": null, "retries": 0, "timeout": null}',
        content=b"{}",
        buffers=(b"f" * 400, b"a" * 100),
        submitted=START + timedelta(milliseconds=number),
        client_uuid=session,
        queue="task",
        custody=b"c" * 60,
    )


def result(submitted: datetime, engine: str) -> dict[str, Any]:
    """Return the changes of a record by its result, of about 1 kB."""
    completed = submitted + timedelta(seconds=1)
    return {
        "engine_uuid": engine,
        "started": submitted + timedelta(milliseconds=500),
        "completed": completed,
        "received": completed + timedelta(milliseconds=1),
        "result_header": HEADER,
        "result_metadata": b'{"status": "ok", "is_broadcast": false, "dependencies_met": true, "engine_info": {}}',
        "result_content": b'{"status": "ok"}',
        "result_buffers": (b"r" * 300,),
        "custody": None,
    }


def median(question: Callable[[], object], times: int = 21) -> float:
    """Return the median time of a call in milliseconds. The first call counts, too."""
    taken = []
    for _ in range(times):
        began = time.perf_counter()
        question()
        taken.append(time.perf_counter() - began)
    return round(statistics.median(taken) * 1000, 2)


def questions(reader: Reader, msg_ids: list[str], engine: str, records: int) -> dict[str, float]:
    """Return the median times of clients' queries."""
    random = Random(1)
    keys = parse_keys(None)

    def moment(back: int) -> datetime:
        return START + timedelta(milliseconds=records - back, seconds=1)

    def at_random() -> list[str]:
        return random.sample(msg_ids, 100)

    ids_only = parse_keys(["msg_id"])
    return {
        "get 100 by id": median(lambda: reader.get(at_random())),
        "find 100 by id": median(lambda: reader.find(parse_query({"msg_id": {"$in": at_random()}}), keys)),
        "last 100": median(lambda: reader.find(parse_query({"completed": {"$gte": moment(100)}}), keys)),
        "an engine's last 100": median(
            lambda: reader.find(parse_query({"engine_uuid": engine, "completed": {"$gte": moment(1600)}}), keys)
        ),
        "an engine's last 100, failed": median(
            lambda: reader.find(
                parse_query(
                    {"engine_uuid": engine, "completed": {"$gte": moment(1600)}, "result_content.status": "error"}
                ),
                keys,
            )
        ),
        "unfinished": median(reader.unfinished),
        "undelivered": median(lambda: reader.undelivered(timedelta(milliseconds=100))),
        "history (all)": median(reader.history, 1),
        "ids of all": median(lambda: reader.find(Query.everything(), ids_only), 1),
    }


def run(path: Path, records: int, batch: int, purge: int, synchronous: bool) -> dict[str, Any]:
    """Return all figures."""
    backend = open_sqlite(path, synchronous=synchronous)
    sessions = [f"{number:08x}-" + "5" * 27 for number in range(4)]
    engines = [f"{number:08x}-" + "6" * 27 for number in range(16)]
    msg_ids = []
    cpu = wall = 0.0
    for first in range(0, records, batch):
        numbers = range(first, min(first + batch, records))
        added = [made(number, sessions[number % 4]) for number in numbers]
        msg_ids += [record.msg_id for record in added]
        adding = [Change(record.msg_id, record) for record in added]
        updating = [
            Change(record.msg_id, changes=result(record.submitted or START, engines[number % 16]))
            for number, record in zip(numbers, added, strict=True)
        ]
        began, began_cpu = time.perf_counter(), time.process_time()
        backend.write(adding)
        backend.write(updating)
        wall += time.perf_counter() - began
        cpu += time.process_time() - began_cpu
    figures: dict[str, Any] = {
        "records": records,
        "CPU µs per record": round(cpu / records * 1e6, 1),
        "wall µs per record": round(wall / records * 1e6, 1),
        "MB full": round(backend.size() / 1e6, 1),
    }
    reader = backend.reader()
    reader.begin()
    figures["ms"] = questions(reader, msg_ids, engines[3], records)
    reader.close()
    began = time.perf_counter()
    oldest = parse_query({"submitted": {"$lt": START + timedelta(milliseconds=purge)}})
    reader = backend.reader()
    reader.begin()
    leaving = reader.completed(oldest)
    reader.close()
    figures["purged"] = sum(backend.drop(leaving[start : start + 500]) for start in range(0, len(leaving), 500))
    backend.tidy(done=True)
    while backend.give_back():
        pass
    figures["s purge"] = round(time.perf_counter() - began, 2)
    figures["MB purged"] = round(backend.size() / 1e6, 1)
    steps = []
    while True:
        began = time.perf_counter()
        gone = backend.trim(Retention(records=(records - purge) // 2), START)
        steps.append((time.perf_counter() - began) * 1000)
        if gone == 0:
            break
    figures["ms trim step, median and most"] = [round(statistics.median(steps), 2), round(max(steps), 2)]
    figures["MB trimmed"] = round(backend.size() / 1e6, 1)
    backend.close()
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--records", type=int, default=100_000, help="finished records in the file (%(default)s)")
    parser.add_argument("--purge", type=int, default=90_000, help="of which so many are purged (%(default)s)")
    parser.add_argument("--batch", type=int, default=150, help="records in one transaction (%(default)s)")
    parser.add_argument("--synchronous", action="store_true", help="wait for the disk at each write")
    parser.add_argument("--directory", type=Path, help="where the file is made (and removed); a temporary one")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.directory) as directory:
        path = Path(directory, "tasks.db")
        figures = run(path, options.records, options.batch, options.purge, options.synchronous)
    print(json.dumps(figures, indent=1, ensure_ascii=False))


if __name__ == "__main__":
    main()
