"""The examples of IPython Parallel's documentation, with a stock client and stock engines."""

from __future__ import annotations

import concurrent.futures
import itertools
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

import ipyparallel as ipp
import pytest
import zmq
from jupyter_client.session import Session

from .conftest import LIMIT, Cluster, wait_until

pytestmark = pytest.mark.interop

ENGINES = 3


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    cluster = Cluster(tmp_path_factory.mktemp("examples"), ENGINES)
    try:
        yield cluster
    finally:
        code = cluster.close()
    assert code == 0, cluster.log


@pytest.fixture(scope="module")
def rc(cluster: Cluster) -> ipp.Client:
    client = cluster.client()
    client.wait_for_engines(ENGINES, timeout=LIMIT)
    return client


@pytest.fixture
def view(rc: ipp.Client) -> Any:
    return rc.load_balanced_view()


def remote_error(result: Any) -> str:
    """The name of the error with which a request has failed."""
    with pytest.raises(ipp.RemoteError) as raised:
        result.get(timeout=LIMIT)
    return str(raised.value.ename)


def wait_for_file(path: str) -> str:
    import os
    import time

    while not os.path.exists(path):
        time.sleep(0.01)
    return path


# Dependencies between tasks


def test_a_graph_runs_in_order(view: Any) -> None:
    random = Random(1)
    graph = {node: random.sample(range(node), min(node, random.randint(0, 3))) for node in range(60)}
    results: dict[int, Any] = {}
    for node, parents in graph.items():
        with view.temp_flags(after=[results[parent] for parent in parents]):
            results[node] = view.apply_async(os.getpid)
    for result in results.values():
        result.get(timeout=LIMIT)
    for node, parents in graph.items():
        for parent in parents:
            assert results[node].metadata.started > results[parent].metadata.completed


def test_tasks_follow_another_to_its_engine(rc: ipp.Client, view: Any) -> None:
    first = {engine_id: rc.load_balanced_view(targets=[engine_id]).apply_async(os.getpid) for engine_id in rc.ids}
    following = {}
    for engine_id, result in first.items():
        with view.temp_flags(follow=result):
            following[engine_id] = [view.apply_async(os.getpid) for _ in range(5)]
    for engine_id, results in following.items():
        assert {result.get(timeout=LIMIT) for result in results} == {first[engine_id].get(timeout=LIMIT)}
        assert {result.engine_id for result in results} == {engine_id}
    with view.temp_flags(follow=list(first.values())):
        torn = view.apply_async(os.getpid)
    assert remote_error(torn) == "ImpossibleDependency"


def test_dependencies_on_success_and_failure(view: Any) -> None:
    good = view.apply_async(os.getpid)
    bad = view.apply_async(lambda: 1 / 0)
    outcomes = []
    for flags in ({}, {"all": False}, {"success": False, "failure": True}, {"failure": True}):
        with view.temp_flags(after=ipp.Dependency([good, bad], **flags)):
            result = view.apply_async(os.getpid)
        result.wait(LIMIT)
        outcomes.append("ok" if result.successful() else remote_error(result))
    assert outcomes == ["ImpossibleDependency", "ok", "ImpossibleDependency", "ok"]
    with view.temp_flags(after=["no such task"]):
        assert remote_error(view.apply_async(os.getpid)) == "InvalidDependency"


def test_a_time_limit(view: Any, tmp_path: Path) -> None:
    path = tmp_path / "go"
    blocker = view.apply_async(wait_for_file, str(path))
    with view.temp_flags(after=blocker):
        patient = view.apply_async(os.getpid)
        with view.temp_flags(timeout=0.1):
            impatient = view.apply_async(os.getpid)
    assert remote_error(impatient) == "TaskTimeout"
    path.touch()
    assert isinstance(patient.get(timeout=LIMIT), int)


# Functional dependencies


def has_pid(pid: int) -> bool:
    import os

    return os.getpid() == pid


def test_depend_finds_the_engine(rc: ipp.Client, view: Any) -> None:
    for pid in rc[:].apply_sync(os.getpid):
        task = ipp.depend(has_pid, pid)(os.getpid)
        assert [view.apply_async(task).get(timeout=LIMIT) for _ in range(3)] == [pid] * 3
    confined = rc.load_balanced_view(targets=rc.ids[:2])
    assert remote_error(confined.apply_async(ipp.depend(has_pid, -1)(os.getpid))) == "ImpossibleDependency"


@ipp.interactive
def double(x: float) -> float:
    return 2 * x


@ipp.interactive
def floor_of_double(x: float) -> Any:
    return math.floor(double(x))  # type: ignore[name-defined]  # noqa: F821


def test_require(rc: ipp.Client, view: Any) -> None:
    assert view.map_sync(ipp.require("math", double)(floor_of_double), [1.5, 2.6]) == [3, 5]
    confined = rc.load_balanced_view(targets=rc.ids[:1])
    impossible = confined.apply_async(ipp.require("no_such_module")(floor_of_double), 1.0)
    assert remote_error(impossible) == "ImpossibleDependency"


# Records


def test_labels(rc: ipp.Client, view: Any) -> None:
    with view.temp_flags(label="balanced"):
        balanced = [view.apply_async(os.getpid) for _ in range(3)]
    mapped = view.map_async(abs, range(4), label="mapped")
    direct = rc[:]
    with direct.temp_flags(label="direct"):
        called = direct.apply_async(os.getpid)
    labelled = {
        "balanced": [msg_id for result in balanced for msg_id in result.msg_ids],
        "mapped": mapped.msg_ids,
        "direct": called.msg_ids,
    }
    for label, msg_ids in labelled.items():
        found = rc.db_query({"label": label}, keys=["msg_id", "label"])
        assert sorted(record["msg_id"] for record in found) == sorted(msg_ids)
        assert {record["label"] for record in found} == {label}
    several = rc.db_query({"label": {"$in": ["balanced", "direct"]}}, keys=["msg_id"])
    assert len(several) == len(labelled["balanced"]) + len(labelled["direct"])
    for result in (*balanced, mapped, called):
        result.get(timeout=LIMIT)


def test_results_one_by_one_as_they_come(cluster: Cluster, rc: ipp.Client, view: Any) -> None:
    started = view.map_async(lambda x: x * x, range(30))
    pending = set(started.msg_ids)
    squares = {}
    deadline = time.monotonic() + LIMIT
    while pending:
        assert time.monotonic() < deadline
        rc.wait(pending, timeout=0.01)
        finished = pending - rc.outstanding
        pending -= finished
        for msg_id in finished:
            squares[msg_id] = rc.get_result(msg_id).get(timeout=LIMIT)
    assert [squares[msg_id] for msg_id in started.msg_ids] == [[x * x] for x in range(30)]
    # another client gets all of them from the hub
    other = cluster.client()
    assert other.get_result(started.msg_ids).get(timeout=LIMIT) == [[x * x] for x in range(30)]
    other.close()


# Output


def test_watching_output(cluster: Cluster, rc: ipp.Client) -> None:
    info = json.loads(cluster.client_file.read_text())
    session = Session(key=info["key"].encode(), packer=info["pack"], unpacker=info["unpack"])
    context: Any = zmq.Context()
    with context, context.socket(zmq.SUB) as socket:
        socket.linger = 0
        socket.subscribe(b"")
        socket.connect(f"{info['interface']}:{info['iopub']}")

        def printed() -> Any:
            """Return the output of a task that prints. The client's subscription may be too new for the first tasks."""
            result = rc[0].apply_async(lambda: print("seen by all"))
            result.get(timeout=LIMIT)
            while socket.poll(200):
                topics, frames = session.feed_identities(socket.recv_multipart())
                message = session.deserialize(frames)
                if message["msg_type"] == "stream" and message["parent_header"]["msg_id"] in result.msg_ids:
                    return topics, message["content"]
            return None

        topics, content = wait_until(printed, "output is heard")
    assert topics[-1] == b"engine.0.stdout", "behind the topic by which the hub sends to this subscriber"
    assert (content["name"], content["text"].strip()) == ("stdout", "seen by all")


# Engines among themselves


inbox: Any  # a global variable of each engine


def listen() -> str:
    import zmq

    global inbox
    inbox = zmq.Context.instance().socket(zmq.PULL)
    inbox.linger = 0
    return f"tcp://127.0.0.1:{inbox.bind_to_random_port('tcp://127.0.0.1')}"


def greet(urls: list[str], name: int) -> None:
    import zmq

    context: Any = zmq.Context.instance()
    for url in urls:
        with context.socket(zmq.PUSH) as socket:
            socket.connect(url)
            socket.send_json(name)


def greetings(count: int, limit: float) -> list[int]:
    with inbox:
        received: list[int] = []
        while len(received) < count and inbox.poll(1000 * limit):
            received.append(inbox.recv_json())
    return received


def test_engines_talk_to_each_other(rc: ipp.Client) -> None:
    urls = rc[:].apply_async(ipp.interactive(listen)).get_dict(timeout=LIMIT)
    sent = [rc[engine_id].apply_async(greet, list(urls.values()), engine_id) for engine_id in rc.ids]
    for result in sent:
        result.get(timeout=LIMIT)
    received = rc[:].apply_async(ipp.interactive(greetings), ENGINES, LIMIT).get(timeout=LIMIT)
    assert [sorted(names) for names in received] == [sorted(rc.ids)] * ENGINES


# Maps and progress


def test_iterating_over_a_map(view: Any) -> None:
    assert list(view.imap(abs, range(-20, 20))) == [abs(x) for x in range(-20, 20)]
    unordered = list(view.map_async(abs, range(100), ordered=False, chunksize=3))
    assert sorted(unordered) == list(range(100))


def test_unordered_results_come_as_they_are_ready(view: Any, tmp_path: Path) -> None:
    paths = [str(tmp_path / name) for name in ("late", "early")]
    results = view.imap(wait_for_file, paths, ordered=False)
    Path(paths[1]).touch()
    assert next(results) == paths[1]
    Path(paths[0]).touch()
    assert list(results) == [paths[0]]


def test_a_map_that_never_ends_is_taken_in_pieces(view: Any) -> None:
    results = view.imap(lambda x: 2 * x, itertools.count(), max_outstanding=10)
    assert [next(results) for _ in range(40)] == list(range(0, 80, 2))
    results.cancel()


def test_progress(view: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "go"
    path.touch()
    held = tmp_path / "held"
    result = view.map_async(wait_for_file, [str(path)] * 8 + [str(held)])
    wait_until(lambda: result.progress == 8, "all but one are done")
    assert not result.ready()
    held.touch()
    result.wait_interactive(interval=0.01, timeout=LIMIT, widget=False)
    assert result.progress == len(result) == 9
    assert result.ready()
    assert "9/9" in capsys.readouterr().out


# Ways in from elsewhere


def test_executor(rc: ipp.Client) -> None:
    with rc.executor() as executor:
        futures = [executor.submit(pow, x, 2) for x in range(20)]
        done = [future.result() for future in concurrent.futures.as_completed(futures, timeout=LIMIT)]
        assert sorted(done) == [x * x for x in range(20)]
        assert list(executor.map(abs, [-1, -2, -3])) == [1, 2, 3]
        failure = executor.submit(lambda: 1 / 0).exception(timeout=LIMIT)
        assert isinstance(failure, ipp.RemoteError)
        assert failure.ename == "ZeroDivisionError"


@pytest.mark.filterwarnings("ignore:.apply_async. is deprecated:DeprecationWarning")  # the stock backend's own
def test_joblib(view: Any) -> None:
    joblib = pytest.importorskip("joblib")
    view.register_joblib_backend("ipyparallel-examples")
    with joblib.parallel_backend("ipyparallel-examples"):
        squares = joblib.Parallel(n_jobs=ENGINES)(joblib.delayed(pow)(x, 2) for x in range(20))
    assert squares == [x * x for x in range(20)]


MAGICS = """
import json, os, sys
import ipyparallel as ipp
from IPython.core.interactiveshell import InteractiveShell

shell = InteractiveShell.instance()
rc = ipp.Client(profile_dir=sys.argv[1], timeout=60)
rc.wait_for_engines(int(sys.argv[2]), timeout=60)
view = rc[:]
view.block = True
view.activate()
rc[0].activate("_first")

def run(cell):
    shell.run_cell(cell).raise_error()

run("%px import os")
run("%px pid = os.getpid()")
run("%%px --noblock --targets 1\\nhere = 'only on one'\\nthere = 2")
run("%pxresult")
run("%px_first first = True")
run("%autopx")
run("doubled = pid * 2")
run("%autopx")
run("%%px\\nprint('printed')")
pids = view.apply_sync(os.getpid)
failed = shell.run_cell("%px 1 / 0").error_in_exec
print(json.dumps({
    "pids": view["pid"] == pids,
    "doubled": view["doubled"] == [2 * pid for pid in pids],
    "one": rc[1]["here"],
    "first": rc[0]["first"],
    "failed": type(failed).__name__,
}))
"""


def test_magics(cluster: Cluster, tmp_path: Path) -> None:
    """In a process of its own, since a shell is one of a kind in a process."""
    script = tmp_path / "magics.py"
    script.write_text(MAGICS)
    finished = subprocess.run(
        [sys.executable, str(script), str(cluster.profile_dir), str(ENGINES)],
        capture_output=True,
        text=True,
        timeout=2 * LIMIT,
        env=os.environ | {"IPYTHONDIR": str(tmp_path / "ipython")},
    )
    assert finished.returncode == 0, finished.stderr
    assert finished.stdout.count("printed") == ENGINES
    said = json.loads(finished.stdout.splitlines()[-1])
    assert said.pop("failed") in ("AlreadyDisplayedError", "CompositeError")
    assert said == {"pids": True, "doubled": True, "one": "only on one", "first": True}
