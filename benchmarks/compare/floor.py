"""The floor: ZeroMQ's own proxy, in C, which passes messages on without reading them.

It is started with a directory, and writes connection files there as a controller does, with only a task queue in them.
No controller that uses ZeroMQ in user space can cost less.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import zmq

INTERFACE = "tcp://127.0.0.1"


def main() -> None:
    security = Path(sys.argv[1], "security")
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    clients, engines = context.socket(zmq.ROUTER), context.socket(zmq.DEALER)
    ports = {}
    for side, socket in (("client", clients), ("engine", engines)):
        socket.sndhwm = socket.rcvhwm = 0
        ports[side] = socket.bind_to_random_port(INTERFACE)
    for side, port in ports.items():
        info = {"interface": INTERFACE, "key": "floor", "task": port}
        Path(security, f"ipcontroller-{side}.json").write_text(json.dumps(info))
    zmq.proxy(clients, engines)  # until it is killed


if __name__ == "__main__":
    main()
