"""A hub with a pool of Slurm jobs, in a process of its own, and a stock client."""

from __future__ import annotations

import json
import re
import signal
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import ipyparallel as ipp

from ..cli.process import Command, command
from .support import LIMIT, Slurm, wait_until

__all__ = ["PooledHub", "note", "pooled_hub", "runs"]

SETTINGS: dict[str, Any] = {
    "launcher": "slurm",
    "min": 0,
    "max": 1,
    "idle_timeout": 1.0,
    "retry_pause": 0.1,
    "engine_args": ["--kill-grace=2"],
}


class PooledHub:
    """A hub with the pool ``p``, whose keys are `SETTINGS` and the given ones. `running` starts the hub.

    Args:
        slurm: the Slurm of the test.
        directory: the directory of the hub's profile and of what tasks write.
        settings: keys of the pool, which replace those of `SETTINGS`.
    """

    def __init__(self, slurm: Slurm, directory: Path, **settings: Any) -> None:
        self.slurm = slurm
        self.directory = directory
        self.profile = directory / "profile"
        self._pool = {"name": "p", **SETTINGS, **settings}
        self._client: ipp.Client | None = None
        self._commands: list[Command] = []

    @contextmanager
    def running(self) -> Iterator[Command]:
        """Run the hub during the block. At the end of the block, kill the hub if it still runs."""
        arguments = ("serve", "--restore", "--profile-dir", str(self.profile))
        with command(*arguments, env={"TRIO_HUB_POOLS": json.dumps([self._pool])}) as hub:
            self._commands.append(hub)
            hub.wait_line("stdout", "trio-hub ready")
            try:
                yield hub
            finally:
                self.disconnect()

    @property
    def hub(self) -> Command:
        return self._commands[-1]

    def stop(self) -> None:
        """Stop the hub in order, and check that nothing unexpected has happened in it."""
        self.disconnect()
        self.hub.signal(signal.SIGTERM)
        assert self.hub.wait() == 0, self.hub
        assert "Traceback" not in "".join(self.hub.stderr), self.hub

    @property
    def client(self) -> ipp.Client:
        """A stock client. After a restart of the hub, this is a new client."""
        if self._client is None:
            self._client = ipp.Client(profile_dir=str(self.profile), timeout=LIMIT)
        return self._client

    def disconnect(self) -> None:
        if self._client is not None:
            self._client.close()
            self._client = None

    def ask(self, kind: str, **content: Any) -> dict[str, Any]:
        """Send a query to the hub, and return the content of the answer."""
        answer: dict[str, Any] = self.client._send_recv(self.client._query_stream, kind, content=content)["content"]
        assert answer["status"] == "ok", answer
        return answer

    def pool(self) -> dict[str, Any]:
        """Return what the hub says of the pool."""
        [pool] = self.ask("pools_request")["pools"]
        assert isinstance(pool, dict)
        return pool

    def wait_for(self, what: str, **values: Any) -> dict[str, Any]:
        """Wait until these keys of the pool have these values, and return all keys of the pool."""

        def look() -> dict[str, Any] | None:
            pool = self.pool()
            return pool if all(pool[name] == value for name, value in values.items()) else None

        pool: dict[str, Any] = wait_until(look, f"{what} ({self.hub})")
        return pool

    def wait_for_blocks(self, *states: str) -> list[dict[str, Any]]:
        """Wait until the pool has blocks in exactly these states, and return them."""

        def look() -> list[dict[str, Any]] | None:
            blocks = self.pool()["blocks"]
            return blocks if sorted(block["state"] for block in blocks) == sorted(states) else None

        if not states:
            wait_until(lambda: not self.pool()["blocks"], f"the end of all blocks ({self.hub})")
            return []
        blocks: list[dict[str, Any]] = wait_until(look, f"blocks in the states {states} ({self.hub})")
        return blocks

    def submit(self, function: Any, values: Sequence[Any]) -> Any:
        """Submit the task ``function(directory, value)`` for each value, without retries."""
        view = self.client.load_balanced_view()
        return view.map_async(function, [str(self.directory)] * len(values), values, chunksize=1)

    def results(self, ids: Sequence[str]) -> list[Any]:
        """Return the results of tasks that another client has submitted."""
        return [value for [value] in self.client.get_result(ids).get(LIMIT)]

    def logged(self, pattern: str) -> re.Match[str]:
        """Wait for a line of the hub's log, and return what has matched."""
        return self.hub.wait_line("stderr", pattern)


@contextmanager
def pooled_hub(slurm: Slurm, directory: Path, **settings: Any) -> Iterator[PooledHub]:
    """Run a hub with a pool during the block. Stop it in order, and check that it leaves no job."""
    pooled = PooledHub(slurm, directory, **settings)
    with pooled.running():
        yield pooled
        pooled.stop()
        slurm.wait_until_empty()


def note(directory: str, value: Any) -> Any:
    """A task: note that it runs, and return its value after a moment."""
    import os
    import time
    from pathlib import Path

    with Path(directory, "runs").open("a") as file:
        file.write(f"{value} {os.environ.get('SLURM_JOB_ID')}\n")
    time.sleep(0.1)
    return value


def runs(directory: Path) -> Counter[str]:
    """Return how often each task has begun to run, by its value."""
    path = directory / "runs"
    return Counter(line.split()[0] for line in path.read_text().splitlines()) if path.exists() else Counter()
