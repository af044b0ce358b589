"""``python -m trio_hub.jupyter SOCKET``: the process that jupyter-server-proxy starts for the page of the hub."""

from __future__ import annotations

import sys

import trio

from .process import serve

__all__: list[str] = []

if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python -m trio_hub.jupyter SOCKET")
    trio.run(serve, sys.argv[1])
