"""The process behind the entry of jupyter-server-proxy, without Jupyter: which hub it finds, and what it passes on."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio

from trio_hub import HubConfig
from trio_hub.dashboard.published import find_dashboards, publish, published_path
from trio_hub.jupyter import ICON, setup
from trio_hub.jupyter.finding import NoDashboard, Target, find_target
from trio_hub.jupyter.forwarding import MAX_STREAMS, Forwarder
from trio_hub.runtime.processes import boot_id, start_time
from trio_hub.testing import open_hub

from ..runtime.support import LIMIT, eventually, within_limit
from .support import Answer, EventReader, answer_in, open_dashboard, request

TOKEN = "0123456789abcdef"
ADDRESS = "http://127.0.0.1:8788"


class Proxy:
    """A forwarder, and a browser that asks it."""

    def __init__(self, forwarder: Forwarder, nursery: trio.Nursery) -> None:
        self.forwarder = forwarder
        self._nursery = nursery

    async def connect(self, asked: bytes) -> trio.SocketStream:
        ours, theirs = socket.socketpair()
        self._nursery.start_soon(self.forwarder.serve, trio.SocketStream(trio.socket.from_stdlib_socket(theirs)))
        stream = trio.SocketStream(trio.socket.from_stdlib_socket(ours))
        await stream.send_all(asked)
        return stream

    async def ask(
        self, path: str, headers: dict[str, str] | None = None, *, method: str = "GET", body: bytes = b""
    ) -> Answer:
        fields = (headers or {}) | ({"Content-Length": str(len(body))} if body else {})
        async with await self.connect(request(path, "localhost", fields, method) + body) as stream:
            return answer_in(b"".join([chunk async for chunk in stream]))


@asynccontextmanager
async def proxy(find: Callable[[], Target], environ: Mapping[str, str] | None = None) -> AsyncGenerator[Proxy, None]:
    async with within_limit(), trio.open_nursery() as nursery:
        yield Proxy(Forwarder(find, environ or {}), nursery)
        nursery.cancel_scope.cancel()


@asynccontextmanager
async def upstream(answer: bytes) -> AsyncGenerator[tuple[Target, list[bytes]], None]:
    """A server that gives the same answer to all, and the requests that it has got."""
    asked: list[bytes] = []

    async def serve(stream: trio.SocketStream) -> None:
        asked.append(await stream.receive_some())
        await stream.send_all(answer)
        await stream.aclose()

    async with trio.open_nursery() as nursery:
        (listener,) = await nursery.start(partial(trio.serve_tcp, serve, 0, host="127.0.0.1"))
        yield Target("127.0.0.1", listener.socket.getsockname()[1], TOKEN), asked
        nursery.cancel_scope.cancel()


def environ(profile: Path, **variables: str) -> dict[str, str]:
    return {"HOME": str(profile.parent), "TRIO_HUB_PROFILE_DIR": str(profile), **variables}


def write(path: Path, **changes: Any) -> None:
    """Write the file of a dashboard of this process, with changes."""
    pid = os.getpid()
    told = {"address": ADDRESS, "token": TOKEN, "host": socket.gethostname(), "boot": boot_id(), "pid": pid}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch(0o600)
    path.write_text(json.dumps(told | {"started": start_time(pid)} | changes))


# Finding the hub


async def test_a_hub_tells_its_user_where_its_dashboard_is(tmp_path: Path) -> None:
    config = HubConfig(profile_dir=tmp_path, cluster_id="c", dashboard_prefix="/x")
    path = published_path(tmp_path, "c")
    async with within_limit(), open_hub(config) as hub, open_dashboard(hub) as dashboard:
        assert path.stat().st_mode & 0o777 == 0o600
        (found,) = find_dashboards(tmp_path).values()
        assert (found.address, found.token, found.pid) == (dashboard.address, dashboard.token, os.getpid())
        assert found.is_here
        assert dashboard.token not in repr(found)
        assert find_target(environ(tmp_path)) == Target("127.0.0.1", dashboard.port, dashboard.token)
    assert not path.exists()


def test_the_file_of_another_hub_stays(tmp_path: Path) -> None:
    path = published_path(tmp_path)
    with publish(path, ADDRESS, TOKEN):
        write(path, address="http://127.0.0.1:1")
    assert path.exists()


def test_a_hub_without_a_profile_or_with_a_full_disk_serves_without_the_file(tmp_path: Path) -> None:
    with publish(None, ADDRESS, TOKEN):
        pass
    (tmp_path / "security").write_text("no directory")
    with publish(published_path(tmp_path), ADDRESS, TOKEN):
        assert find_dashboards(tmp_path) == {}


def test_the_environment_chooses_the_hub(tmp_path: Path) -> None:
    for number, cluster_id in enumerate(["a", "", "b"]):
        write(published_path(tmp_path, cluster_id), address=f"http://127.0.0.1:{number + 1}")
        os.utime(published_path(tmp_path, cluster_id), (number, number))
    assert find_target(environ(tmp_path)).port == 2
    assert find_target(environ(tmp_path, TRIO_HUB_CLUSTER_ID="a")).port == 1
    published_path(tmp_path).unlink()
    assert find_target(environ(tmp_path)).port == 3, "the latest"
    with pytest.raises(NoDashboard, match="with the cluster id c"):
        find_target(environ(tmp_path, IPP_CLUSTER_ID="c"))
    profile = {"HOME": str(tmp_path), "TRIO_HUB_PROFILE": "lab"}
    write(published_path(tmp_path / ".ipython" / "profile_lab"), address="http://[::1]:4/hub")
    assert find_target(profile) == Target("::1", 4, TOKEN)


@pytest.mark.parametrize(
    "changes",
    [
        {"pid": 2**22 + 1},
        {"started": 1},
        {"boot": "another"},
        {"token": None},
        {"address": "https://127.0.0.1:1"},
        {"address": "http://127.0.0.1"},
        {"address": "http://127.0.0.1:99999"},
        {"address": "http://[::1:1"},
        {"more": 1},
    ],
    ids=str,
)
def test_a_dashboard_that_has_ended_or_is_damaged_gets_no_token(tmp_path: Path, changes: dict[str, Any]) -> None:
    write(published_path(tmp_path), **changes)
    with pytest.raises(NoDashboard, match="No hub runs in the profile"):
        find_target(environ(tmp_path))


def test_a_file_that_others_can_write_is_not_used(tmp_path: Path) -> None:
    write(published_path(tmp_path))
    published_path(tmp_path).chmod(0o660)
    with pytest.raises(NoDashboard):
        find_target(environ(tmp_path))


def test_a_hub_on_another_machine(tmp_path: Path) -> None:
    write(published_path(tmp_path), host="node7")
    with pytest.raises(NoDashboard, match="The hub runs on node7, and only that machine can reach"):
        find_target(environ(tmp_path))
    write(published_path(tmp_path), host="node7", address="http://node7:5")
    assert find_target(environ(tmp_path)) == Target("node7", 5, TOKEN)


def test_a_hub_without_a_dashboard_and_unusable_settings_are_told(tmp_path: Path) -> None:
    (tmp_path / "security").mkdir()
    (tmp_path / "security" / "ipcontroller-x-client.json").touch()
    with pytest.raises(NoDashboard, match="the hub has no dashboard, or has ended"):
        find_target(environ(tmp_path))
    with pytest.raises(NoDashboard, match=r"The settings are not usable: .*TRIO_HUB_PING"):
        find_target(environ(tmp_path, TRIO_HUB_PING="soon"))


# Passing on


async def test_what_is_passed_on_in_both_directions() -> None:
    answer = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nSet-Cookie: token=1\r\nX-Kept: yes\r\nKeep-Alive: 5\r\n\r\nok"
    async with upstream(answer) as (target, asked), proxy(lambda: target, {"JUPYTERHUB_USER": "jo"}) as there:
        got = await there.ask(
            "/api/status?a=1&token=of-jupyter&b",
            {"Cookie": "session=of-jupyter", "Authorization": "token of-jupyter", "X-Forwarded-Prefix": "/p"},
        )
    assert got == Answer(200, {"content-length": "2", "x-kept": "yes", "connection": "close"}, "ok")
    (sent,) = asked
    first, *lines = sent.decode().strip().split("\r\n")
    assert first == "GET /api/status?a=1&b HTTP/1.1"
    assert {name.lower(): value for name, value in (line.split(": ") for line in lines)} == {
        "host": f"127.0.0.1:{target.port}",
        "authorization": f"Bearer {TOKEN}",
        "connection": "close",
        "cookie": "trio_hub_actor=jo",
        "x-forwarded-prefix": "/p",
    }


async def test_an_odd_name_of_a_user_is_not_passed_on() -> None:
    answer = b"HTTP/1.1 204 OK\r\n\r\n"
    async with upstream(answer) as (target, asked), proxy(lambda: target, {"JUPYTERHUB_USER": "a; b=c"}) as there:
        assert (await there.ask("/?token=x")).status == 204
    assert b"cookie" not in asked[0].lower()
    assert asked[0].startswith(b"GET / HTTP/1.1")


@pytest.mark.parametrize("answer", [b"", b"nonsense\r\n\r\n", b"HTTP/1.1 200 OK\r\nContent-"])
async def test_a_hub_that_does_not_answer(answer: bytes) -> None:
    async with upstream(answer) as (target, _), proxy(lambda: target) as there:
        got = await there.ask("/api/actions/purge", method="POST", body=b"{}")
    assert got.status == 502
    assert json.loads(got.body)["error"].startswith("The hub has closed the connection without an answer.")


async def test_an_answer_that_breaks_off_is_not_taken_for_whole() -> None:
    async with (
        upstream(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf") as (target, _),
        proxy(lambda: target) as there,
    ):
        got = await there.ask("/api/tasks")
    assert (got.headers["content-length"], got.body) == ("9", "half")


async def test_nobody_listens() -> None:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        async with proxy(lambda: Target("127.0.0.1", bound.getsockname()[1], TOKEN)) as there:
            answer = await there.ask("/")
    assert answer.status == 503
    assert "does not accept connections" in json.loads(answer.body)["error"]


async def test_without_a_hub_a_person_gets_a_page_and_a_script_gets_json() -> None:
    def find() -> Target:
        raise NoDashboard("No <hub>.", "Start it:", "trio-hub serve --dashboard 0")

    async with proxy(find) as there:
        page = await there.ask("/", {"Accept": "text/html,*/*"})
        script = await there.ask("/api/status", {"Accept": "application/json"})
    assert (page.status, script.status) == (503, 503)
    assert "<p>No &lt;hub&gt;.</p>\n<p>Start it:</p>\n<pre><code>trio-hub serve --dashboard 0</code></pre>" in page.body
    assert page.headers["content-security-policy"].startswith("default-src 'none'")
    assert json.loads(script.body) == {"error": "No <hub>. Start it: trio-hub serve --dashboard 0"}


async def test_a_request_that_is_not_http_is_no_harm() -> None:
    async with (
        proxy(lambda: Target("127.0.0.1", 1, TOKEN)) as there,
        await there.connect(b"nonsense\r\n\r\n") as stream,
    ):
        assert await stream.receive_some() == b""


async def test_events_arrive_at_once_and_old_streams_make_room(tmp_path: Path) -> None:
    asked = request("/api/events", "localhost", {"Accept": "text/event-stream"})
    async with (
        within_limit(),
        open_hub(HubConfig(profile_dir=tmp_path)) as hub,
        open_dashboard(hub),
        proxy(lambda: find_target(environ(tmp_path))) as there,
        AsyncExitStack() as stack,
    ):
        streams = []
        for _ in range(MAX_STREAMS):
            streams.append(await stack.enter_async_context(await there.connect(asked)))
            assert (await EventReader(streams[-1]).next())[0] == "overview"
        first, second, *_ = streams
        open_streams = there.forwarder._streams
        await second.aclose()  # as the page of a browser that talks to the process itself
        await eventually(lambda: len(open_streams) == MAX_STREAMS - 1)
        for _ in range(2):
            streams.append(await stack.enter_async_context(await there.connect(asked)))
            assert (await EventReader(streams[-1]).next())[0] == "overview"
            await eventually(lambda: len(open_streams) == MAX_STREAMS)
        rest = b"".join([chunk async for chunk in first])
        assert rest.endswith(b"0\r\n\r\n"), "the oldest has ended in order"
        assert (await EventReader(streams[-1]).next())[0] == "overview"


# The process


def test_the_entry_of_jupyter_server_proxy() -> None:
    entry = setup()
    assert entry["command"] == [sys.executable, "-m", "trio_hub.jupyter", "{unix_socket}"]
    assert entry["unix_socket"] is True
    assert ICON.read_text().startswith("<svg")
    assert entry["launcher_entry"] == {"title": "trio-hub", "icon_path": str(ICON)}


def test_braces_in_the_path_of_python_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/opt/{env}/python")
    words = [word.format(unix_socket="/tmp/s") for word in setup()["command"]]
    assert words == ["/opt/{env}/python", "-m", "trio_hub.jupyter", "/tmp/s"]


PARENT = """
import subprocess, sys, time
print(subprocess.Popen([sys.executable, "-m", "trio_hub.jupyter", sys.argv[1]]).pid, flush=True)
time.sleep(600)
"""


def wait_until(condition: Callable[[], Any]) -> Any:
    """Wait until a condition is true, and return its value."""
    deadline = time.monotonic() + LIMIT
    while not (value := condition()):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    return value


@pytest.mark.interop
def test_the_process_serves_its_user_and_ends_with_jupyter(tmp_path: Path) -> None:
    path = tmp_path / "socket"
    path.touch()  # left by a process that was killed

    def answer() -> bytes:
        # it may not listen yet
        with socket.socket(socket.AF_UNIX) as stream, suppress(ConnectionRefusedError, FileNotFoundError):
            stream.connect(str(path))
            stream.sendall(request("/", "localhost"))
            return stream.recv(1 << 16)
        return b""

    env = os.environ | environ(tmp_path / "none")
    with subprocess.Popen([sys.executable, "-c", PARENT, str(path)], stdout=subprocess.PIPE, env=env) as jupyter:
        assert jupyter.stdout is not None
        pid = int(jupyter.stdout.readline())
        try:
            assert b" 503 " in wait_until(answer).splitlines()[0]
            assert path.stat().st_mode & 0o077 == 0, "only this user can connect"
        finally:
            jupyter.kill()
    wait_until(lambda: start_time(pid) is None)
    assert not path.exists()
