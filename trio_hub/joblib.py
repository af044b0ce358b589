"""A backend with which joblib, and libraries that use joblib such as scikit-learn, run on a cluster.

::

    with trio_hub.Executor() as executor, joblib.parallel_config(backend=ExecutorBackend(executor)):
        joblib.Parallel()(joblib.delayed(pow)(number, 2) for number in range(10))
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

from joblib.parallel import AutoBatchingMixin, ParallelBackendBase

from .client import Executor

__all__ = ["ExecutorBackend"]


class ExecutorBackend(AutoBatchingMixin, ParallelBackendBase):  # type: ignore[misc] # joblib has no types
    """A backend of joblib that runs batches of calls through an executor.

    By default, joblib uses as many jobs as the cluster has engines.

    Args:
        executor: The executor. The backend does not shut it down.
    """

    supports_retrieve_callback = True
    default_n_jobs = -1

    def __init__(self, executor: Executor, **settings: Any) -> None:
        super().__init__(**settings)
        self._executor = executor
        self._unfinished: set[Future[Any]] = set()

    def effective_n_jobs(self, n_jobs: int | None) -> int:
        """Return the number of jobs for joblib's ``n_jobs``: -1 means one job per engine, -2 means one job less."""
        if n_jobs == 0:
            raise ValueError("n_jobs == 0 in Parallel has no meaning")
        if n_jobs is None:
            return 1
        return n_jobs if n_jobs > 0 else max(1, len(self._executor.engines) + 1 + n_jobs)

    def submit(self, func: Callable[[], Any], callback: Callable[[Future[Any]], Any] | None = None) -> Future[Any]:
        """Run a batch of calls, and call ``callback`` with the future when the batch is finished."""
        future = self._executor.submit(func)
        self._unfinished.add(future)
        future.add_done_callback(self._unfinished.discard)
        if callback is not None:
            future.add_done_callback(callback)
        return future

    apply_async = submit  # its name before joblib 1.5

    def retrieve_result_callback(self, out: Future[Any]) -> Any:
        """Return the result of a batch that is finished, or raise its exception."""
        return out.result()

    def abort_everything(self, ensure_ready: bool = True) -> None:
        """Cancel all batches that have not begun. The backend can be used again."""
        for future in list(self._unfinished):
            future.cancel()
