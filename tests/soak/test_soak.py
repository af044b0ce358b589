"""A cluster whose engines, connections, clients and hub fail at random, for as many minutes as SOAK_MINUTES says."""

from __future__ import annotations

import os
import socket
import time
from pathlib import Path
from random import Random

import pytest
import trio

from tests.crash.processes import hub_process

from . import hurried
from .figures import FIGURES
from .soak import CYCLES, OPTIONS, SETTLED_WITHIN, Soak

pytestmark = pytest.mark.soak

MINUTES = float(os.environ.get("SOAK_MINUTES") or 0.3)


def free_ports(count: int) -> str:
    """Return a range of free ports that the system does not give to other programs while no hub is running."""
    lowest = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    low, high = (10_000, lowest) if lowest > 11_000 else (20_000, 60_000)  # some systems give out nearly all ports
    while True:
        first = Random().randrange(low, high - count)
        try:
            for port in range(first, first + count):
                socket.create_server(("127.0.0.1", port)).close()
        except OSError:
            continue
        return f"{first}-{first + count - 1}"


async def test_every_request_is_answered_or_accounted_for(tmp_path: Path) -> None:
    seed = int(os.environ.get("SOAK_SEED") or time.time_ns() % 1_000_000)
    print(f"SOAK_SEED={seed}")
    began = trio.current_time()
    with trio.fail_after(MINUTES * 60 + (CYCLES + 2) * (SETTLED_WITHIN + 30)):
        async with hub_process(
            tmp_path / "profile", "--ports", free_ports(20), *OPTIONS, program=("-P", hurried.__file__)
        ) as hub:
            soak = Soak(hub, Random(seed))
            try:
                await soak.run(MINUTES * 60)
            finally:
                print("\n".join(soak.summary))
            await hub.stop()
    FIGURES.append(f"{trio.current_time() - began:.0f} s, seed {seed}")
    FIGURES.extend(soak.summary)
