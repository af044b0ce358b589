"""The dashboard in a real Jupyter server, through jupyter-server-proxy, as a user of JupyterHub sees it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import suppress
from http.client import HTTPResponse
from pathlib import Path
from typing import Any

import pytest

from .conftest import LIMIT, Cluster, wait_until

pytestmark = pytest.mark.interop

TOKEN = "token-of-jupyter"
BASE = "/user/jo%40example.org/"
"""The path below which JupyterHub serves the Jupyter server of one user."""
PAGE = f"{BASE}trio-hub/"


class Jupyter:
    """A `jupyter server` in a process of its own, and requests to it."""

    def __init__(self, directory: Path, profile_dir: Path) -> None:
        for name in ("IPYTHONDIR", "JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR"):
            (directory / name).mkdir(parents=True)
        own = {name: str(directory / name) for name in os.listdir(directory)}
        self.output = directory / "output.txt"
        self.root = ""
        self._runtime = directory / "JUPYTER_RUNTIME_DIR"
        without = {"ServerApp": {"jpserver_extensions": {"ipyparallel": False, "jupyter_server_terminals": False}}}
        (directory / "JUPYTER_CONFIG_DIR" / "jupyter_server_config.json").write_text(json.dumps(without))
        command = [
            sys.executable,
            "-m",
            "jupyter_server",
            "--no-browser",
            "--allow-root",
            f"--IdentityProvider.token={TOKEN}",
        ]
        with self.output.open("wb") as output:
            self.process = subprocess.Popen(
                [*command, f"--ServerApp.base_url={BASE}", "--ServerApp.port=0", f"--ServerApp.root_dir={directory}"],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env=os.environ | own | {"TRIO_HUB_PROFILE_DIR": str(profile_dir), "JUPYTERHUB_USER": "jo@example.org"},
            )

    def is_ready(self) -> bool:
        """Return whether Jupyter answers."""
        assert self.process.poll() is None, self.log
        for path in self._runtime.glob("jpserver-*.json"):  # the file is there a moment before the port is open
            with suppress(ValueError, OSError):
                self.root = json.loads(path.read_text())["url"].removesuffix(BASE)
                return "version" in self.get(f"{BASE}api")
        return False

    @property
    def log(self) -> str:
        return self.output.read_text(errors="replace")

    def ask(self, path: str, *, headers: dict[str, str] | None = None, body: Any = None) -> HTTPResponse:
        data = None if body is None else json.dumps(body).encode()
        fields = {"Authorization": f"token {TOKEN}"} | (headers or {})
        asked = urllib.request.Request(f"{self.root}{path}", data, fields)
        answer: HTTPResponse = urllib.request.urlopen(asked, timeout=LIMIT)
        return answer

    def get(self, path: str, **arguments: Any) -> str:
        with self.ask(path, **arguments) as answer:
            return answer.read().decode()

    def close(self) -> None:
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(LIMIT)
        finally:
            self.process.kill()


@pytest.fixture
def jupyter(tmp_path: Path) -> Iterator[Callable[[Path], Jupyter]]:
    started: list[Jupyter] = []

    def start(profile_dir: Path) -> Jupyter:
        started.append(Jupyter(tmp_path / "jupyter", profile_dir))
        return started[-1]

    yield start
    for server in started:
        server.close()


def test_a_page_of_jupyter_is_the_dashboard_of_the_users_hub(
    start_cluster: Callable[..., Cluster], jupyter: Callable[[Path], Jupyter], tmp_path: Path
) -> None:
    server = jupyter(tmp_path / "0" / "profile")  # the hub may start later
    cluster = start_cluster(0, "--dashboard", "0", "--dashboard-admin", "true")
    assert cluster.profile_dir == tmp_path / "0" / "profile"
    wait_until(server.is_ready, "Jupyter is ready")
    # the launcher
    entries = json.loads(server.get(f"{BASE}server-proxy/servers-info"))["server_processes"]
    (entry,) = [entry for entry in entries if entry["name"] == "trio-hub"]
    assert entry["launcher_entry"]["enabled"]
    assert entry["launcher_entry"]["title"] == "trio-hub"
    assert server.get(entry["launcher_entry"]["icon_url"].removeprefix(server.root)).startswith("<svg")
    # the page
    with server.ask(PAGE) as answer:
        assert "<title>trio-hub</title>" in answer.read().decode()
        assert answer.headers["content-security-policy"].startswith("default-src 'none'")
        assert "trio_hub_token" not in str(answer.headers), "the token stays with the hub"
    assert 'from "./hub.js"' in server.get(f"{PAGE}static/main.js")
    assert json.loads(server.get(f"{PAGE}api/status"))["engines"] == 0
    with pytest.raises(urllib.error.HTTPError) as refused:
        server.get(f"{PAGE}api/engines/none")
    refused.value.close()
    assert refused.value.code == 404
    # the stream of events: each event arrives before the stream ends
    with server.ask(f"{PAGE}api/events", headers={"Accept": "text/event-stream"}) as stream:
        assert stream.readline() == b"event: overview\n"
        assert json.loads(stream.readline().removeprefix(b"data: "))["actor"] == "jo@example.org"
    # an action, with the name of JupyterHub's user
    purged = server.get(f"{PAGE}api/actions/purge", headers={"X-Trio-Hub": "1"}, body={"all": True})
    assert json.loads(purged) == {"purged": 0}
    journal = json.loads(server.get(f"{PAGE}api/journal"))["entries"]
    assert any(entry["who"].startswith("jo@example.org (") for entry in journal), journal
    # a request without Jupyter's token gets Jupyter's login page
    with server.ask(f"{PAGE}api/status", headers={"Authorization": "token wrong"}) as answer:
        assert answer.url.startswith(f"{server.root}{BASE}login?")
    # the hub ends
    assert cluster.close() == 0
    with pytest.raises(urllib.error.HTTPError) as refused:
        server.get(PAGE, headers={"Accept": "text/html"})
    assert refused.value.code == 503
    assert "trio-hub serve --dashboard 0" in refused.value.read().decode()
