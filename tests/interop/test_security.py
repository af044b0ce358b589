"""Stock clients and engines at a hub that encrypts, and at one that comes back."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import ipyparallel as ipp
import pytest
import zmq

from .conftest import LIMIT, Cluster, wait_until

pytestmark = pytest.mark.interop


@contextmanager
def started(directory: Path, engines: int, *options: str) -> Iterator[Cluster]:
    directory.mkdir(exist_ok=True)
    cluster = Cluster(directory, engines, *options)
    try:
        yield cluster
    finally:
        cluster.close()


class ClientWithKeys(ipp.Client):  # type: ignore[misc]
    """A stock client takes no keys as arguments, but has them as attributes."""

    curve_publickey = b""
    curve_secretkey = b""


def new_keys() -> tuple[str, str]:
    public, secret = zmq.curve_keypair()
    return public.decode(), secret.decode()


def start_engine(cluster: Cluster, **environment: str) -> subprocess.Popen[bytes]:
    engine = subprocess.Popen(
        [sys.executable, "-m", "ipyparallel.engine", f"--profile-dir={cluster.profile_dir}"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=os.environ | environment,
    )
    cluster.engines.append(engine)
    return engine


@pytest.mark.parametrize("listed", [False, True], ids=["any key", "allowed keys"])
def test_a_stock_clients_day_over_curve(tmp_path: Path, listed: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    keys = {name: new_keys() for name in ("client", "engine", "stranger")}
    monkeypatch.setattr(ClientWithKeys, "curve_publickey", keys["client"][0].encode())
    monkeypatch.setattr(ClientWithKeys, "curve_secretkey", keys["client"][1].encode())
    options = ["--curve", "true"]
    if listed:
        file = tmp_path / "keys"
        file.write_text(f"{keys['client'][0]} # the client\n{keys['engine'][0]}\n")
        options += ["--curve-allowed-keys", str(file)]
    with started(tmp_path / "hub", 1, *options) as cluster:  # whose own engine is always allowed
        public, secret = keys["engine"]
        start_engine(cluster, IPP_CURVE_PUBLICKEY=public, IPP_CURVE_SECRETKEY=secret)
        rc = ClientWithKeys(profile_dir=str(cluster.profile_dir), timeout=LIMIT)
        cluster.clients.append(rc)
        rc.wait_for_engines(2, timeout=LIMIT)
        assert len(set(rc[:].apply_sync(os.getpid))) == 2
        assert rc.load_balanced_view().map_sync(lambda x: x * x, range(100)) == [x * x for x in range(100)]
        assert rc.broadcast_view().apply_sync(lambda: 5) == [5, 5]
        printed = rc[0].execute("print('hello')", block=True)
        wait_until(lambda: "hello" in printed.stdout, "the output")
        rc.abort([], block=True)  # through the engines' nannies
        if listed:
            public, secret = keys["stranger"]
            start_engine(cluster, IPP_CURVE_PUBLICKEY=public, IPP_CURVE_SECRETKEY=secret)
            wait_until(lambda: public in cluster.log, "the refusal of the stranger's engine")
            with pytest.raises(TimeoutError):
                ipp.Client(profile_dir=str(cluster.profile_dir), timeout=2)  # with fresh keys
            assert rc[:].apply_sync(lambda: 1) == [1, 1], "nobody else notices"


@pytest.mark.parametrize("encrypted", [False, True], ids=["plain", "curve"])
@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGKILL], ids=["stopped", "killed"])
def test_stock_engines_go_on_at_the_next_hub(tmp_path: Path, signum: signal.Signals, encrypted: bool) -> None:
    options = ["--restore", "true"]
    if encrypted:
        options += ["--ip", "*"]
    with started(tmp_path, 0, *options) as first:
        first.start_engine()
        first.start_engine()
        rc = first.client()
        rc.wait_for_engines(2, timeout=LIMIT)
        assert rc.ids == [0, 1]
        pids = rc[:].apply_sync(os.getpid)
        rc[:].push({"kept": 7}, block=True)
        rc.close()
        state = first.profile_dir / "log" / "engines.json"
        wait_until(lambda: state.exists() and state.read_text().count("-") >= 2, "both engines in the file")
        first.process.send_signal(signum)
        assert first.process.wait(LIMIT) == (0 if signum == signal.SIGTERM else -signum)
        with started(tmp_path, 0, *options) as second:
            rc = second.client()
            assert rc.ids == [0, 1], "at once"
            assert rc[:].apply_sync(os.getpid) == pids
            assert rc[:].pull("kept", block=True) == [7, 7]
            assert set(rc.load_balanced_view().map_sync(lambda x: os.getpid(), range(20))) <= set(pids)
            second.start_engine()
            rc.wait_for_engines(3, timeout=LIMIT)
            assert rc.ids == [0, 1, 2]


def test_the_hubs_own_engines_end_with_it_and_are_not_looked_for(tmp_path: Path) -> None:
    options = ["--restore", "true"]
    with started(tmp_path, 2, *options) as first:
        first.client().wait_for_engines(2, timeout=LIMIT)
        assert first.close() == 0
    with started(tmp_path, 1, *options) as second:
        rc = second.client()
        rc.wait_for_engines(1, timeout=LIMIT)
        assert rc.ids == [2]
