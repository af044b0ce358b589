"""Local engines: processes that belong to the hub, start with it, are looked after, and stop with it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import trio

from ..logs import get_logger
from ..services import Failures, keep_running

__all__ = ["LocalEngines"]

log = get_logger("trio_hub.runtime")

QUICK_DEATH = 10.0
"""Seconds: an engine that lives no longer than this has probably a fault that starting it again will not mend."""
QUICK_DEATHS = 3
"""After so many quick deaths in a row an engine is not started again."""


class LocalEngines:
    """Runs `n` engine processes.

    Args:
        engine_info: connection info, which the processes get through their environment (IPP_CONNECTION_INFO).
        command: the program and its arguments; by default stock ``ipyparallel.engine`` under this Python.
        profile_dir: their IPython profile, if the hub has one.
        grace: seconds between asking an engine's process to end (SIGTERM) and ending it (SIGKILL).
        failures: where errors of the supervisor are counted that nobody expected.
    """

    def __init__(
        self,
        n: int,
        engine_info: dict[str, Any],
        *,
        command: Sequence[str] = (),
        profile_dir: Path | None = None,
        cluster_id: str = "",
        grace: float = 5.0,
        failures: Failures | None = None,
    ) -> None:
        self.n = n
        self.failures: Failures = Counter() if failures is None else failures
        self.grace = grace
        self._graces: set[trio.CancelScope] = set()
        self.command = list(command) or [sys.executable, "-m", "ipyparallel.engine"]
        if not command:
            if profile_dir is not None:
                self.command.append(f"--profile-dir={profile_dir}")
            if cluster_id:
                self.command.append(f"--cluster-id={cluster_id}")
        self.environment = dict(os.environ, IPP_CONNECTION_INFO=json.dumps(engine_info))

    async def run(self) -> None:
        """Start them all and look after them until cancelled; then stop them all."""
        async with trio.open_nursery() as nursery:
            for number in range(self.n):
                look_after = partial(self._look_after, number)
                nursery.start_soon(
                    keep_running, "local engines", look_after, self.failures, name=f"local engine {number}"
                )

    async def _look_after(self, number: int) -> None:
        """Start an engine, and start it again when it dies of something other than being asked to stop."""
        quick_deaths = 0
        while True:
            started = trio.current_time()
            try:
                status = await self._run_once()
            except OSError as error:
                log.error(
                    "cannot run the command of a local engine", number=number, command=self.command[0], error=error
                )
                return
            if status == 0:
                log.info("local engine has stopped", number=number)
                return
            quick_deaths = quick_deaths + 1 if trio.current_time() - started < QUICK_DEATH else 0
            log.warning("local engine died", number=number, status=_how(status))
            if quick_deaths >= QUICK_DEATHS:
                log.error(
                    "local engine died at its start again and again, and is given up; try the command by hand",
                    number=number,
                    deaths=quick_deaths,
                    command=" ".join(self.command),
                )
                return

    async def _run_once(self) -> int:
        """Run one engine process to its end; if cancelled, end it first."""
        # A session of its own: a Ctrl-C in the terminal is for the hub, which then stops its engines in order.
        # Its output goes to stderr (2): stdout belongs to our process, and others may read what it says there.
        process = await trio.lowlevel.open_process(
            self.command, env=self.environment, stdin=subprocess.DEVNULL, stdout=2, start_new_session=True
        )
        try:
            return await process.wait()
        finally:
            if process.returncode is None:
                with trio.CancelScope(shield=True):
                    await self._end(process)

    async def _end(self, process: trio.Process) -> None:
        process.terminate()
        with trio.move_on_after(self.grace) as grace:
            self._graces.add(grace)
            await process.wait()
        self._graces.discard(grace)
        if process.returncode is None:
            process.kill()
            await process.wait()

    def hurry(self) -> None:
        """No grace for those that are ending, or will be."""
        self.grace = 0
        for grace in self._graces:
            grace.cancel()


def _how(status: int) -> str:
    return f"exit code {status}" if status > 0 else f"signal {-status}"
