"""Libraries that take an executor, or a map function, and `trio_hub.Executor`."""

from __future__ import annotations

import asyncio  # noqa: TID251 - as in programs that run on asyncio
import warnings
from functools import partial
from typing import Any

import pytest

from trio_hub import Executor

from ..runtime.support import LIMIT
from .background import Background, background, connected
from .test_executor import divide


def test_asyncio(cluster: Background) -> None:
    """The executor may be made while the loop runs, as in a notebook."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        with connected(cluster) as executor:
            calls = [loop.run_in_executor(executor, divide, number) for number in range(20)]
            assert await asyncio.wait_for(asyncio.gather(*calls), LIMIT) == [number / 2 for number in range(20)]
            with pytest.raises(ZeroDivisionError):
                await loop.run_in_executor(executor, divide, 1, 0)

    asyncio.run(main())


def test_asyncio_cancels() -> None:
    async def main(cluster: Background, executor: Executor) -> None:
        loop = asyncio.get_running_loop()
        cluster.call(cluster.engines[0].hold)
        calls = [loop.run_in_executor(executor, divide, number) for number in range(3)]
        await asyncio.to_thread(cluster.wait_until, lambda: cluster.hub.statistics().tasks_queued == 2)
        calls[1].cancel()
        with pytest.raises(asyncio.CancelledError):
            await calls[1]
        await asyncio.to_thread(cluster.wait_until, lambda: cluster.hub.statistics().tasks_queued == 1)
        cluster.call(cluster.engines[0].release)
        assert await asyncio.wait_for(asyncio.gather(*calls[::2]), LIMIT) == [0, 1]

    with background() as cluster, connected(cluster) as executor:
        asyncio.run(main(cluster, executor))


def test_joblib(executor: Executor) -> None:
    joblib: Any = pytest.importorskip("joblib")
    from trio_hub.joblib import ExecutorBackend

    with joblib.parallel_config(backend=ExecutorBackend(executor)):
        parallel = joblib.Parallel()
        assert parallel(joblib.delayed(divide)(number) for number in range(100)) == [n / 2 for n in range(100)]
        assert parallel.n_jobs == -1
        with pytest.raises(ZeroDivisionError):
            parallel(joblib.delayed(divide)(1, number) for number in (1, 2, 0, 3))
        lazy = joblib.Parallel(return_as="generator", n_jobs=2)
        assert list(lazy(joblib.delayed(pow)(number, 2) for number in range(5))) == [0, 1, 4, 9, 16]
    assert executor.submit(divide, 1).result(LIMIT) == 0.5, "it stays open"


@pytest.mark.parametrize(("n_jobs", "effective"), [(None, 1), (-1, 2), (-2, 1), (-9, 1), (1, 1), (7, 7)])
def test_jobs_of_joblib(executor: Executor, n_jobs: int | None, effective: int) -> None:
    pytest.importorskip("joblib")
    from trio_hub.joblib import ExecutorBackend

    backend = ExecutorBackend(executor)
    assert backend.effective_n_jobs(n_jobs) == effective
    with pytest.raises(ValueError, match="n_jobs == 0"):
        backend.effective_n_jobs(0)


def test_scikit_learn(executor: Executor) -> None:
    joblib: Any = pytest.importorskip("joblib")
    pytest.importorskip("sklearn")
    from sklearn.datasets import load_iris
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import GridSearchCV

    from trio_hub.joblib import ExecutorBackend

    x, y = load_iris(return_X_y=True)
    search = GridSearchCV(LogisticRegression(max_iter=1000), {"C": [0.1, 1.0, 10.0]}, cv=3)
    alone = search.fit(x, y).cv_results_["mean_test_score"]
    with joblib.parallel_config(backend=ExecutorBackend(executor)):
        together = search.fit(x, y).cv_results_["mean_test_score"]
    assert list(alone) == list(together)


def test_dask(executor: Executor) -> None:
    dask: Any = pytest.importorskip("dask")
    halves = [dask.delayed(divide)(number) for number in range(10)]
    assert dask.delayed(sum)(halves).compute(scheduler=executor) == 22.5
    with dask.config.set(scheduler=executor), pytest.raises(ZeroDivisionError):
        dask.delayed(divide)(1, 0).compute()


def test_scipy(executor: Executor) -> None:
    optimize: Any = pytest.importorskip("scipy.optimize")
    bounds = [(-2.0, 2.0)] * 2
    search = partial(optimize.differential_evolution, optimize.rosen, bounds, updating="deferred", rng=1, maxiter=20)
    assert list(search(workers=executor.map).x) == list(search().x)


def test_adaptive(executor: Executor) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # warnings of the modules that adaptive imports
        adaptive: Any = pytest.importorskip("adaptive")
        learner = adaptive.Learner1D(divide, bounds=(-1.0, 1.0))
        adaptive.BlockingRunner(learner, npoints_goal=20, executor=executor, ntasks=2)
    assert learner.npoints >= 20
    assert learner.data[1.0] == 0.5
