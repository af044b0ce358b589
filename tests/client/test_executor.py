"""`trio_hub.Executor`: what it shares with the executors of the standard library, and what a hub adds."""

from __future__ import annotations

import gc
import itertools
import operator
import pickle  # noqa: TID251 - exceptions are pickled by others, such as multiprocessing
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable, Iterator
from concurrent import futures
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy
import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from trio_hub import ConnectionFileError, EngineError, Executor, HubLostError, RemoteError, SerializationError
from trio_hub.client.failures import as_raised

from ..runtime.support import LIMIT
from .background import Background, background, connected

Wrong = (ZeroDivisionError, ValueError, KeyError, TypeError)


@pytest.fixture(params=["ours", "of threads"])
def any_executor(request: pytest.FixtureRequest, cluster: Background) -> Iterator[futures.Executor]:
    """Give an executor of ours or of the standard library, for tests of their common behaviour."""
    with Executor(connection_info=cluster.info) if request.param == "ours" else ThreadPoolExecutor(2) as executor:
        yield executor


def divide(a: float, b: float = 2.0) -> float:
    return a / b


def echo(*args: Any, **kwargs: Any) -> Any:
    return args, kwargs


def fail(kind: str) -> None:
    raise {"ValueError": ValueError, "KeyError": KeyError, "TypeError": TypeError}[kind](kind)


def outcome(get: Callable[[], Any]) -> Any:
    """Return what a function returns, or the class among `Wrong` of the error that it raises."""
    try:
        return get()
    except Wrong as error:
        return next(kind for kind in Wrong if isinstance(error, kind))


# The behaviour of every executor


def test_a_call(any_executor: futures.Executor) -> None:
    assert any_executor.submit(pow, 2, 8).result(LIMIT) == 256
    future = any_executor.submit(echo, 1, self=True, fn=7)
    assert future.result(LIMIT) == ((1,), {"self": True, "fn": 7})
    assert future.exception() is None
    assert future.done()
    assert not future.cancel()


def test_an_error(any_executor: futures.Executor) -> None:
    future = any_executor.submit(divide, 1, 0)
    assert isinstance(future.exception(LIMIT), ZeroDivisionError)
    with pytest.raises(ZeroDivisionError):
        future.result()


def test_map(any_executor: futures.Executor) -> None:
    assert list(any_executor.map(pow, range(10), range(10))) == list(map(pow, range(10), range(10)))
    assert list(any_executor.map(pow, range(5), itertools.repeat(3), timeout=LIMIT)) == [0, 1, 8, 27, 64]
    assert list(any_executor.map(pow, [], [])) == []
    results = any_executor.map(divmod, [1, 1, 1, 1], [2, 3, 0, 5])
    assert next(results) == (0, 1)
    assert next(results) == (0, 1)
    with pytest.raises(ZeroDivisionError):
        next(results)
    with pytest.raises(StopIteration):
        next(results)


def test_map_takes_all_items_at_once(any_executor: futures.Executor) -> None:
    items = iter(range(10))
    results = any_executor.map(divide, items)
    assert not list(items)
    assert list(results) == [number / 2 for number in range(10)]


def test_chunks(any_executor: futures.Executor) -> None:
    for size in (1, 3, 6, 50):
        assert list(any_executor.map(pow, range(50), [2] * 40, chunksize=size)) == [i**2 for i in range(40)]


def test_waiting(any_executor: futures.Executor) -> None:
    calls = [any_executor.submit(divide, number) for number in range(20)]
    assert {future.result() for future in futures.as_completed(calls, LIMIT)} == {n / 2 for n in range(20)}
    bad = any_executor.submit(divide, 1, 0)
    done, _ = futures.wait([bad, *calls], LIMIT, futures.FIRST_EXCEPTION)
    assert bad in done
    done, left = futures.wait([bad, *calls], LIMIT)
    assert len(done) == 21
    assert not left


def test_callbacks(any_executor: futures.Executor, caplog: pytest.LogCaptureFixture) -> None:
    called: list[Any] = []
    both = threading.Event()

    def note(future: Future[Any]) -> None:
        called.append(future.result())
        if len(called) < 3:
            any_executor.submit(divide, called[-1]).add_done_callback(note)
        else:
            both.set()

    def raises(future: Future[Any]) -> None:
        raise ValueError("a callback that fails")

    first = any_executor.submit(divide, 8)
    first.add_done_callback(raises)
    first.add_done_callback(note)
    assert both.wait(LIMIT)
    assert called == [4, 2, 1]
    assert "exception calling callback" in caplog.text


def test_after_shutdown(any_executor: futures.Executor) -> None:
    calls = [any_executor.submit(divide, number) for number in range(5)]
    any_executor.shutdown()
    assert all(future.done() for future in calls)
    with pytest.raises(RuntimeError, match="cannot schedule new futures after shutdown"):
        any_executor.submit(pow, 2, 5)
    with pytest.raises(RuntimeError):
        any_executor.map(pow, [2], [5])
    any_executor.shutdown()


def test_shutdown_without_waiting(any_executor: futures.Executor) -> None:
    calls = [any_executor.submit(divide, number) for number in range(50)]
    any_executor.shutdown(wait=False)
    assert [future.result(LIMIT) for future in calls] == [number / 2 for number in range(50)]


def test_many_threads(any_executor: futures.Executor) -> None:
    with ThreadPoolExecutor(8) as threads:

        def call(number: int) -> float:
            return any_executor.submit(divide, number).result(LIMIT)

        assert list(threads.map(call, range(200))) == [number / 2 for number in range(200)]


JOBS = st.lists(st.tuples(st.integers(0, 3), st.integers(-2, 2)), max_size=12)


@pytest.mark.property
@given(jobs=JOBS, chunksize=st.integers(1, 5), early=st.integers(0, 4))
def test_the_same_as_threads(shared: Executor, jobs: list[tuple[int, int]], chunksize: int, early: int) -> None:
    with ThreadPoolExecutor(2) as threads:
        singles = [
            [outcome(future.result) for future in [executor.submit(divmod, a, b) for a, b in jobs]]
            for executor in (threads, shared)
        ]
        assert singles[0] == singles[1]
        a, b = [a for a, _ in jobs], [b for _, b in jobs]
        assert taken(threads.map(divmod, a, b), early) == taken(shared.map(divmod, a, b), early)
        good = [1 if b == 0 else b for b in b]
        chunked = shared.map(divmod, a, good, chunksize=chunksize)
        assert taken(threads.map(divmod, a, good), early) == taken(chunked, early)


@pytest.fixture(scope="module")
def shared(cluster: Background) -> Iterator[Executor]:
    with connected(cluster) as executor:
        yield executor


def taken(results: Iterator[Any], early: int) -> list[Any]:
    """Return what an iterator yields until it ends, raises, or has yielded ``early`` items. 0 means no limit."""
    found = []
    for _ in range(early or 100):
        try:
            found.append(next(results))
        except StopIteration:
            break
        except Wrong as error:
            found.append(next(kind for kind in Wrong if isinstance(error, kind)))
            break
    return found


# Errors


def test_the_remote_traceback_is_the_cause(executor: Executor) -> None:
    error = executor.submit(divide, 1, 0).exception(LIMIT)
    assert isinstance(error, RemoteError)
    assert (error.ename, error.engine in (0, 1)) == ("ZeroDivisionError", True)
    assert str(error).endswith(f"division by zero (engine {error.engine})")
    assert str(error.__cause__) == '\n"""\nhere\nthere\n"""'


@pytest.mark.parametrize("ename", ["KeyError", "OSError", "FileNotFoundError", "AssertionError", "RecursionError"])
def test_errors_of_python_belong_to_their_classes(ename: str) -> None:
    import builtins

    error = as_raised(RemoteError(ename, "why", "\x1b[31mtrace\x1b[0m", 3))
    assert isinstance(error, getattr(builtins, ename))
    assert str(error) == f"{ename}: why (engine 3)"
    assert "\x1b" not in str(error.__cause__)
    again = pickle.loads(pickle.dumps(error))
    assert isinstance(again, getattr(builtins, ename))
    assert (again.ename, again.evalue, again.traceback, again.engine) == (ename, "why", error.traceback, 3)


@pytest.mark.parametrize(
    "ename", ["EngineError", "StopIteration", "UnicodeDecodeError", "ExceptionGroup", "SystemExit", "print", ""]
)
def test_other_errors_are_remote_errors(ename: str) -> None:
    error = as_raised(RemoteError(ename, "why"))
    assert type(error) is RemoteError
    assert error.__cause__ is None
    assert str(pickle.loads(pickle.dumps(error))) == f"{ename}: why"


def test_what_cannot_be_packed_or_unpacked(executor: Executor) -> None:
    lock = threading.Lock()
    assert isinstance(executor.submit(divide, lock).exception(), SerializationError)  # type: ignore[arg-type]
    assert isinstance(executor.submit(lambda: lock).exception(), SerializationError)
    results = executor.map(lambda number: (number, lock), [1, 2])
    with pytest.raises(SerializationError):
        next(results)
    with pytest.raises(SerializationError):
        next(executor.map(divide, [lock, lock], chunksize=2))
    assert isinstance(executor.submit(Unreadable).exception(LIMIT), SerializationError)
    assert executor.submit(divide, 2).result(LIMIT) == 1


class Unreadable:
    """An object that can be pickled, but not unpickled."""

    def __reduce__(self) -> Any:
        return operator.truediv, (1, 0)


def test_a_function_that_stops_a_chunk_early(executor: Executor) -> None:
    results = executor.map(next, [iter([1]), iter([]), iter([3])], chunksize=3)
    assert next(results) == 1
    with pytest.raises(RuntimeError, match="StopIteration"):
        next(results)


def test_arguments_that_make_no_sense(cluster: Background, executor: Executor, tmp_path: Path) -> None:
    before = client_threads()
    with pytest.raises(ValueError, match="chunksize"):
        executor.map(divide, [1], chunksize=0)
    with pytest.raises(ValueError, match="buffersize"):
        executor.map(divide, [1], buffersize=0)
    with pytest.raises(ConnectionFileError):
        Executor(profile_dir=tmp_path)
    with pytest.raises(EngineError, match="no engine 7"):
        Executor(connection_info=cluster.info, targets=[0, 7])
    with pytest.raises(HubLostError):
        Executor(connection_info=cluster.info | {"key": "wrong"}, answer_within=0.2)
    assert client_threads() == before


def client_threads() -> list[threading.Thread]:
    return [one for one in threading.enumerate() if one.name == "trio_hub.Executor"]


# Arguments


def test_arguments_are_those_of_the_moment(executor: Executor) -> None:
    """An argument that is changed after `submit` is sent as it was."""
    array, items = numpy.zeros(100_000), [1]
    with blocked(executor):
        sums: list[Future[Any]] = [executor.submit(numpy.sum, array), executor.submit(sum, items)]
        array += 1
        items.append(1)
    assert [future.result(LIMIT) for future in sums] == [0, 1]


def test_large_values(executor: Executor) -> None:
    array = numpy.arange(1_000_000.0)
    assert (executor.submit(numpy.negative, array).result(LIMIT) == -array).all()
    assert len(executor.submit(echo, b"x" * 3_000_000).result(LIMIT)[0][0]) == 3_000_000


@contextmanager
def blocked(executor: Executor) -> Iterator[None]:
    """Keep the executor's thread from doing anything, for the length of the block."""
    entered, leave = threading.Event(), threading.Event()

    def wait() -> None:
        entered.set()
        leave.wait(LIMIT)

    # Not in a callback of a future: if the future is done by then, this thread makes the callback.
    assert executor._client._token is not None
    executor._client._token.run_sync_soon(wait)
    assert entered.wait(LIMIT)
    try:
        yield
    finally:
        leave.set()


def test_one_wake_up_for_many_calls(executor: Executor, monkeypatch: pytest.MonkeyPatch) -> None:
    woken: list[Any] = []
    run_sync_soon = trio.lowlevel.TrioToken.run_sync_soon

    def counted(token: trio.lowlevel.TrioToken, function: Any, *args: Any, **kwargs: Any) -> None:
        if token is executor._client._token:
            woken.append(function)
        run_sync_soon(token, function, *args, **kwargs)

    with blocked(executor):
        monkeypatch.setattr(trio.lowlevel.TrioToken, "run_sync_soon", counted)
        results = executor.map(divide, range(1000))
        assert len(woken) == 1
    assert sum(results) == 999 * 500 / 2
    assert len(woken) < 30, "calls are sent in slices, between which replies are received"


def test_targets(cluster: Background) -> None:
    before = [len(engine.requests) for engine in cluster.engines]
    for targets in (1, [1], cluster.engines[1].uuid):
        with connected(cluster, targets=targets) as executor:
            assert list(executor.map(divide, range(10))) == [number / 2 for number in range(10)]
    assert [len(engine.requests) for engine in cluster.engines] == [before[0], before[1] + 30]


def test_engines(executor: Executor, cluster: Background) -> None:
    assert executor.engines == {engine.id: engine.uuid for engine in cluster.engines}
    assert executor._max_workers == 2
    assert "2 engines" in repr(executor)


def test_an_endless_map(executor: Executor) -> None:
    numbers = itertools.count()
    results = executor.map(divide, numbers, buffersize=5)
    assert [next(results) for _ in range(20)] == [number / 2 for number in range(20)]
    assert next(numbers) == 25
    results.close()  # type: ignore[attr-defined]
    chunked = executor.map(divide, itertools.count(), chunksize=10, buffersize=2)
    assert [next(chunked) for _ in range(100)] == [number / 2 for number in range(100)]


# Cancelling, and the end. These have clusters of their own.


def test_a_cancelled_call_leaves_the_queue() -> None:
    with background() as cluster, connected(cluster) as executor:
        (engine,) = cluster.engines
        cluster.call(engine.hold)
        first, second, third = [executor.submit(divide, number) for number in range(3)]
        cluster.wait_until(lambda: cluster.hub.statistics().tasks_queued == 2)
        assert second.cancel()
        assert second.cancelled()
        assert second in futures.wait([second], LIMIT).done
        cluster.wait_until(lambda: cluster.hub.statistics().tasks_queued == 1)
        with pytest.raises(futures.TimeoutError):
            first.result(0.01)
        assert not first.running()
        cluster.call(engine.release)
        assert (first.result(LIMIT), third.result(LIMIT)) == (0, 1)
        with pytest.raises(futures.CancelledError):
            second.result()
        assert cluster.hub.statistics().outcomes["task"]["aborted"] == 1


def test_a_call_that_was_cancelled_before_it_was_sent() -> None:
    with background() as cluster, connected(cluster) as executor:
        with blocked(executor):
            calls = [executor.submit(divide, number) for number in range(10)]
            assert all(future.cancel() for future in calls[1:])
        assert calls[0].result(LIMIT) == 0
        assert futures.wait(calls, LIMIT).done == set(calls)
        assert len(cluster.engines[0].requests) == 1


def test_a_map_that_ends_early_withdraws_the_rest() -> None:
    with background() as cluster, connected(cluster) as executor:
        (engine,) = cluster.engines
        results = executor.map(divide, [2, 4])
        assert next(results) == 1
        cluster.call(engine.hold)
        results = executor.map(divide, range(50), timeout=0.05)
        with pytest.raises(futures.TimeoutError):
            next(results)
        cluster.wait_until(lambda: cluster.hub.statistics().tasks_queued == 0)
        cluster.call(engine.release)
        assert executor.submit(divide, 1).result(LIMIT) == 0.5


def test_shutdown_that_cancels() -> None:
    """Calls that run go on, all others are cancelled."""
    with background() as cluster:
        (engine,) = cluster.engines
        executor = Executor(connection_info=cluster.info)
        cluster.call(engine.hold)
        calls = [executor.submit(divide, number) for number in range(100)]
        cluster.wait_until(lambda: cluster.hub.statistics().tasks_queued == 99)
        executor.shutdown(wait=False, cancel_futures=True)
        cluster.wait_until(lambda: cluster.hub.statistics().tasks_queued == 0)
        assert not calls[0].done()
        cluster.call(engine.release)
        executor.shutdown()
        assert [future.cancelled() for future in calls] == [False] + 99 * [True]
        assert calls[0].result() == 0


def test_an_executor_that_nobody_has_any_more(cluster: Background) -> None:
    executor = Executor(connection_info=cluster.info)
    thread = executor._client._thread
    future = executor.submit(divide, 1)
    del executor
    gc.collect()
    assert future.result(LIMIT) == 0.5
    thread.join(LIMIT)
    assert not thread.is_alive()


def test_calls_outlive_a_restart_of_the_hub(tmp_path: Path) -> None:
    with background(profile_dir=tmp_path, restore=True, durability="strict") as cluster:
        (engine,) = cluster.engines
        with connected(cluster) as executor:
            cluster.call(engine.hold)
            calls = [executor.submit(divide, number) for number in range(20)]
            cluster.wait(engine.wait_requests, 1)
            cluster.restart_hub()
            cluster.call(engine.release)
            assert [future.result(LIMIT) for future in calls] == [number / 2 for number in range(20)]


def test_the_hub_is_gone_for_good() -> None:
    with background() as cluster:
        executor = Executor(connection_info=cluster.info, lost_after=0.5)
        cluster.call(cluster.engines[0].hold)
        future = executor.submit(divide, 1)
        cluster.wait(cluster.engines[0].wait_requests, 1)
        cluster.call(cluster.hub._host.channels["task_in"].hold)
        cluster.call(cluster.hub._host.channels["query"].hold)
        assert isinstance(future.exception(LIMIT), HubLostError)
        assert isinstance(executor.submit(divide, 1).exception(LIMIT), HubLostError)
        executor.shutdown()


def test_a_client_that_fails_leaves_no_future_waiting(cluster: Background, monkeypatch: pytest.MonkeyPatch) -> None:
    executor = Executor(connection_info=cluster.info)
    with blocked(executor):
        future = executor.submit(divide, 1)
        monkeypatch.setattr(executor._client, "_withdraw_cancelled", None)
    error = future.exception(LIMIT)
    assert isinstance(error, futures.BrokenExecutor)
    assert isinstance(error.__cause__, trio.TrioInternalError)
    executor.shutdown()
    with pytest.raises(futures.BrokenExecutor):
        executor.submit(divide, 1)


def test_nothing_is_left_behind(cluster: Background) -> None:
    before = client_threads()
    with connected(cluster) as executor:
        assert executor.submit(divide, 1).result(LIMIT) == 0.5
        assert len(client_threads()) == len(before) + 1
    assert client_threads() == before


# Processes


def run_script(cluster: Background, script: str, *, exit_code: int = 0) -> str:
    """Run a script to its end, with `executor` connected, and return its output."""
    start = f"import sys, trio_hub\nexecutor = trio_hub.Executor(connection_info={cluster.info!r})\n"
    done = subprocess.run(
        # Python 3.12 and later warn of a fork beside threads.
        [sys.executable, "-W", "ignore::DeprecationWarning", "-c", start + textwrap.dedent(script)],
        capture_output=True,
        text=True,
        timeout=LIMIT,
    )
    assert done.returncode == exit_code, done.stderr
    assert not done.stderr
    return done.stdout


@pytest.mark.parametrize("ending", ["", "sys.exit(3)", "executor.shutdown(wait=False)", "del executor"])
def test_the_interpreter_ends_when_all_calls_have(cluster: Background, ending: str) -> None:
    script = "for number in range(3): executor.submit(pow, 2, number).add_done_callback(lambda f: print(f.result()))\n"
    printed = run_script(cluster, script + ending, exit_code=3 if "exit" in ending else 0)
    assert sorted(printed.split()) == ["1", "2", "4"]


def test_threads_go_on_submitting_when_the_main_thread_ends(cluster: Background) -> None:
    script = """
    import threading
    def work():
        threading.main_thread().join()
        print(executor.submit(pow, 2, 5).result())
    threading.Thread(target=work).start()
    """
    assert run_script(cluster, script) == "32\n"


def test_a_process_that_was_forked(cluster: Background) -> None:
    script = """
    import os
    future = executor.submit(pow, 2, 4)
    pid = os.fork()
    if pid == 0:
        try:
            executor.submit(pow, 2, 4)
        except RuntimeError as error:
            print(error, flush=True)
        executor.shutdown()
        sys.exit(5)
    print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), future.result(), executor.submit(pow, 2, 5).result())
    """
    first, last = run_script(cluster, script).splitlines()
    assert "make another executor" in first
    assert last == "5 16 32"
