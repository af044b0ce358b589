"""A stock client at work, in a process of its own: ``python load.py PROFILE_DIR``.

It prints the msg_ids of a few tasks, as JSON, and goes on with small ones until its input ends.
"""

from __future__ import annotations

import json
import sys
import threading
import time

import ipyparallel as ipp

LIMIT = 60.0


def work(seconds: float) -> float:
    import time

    time.sleep(seconds)
    print("rested", seconds)
    return seconds


def fail(what: str) -> None:
    raise ValueError(f"no <b>such</b> {what}")


def shine() -> str:
    """Print as programs do for a terminal, more than a page shows, and text that is not what it seems."""
    print("first of all")
    print("x" * 120_000)
    print("10 %\r100 %")
    print("\x1b[31mred\x1b[0m and \x1b[1;38;5;28mgreen\x1b[0m")
    print("gpj.\u202eexe\u0007")
    return "shone"


def main() -> None:
    rc = ipp.Client(profile_dir=sys.argv[1], timeout=LIMIT)
    rc.wait_for_engines(4, timeout=LIMIT)
    ended = threading.Event()

    def wait_for_the_end() -> None:
        sys.stdin.read()
        ended.set()

    threading.Thread(target=wait_for_the_end).start()

    view = rc.load_balanced_view()
    with view.temp_flags(label="doomed"):
        failed = [view.apply_async(fail, what) for what in ("thing", "luck", "luck")]
    with view.temp_flags(label="align"):
        done = view.apply_async(work, 0.01)
    with view.temp_flags(label={"run": 7, "name": "shine\u202e"}):
        shone = view.apply_async(shine)
    for result in (*failed, done, shone):
        result.wait(LIMIT)
    # One engine is kept busy, so that what is meant for it has to wait.
    with view.temp_flags(targets=rc.ids[:1], label="long"):
        running = view.apply_async(time.sleep, 600)
    with view.temp_flags(targets=rc.ids[1:2], label="endless"):
        endless = view.apply_async(time.sleep, 600)
    with view.temp_flags(targets=rc.ids[:1], label="victim"):
        waiting = [view.apply_async(work, 0.01) for _ in range(3)]
    with view.temp_flags(after=[running], label="heir"):
        view.apply_async(work, 0.01)
    told = {
        "failed": failed,
        "done": [done],
        "shone": [shone],
        "running": [running],
        "waiting": waiting,
        "endless": [endless],
    }
    print(json.dumps({name: [result.msg_ids[0] for result in results] for name, results in told.items()}), flush=True)

    with view.temp_flags(targets=rc.ids[2:], label="blast"):
        while not ended.is_set():
            view.map_async(work, [0.01, 0.02, 0.03]).wait(LIMIT)
    rc.close()


if __name__ == "__main__":
    main()
