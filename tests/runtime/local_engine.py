"""A local engine for tests. It starts quickly, and a task can make it end.

A task whose first buffer is ``exit N`` ends the process with that exit status, and ``kill N`` sends it a signal; a task
with ``wait`` never ends. After
a shutdown_request it ends with exit status 1, as stock engines do.
"""

from __future__ import annotations

import json
import os
import secrets
import sys

import trio

from trio_hub.testing import open_engine
from trio_hub.testing.behaviours import answer, obey
from trio_hub.testing.engine import Request


def do(request: Request) -> None:
    what, _, number = bytes(request.buffers[0]).decode().partition(" ") if request.buffers else ("", "", "")
    if what == "exit":
        os._exit(int(number))
    elif what == "kill":
        os.kill(os.getpid(), int(number))
    elif what == "wait":
        request.engine.hold()  # the task never ends, and nothing behind it begins
    else:
        answer(request)


async def main() -> None:
    info = json.loads(os.environ["IPP_CONNECTION_INFO"])
    # The hub finds the process id in the msg_id, as in the msg_ids of Jupyter's sessions.
    async with open_engine(info, uuid=f"{secrets.token_hex(8)}_{os.getpid()}", behaviour=do) as engine:
        stopped = trio.Event()

        def stop(request: Request) -> None:
            obey(request)
            if request.msg_type == "shutdown_request":
                stopped.set()

        engine.control_behaviour = stop
        await stopped.wait()
        await trio.sleep(0.2)  # the messages that it has sent need time to leave
    sys.exit(1)


if __name__ == "__main__":
    trio.run(main)
