"""The launchers of ipyparallel, and others with its interface, as the launching agent uses them.

Only the agent imports this module, since it needs ipyparallel.
"""

from __future__ import annotations

import copy
import difflib
import inspect
import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from ipyparallel.cluster import launcher as stock
from traitlets import TraitError

from ..config.pools import Pool
from ..logs import get_logger
from . import batch
from .asking import SYSTEMS, Asker, find_by_name
from .blockfiles import BlockFiles
from .commands import Places, engine_arguments, engine_program
from .launcher import Job, JobReport, JobState, LaunchError
from .processes import Processes, end, find_leader, going, process_key
from .statuses import MAX_WORDS
from .stockclasses import adapted, find_class, last_lines, read_config, stop, words

__all__ = ["StockLaunchers"]

log = get_logger("trio_hub.launching")

OURS = ("engine_cmd", "engine_args")
"""The traits that a pool sets itself, from settings of its own."""


class StockLaunchers:
    """Starts the blocks of a pool with a launcher that is an entry point of ``ipyparallel.engine_launchers``.

    Each block has a launcher object of its own. The settings in the profile's ``ipcluster_config.py`` apply, and the
    traits of the pool take precedence.
    """

    def __init__(self, pool: Pool, places: Places, files: BlockFiles) -> None:
        self.pool = pool
        self.places = places
        self.files = files
        self.cls = adapted(find_class(pool))
        self.config = read_config(places.profile_dir)
        self.system = batch.system_of(self.cls)
        self._live: dict[str, Any] = {}
        self._check_traits()

    def _check_traits(self) -> None:
        known = self.cls.class_traits(config=True)
        for name in self.pool.traits:
            if name in OURS:
                raise self._wrong(f"{name} is set by the pool's settings python, engine, engine_args and wrap_command")
            if name not in known:
                near = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
                hint = (
                    f"did you mean {' or '.join(near)}?"
                    if near
                    else f"it has {', '.join(sorted(set(known) - {*OURS}))}"
                )
                raise self._wrong(f"has no trait {name}: {hint}", of_launcher=True)
        if self._is_ssh() and self.places.profile_dir is None:
            raise self._wrong(
                "needs a hub with a profile directory, from which it copies the connection file", of_launcher=True
            )

    def _wrong(self, what: str, *, of_launcher: bool = False) -> LaunchError:
        return LaunchError(
            f"pool {self.pool.name}: {f'the launcher {self.pool.launcher} ' if of_launcher else ''}{what}"
        )

    # What the agent asks for

    async def submit(self, block: str, engines: int) -> Job:
        """Start a block. See `agent.Starter`."""
        launcher = self._make(block)
        self._reserve(launcher, block, engines)
        # written before the submission: if the agent is killed meanwhile, the next one knows that there may be a job
        self.files.write(block, {**self._facts(engines), "submitted": False})
        try:
            if self.system:
                batch.prepare(launcher, self.files.path(block))
            started = launcher.start(engines)
            if inspect.isawaitable(started):
                await started
        except BaseException as error:
            said = words(error, getattr(launcher, "last_answer", None))
            if isinstance(error, Exception) and self.system in batch.NAMED and batch.is_unanswered(said):
                # the job may be there all the same: it is looked for by its name
                return self._unresolved(block, engines, said)
            await self._undo(launcher)
            self.files.remove(block)
            if isinstance(error, Exception):
                raise LaunchError(said) from error
            raise
        self._keep(block, launcher)
        job = self._job(launcher, engines)
        self.files.write(block, job)
        return job

    def _unresolved(self, block: str, engines: int, said: str) -> Job:
        job = {**self._facts(engines), "submitted": False, "words": said}
        self.files.write(block, job)
        return job

    def look(self, jobs: Mapping[str, Job]) -> dict[str, JobReport]:
        """Return a report per block. See `agent.Starter`."""
        if not self.system:
            return {block: self._look_at_processes(block, job) for block, job in jobs.items()}
        found: dict[str, JobReport] = {}
        ids: dict[str, str] = {}
        for block, job in jobs.items():
            try:
                number = str(self._submitted(block, job).get("job") or "")
            except LaunchError as error:  # the batch system does not answer
                found[block] = JobReport(JobState.UNKNOWN, str(error))
                continue
            if number:
                ids[block] = number
            else:
                found[block] = self._not_found(block)
        if ids and self.system in SYSTEMS:
            told = SYSTEMS[self.system](list(ids.values()), self._asker())
            found |= {block: told.get(number) or JobReport(JobState.UNKNOWN) for block, number in ids.items()}
        return found

    def _submitted(self, block: str, job: Job) -> Job:
        """Return the job of a block, also if the answer to its submission got lost; empty if none is known."""
        return job if job.get("job") else self.recover(block) or {}

    def _not_found(self, block: str) -> JobReport:
        job = self.files.read(block)
        if job is None:
            return JobReport(JobState.ENDED, "the block was not submitted")
        if self.system in batch.NAMED:
            return JobReport(JobState.ENDED, job.get("words") or "the batch system has no job for this block")
        return JobReport(JobState.UNKNOWN, "the submission was interrupted, and the batch system gave no id of a job")

    async def cancel(self, block: str, job: Job) -> None:
        """End the job of a block. See `agent.Starter`."""
        job = self._submitted(block, job)
        if self._is_local():
            grace = self.pool.traits.get("stop_seconds_until_kill", self.cls.stop_seconds_until_kill.default_value)
            end(job.get("processes") or {}, grace)
            return
        launcher = self._restored(block, job)
        if launcher is None:
            return
        try:
            if self.system:
                batch.delete(launcher)
            else:
                await stop(launcher)
        except Exception as error:
            if self.system and self.look({block: job})[block].state is JobState.ENDED:
                return
            raise LaunchError(words(error)) from error

    async def _undo(self, launcher: Any) -> None:
        """End the engines of a block whose start has failed in its middle."""
        if self._is_local():
            end(self._processes(launcher), 0)
        elif getattr(launcher, "launchers", None):
            with suppress(Exception):
                await stop(launcher)

    def recover(self, block: str) -> Job | None:
        """Return the job of a block whose submission was interrupted. See `agent.Starter`."""
        job = self.files.read(block)
        if job is None or job.get("submitted"):
            return job
        launcher = self._make(block)
        if self.system:
            number = find_by_name(self.system, batch.job_name(block), self._asker())
            if number is None:
                return None
            launcher.job_id = number
        elif isinstance(launcher, stock.MPIEngineSetLauncher):
            pid = find_leader(f"--block={block}")
            if pid is None:
                return None
            launcher.pid, launcher.state = pid, "running"
        else:
            return None
        found = self._job(launcher, int(job.get("engines") or 0))
        self.files.write(block, found)
        return found

    def preview(self, block: str, engines: int) -> str:
        """Return what `submit` would submit. See `agent.Starter`."""
        from .stockpreview import of_launcher

        launcher = self._make(block, look_only=True)
        self._reserve(launcher, block, engines)
        return of_launcher(launcher, self.files.path(block), engines)

    # Launchers

    def _make(self, block: str, *, look_only: bool = False) -> Any:
        """Return a launcher for a block, which has not been started."""
        try:
            launcher = self.cls(**self._arguments(block))
        except TraitError as error:
            raise self._wrong(str(error)) from error
        self._set_up(launcher, block, look_only=look_only)
        return launcher

    def _arguments(self, block: str) -> dict[str, Any]:
        arguments = {
            "work_dir": ".",
            "config": self.config,
            "log": log.logger,
            "profile_dir": str(self._profile_dir(block)),
            "cluster_id": self.places.cluster_id,
            "identifier": batch.job_name(block),
            "engine_set_id": block,
        }
        if "output_file" in self.cls.class_traits():
            arguments["output_file"] = str(self._profile_dir(block) / "log" / f"{block}.log")
        # a copy, since a launcher of ssh changes the trait `engines` that it is given
        return {**arguments, **copy.deepcopy(dict(self.pool.traits))}

    def _set_up(self, launcher: Any, block: str, *, look_only: bool = False) -> None:
        python = launcher.remote_python if self._is_ssh() else ""
        launcher.engine_cmd = engine_program(self.pool, python=python)
        further = engine_arguments(self.pool, block, self.places, profile=not self._is_ssh())
        launcher.engine_args = [*launcher.engine_args, *further]
        if not look_only:
            (self._profile_dir(block) / "log").mkdir(parents=True, exist_ok=True)
        if self.system:
            launcher.batch_file = str(self.files.path(block) / os.path.basename(launcher.batch_file_name))
            batch.set_up(launcher, self.pool, block, self.files.path(block))

    def _profile_dir(self, block: str) -> Path:
        # without a profile, an engine of ipyparallel makes one in this directory, and not in the user's home
        return self.places.profile_dir or self.files.path(block)

    def _is_ssh(self) -> bool:
        return issubclass(self.cls, stock.SSHLauncher)

    def _is_local(self) -> bool:
        return not self.system and not self._is_ssh()

    def _asker(self) -> Asker:
        return Asker(self.cls(**self._arguments("any")).submit_command)

    def _reserve(self, launcher: Any, block: str, engines: int) -> None:
        """Leave a launcher of ssh only the slots of hosts that no other block of the pool uses."""
        if not self._is_ssh():
            return
        used = [
            key.rpartition("/")[0]
            for other in self.files.blocks()
            if other != block and self._restored(other, self.files.read(other) or {}) is not None
            for key in self._live[other].launchers
        ]
        hosts = launcher.engines
        free = {}
        for host, slots in hosts.items():
            number = (slots.get("n", 1) if isinstance(slots, dict) else slots) - used.count(host)
            if number > 0:
                free[host] = {**slots, "n": number} if isinstance(slots, dict) else number
        total = sum(slots["n"] if isinstance(slots, dict) else slots for slots in free.values())
        if total < engines:
            raise self._wrong(
                f"has {total} free slots on the hosts of its trait engines, and the block needs {engines}",
                of_launcher=True,
            )
        launcher.engines = free

    # Jobs

    def _facts(self, engines: int) -> dict[str, Any]:
        return {"launcher": self.pool.launcher, "job": "", "engines": engines}

    def _job(self, launcher: Any, engines: int) -> dict[str, Any]:
        if self.system:
            number = launcher.job_id
        elif hasattr(launcher, "launchers"):
            number = ", ".join(f"{key} pid {one.pid}" for key, one in launcher.launchers.items())
        else:
            number = str(launcher.pid)
        processes = self._processes(launcher) if self._is_local() else {}
        log_file = launcher.output_file if launcher.has_trait("output_file") else ""
        return {
            **self._facts(engines),
            "job": number,
            "submitted": True,
            "log": log_file,
            "processes": processes,
            "saved": launcher.to_dict(),
        }

    def _processes(self, launcher: Any) -> Processes:
        """Return the processes that a launcher has started on this machine."""
        started = list(launcher.launchers.values()) if hasattr(launcher, "launchers") else [launcher]
        return {str(one.pid): process_key(one.pid) for one in started if one.pid > 0}

    def _restored(self, block: str, job: Job) -> Any:
        """Return the launcher of a block that was submitted; None if its engines have ended."""
        if block in self._live:
            return self._live[block]
        saved = copy.deepcopy(dict(job.get("saved") or {}))
        if not saved:
            return None
        try:
            launcher = self.cls.from_dict(saved, **self._arguments(block))
        except stock.NotRunning:
            return None
        self._keep(block, launcher)
        return launcher

    def _keep(self, block: str, launcher: Any) -> None:
        if not self.system:  # the launcher object waits for the end of its processes
            self._live[block] = launcher

    def _look_at_processes(self, block: str, job: Job) -> JobReport:
        job = self._submitted(block, job)
        if self._is_local():
            launcher = self._live.get(block)
            # the agent learns the exit status of its own children a moment after their end
            is_running = bool(going(job.get("processes") or {})) or (launcher is not None and launcher.running)
        else:
            launcher = self._restored(block, job)
            is_running = launcher is not None and launcher.running
        if is_running:
            return JobReport(JobState.RUNNING)
        data = launcher.stop_data if launcher is not None else None
        code = data.get("exit_code") if isinstance(data, dict) else None
        if code is None or self._is_ssh():  # the launcher of ssh does not know the status, and gives -1
            return JobReport(JobState.ENDED)
        said = [f"exit status {code}", *last_lines(launcher)] if code else []
        return JobReport(JobState.ENDED, ": ".join(said)[:MAX_WORDS], code != 0)
