"""The part for nginx in the documentation, with a real nginx."""

from __future__ import annotations

import os
import re
import shutil
from functools import partial
from pathlib import Path

import pytest
import trio

from trio_hub.testing import open_hub

from ..runtime.support import within_limit
from .support import Answer, EventReader, answer_in, open_dashboard, request

PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "dashboard.md"
SNIPPET = re.findall(r"^```nginx\n(.*?)^```", PAGE.read_text(), re.MULTILINE | re.DOTALL)[0]
NGINX = shutil.which("nginx", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
TOKEN = "0123456789abcdef"
SETTINGS = """
daemon off; master_process off; error_log stderr; pid {directory}/pid;
events {{}}
http {{
    access_log {directory}/access.log;
    client_body_temp_path {directory}/a; proxy_temp_path {directory}/b; fastcgi_temp_path {directory}/c;
    uwsgi_temp_path {directory}/d; scgi_temp_path {directory}/e;
    server {{ listen unix:{directory}/socket; {location} }}
}}
"""


def test_the_part_has_what_the_dashboard_needs() -> None:
    directives = dict(re.findall(r"^    (proxy_\w+(?: [A-Z][\w-]+)?) (.+);$", SNIPPET, re.MULTILINE))
    (prefix,) = re.findall(r"^location (\S+) \{$", SNIPPET, re.MULTILINE)
    assert directives["proxy_set_header X-Forwarded-Prefix"] == prefix
    assert directives["proxy_set_header Host"] == "127.0.0.1"
    assert f"--dashboard 8788 --dashboard-prefix {prefix}\n" in PAGE.read_text()
    assert directives["proxy_pass"] == "http://127.0.0.1:8788"


@pytest.mark.interop
@pytest.mark.skipif(NGINX is None, reason="needs nginx: apt-get install nginx")
@pytest.mark.parametrize("strips", [False, True])
async def test_the_dashboard_behind_nginx(tmp_path: Path, strips: bool) -> None:
    assert NGINX is not None

    async def ask(path: str, headers: dict[str, str] | None = None, body: bytes = b"") -> Answer:
        fields = {"Connection": "close", "Content-Length": str(len(body))} | (headers or {})
        async with await trio.open_unix_socket(tmp_path / "socket") as stream:
            await stream.send_all(request(path, "hub.example", fields, "POST" if body else "GET") + body)
            return answer_in(b"".join([chunk async for chunk in stream]))

    async with (
        within_limit(),
        open_hub() as hub,
        open_dashboard(hub, token=TOKEN, prefix="" if strips else "/trio-hub") as dashboard,
        trio.open_nursery() as nursery,
    ):
        location = SNIPPET.replace("127.0.0.1:8788", f"127.0.0.1:{dashboard.port}{'/' if strips else ''}")
        if strips:
            location = location.replace("location /trio-hub {", "location /trio-hub/ {")
        (tmp_path / "nginx.conf").write_text(SETTINGS.format(directory=tmp_path, location=location))
        command = [NGINX, "-p", str(tmp_path), "-c", str(tmp_path / "nginx.conf"), "-e", "stderr"]
        with (tmp_path / "output").open("wb") as output:
            await nursery.start(partial(trio.run_process, command, stdout=output, stderr=output))
        while True:
            try:
                assert (await ask("/trio-hub/healthz")).body == "ok\n"
                break
            except OSError:  # it does not listen yet; if it ends, the nursery is cancelled
                await trio.sleep(0.01)
        form = {"Content-Type": "application/x-www-form-urlencoded"}
        answer = await ask("/trio-hub/", form, b"token=" + TOKEN.encode())
        assert answer.status == 303
        cookie, path, *_ = answer.headers["set-cookie"].split("; ")
        assert path == "Path=/trio-hub/"
        if not strips:
            assert (await ask("/trio-hub")).headers["location"] == "/trio-hub/"
        for page in ("", "static/main.js", "api/status"):
            assert (await ask(f"/trio-hub/{page}", {"Cookie": cookie})).status == 200
        async with await trio.open_unix_socket(tmp_path / "socket") as stream:
            await stream.send_all(request("/trio-hub/api/events", "hub.example", {"Cookie": cookie}))
            events = EventReader(stream)
            assert (await events.next())[0] == "overview"
            assert (await events.next())[0] == "overview"
        assert TOKEN not in (tmp_path / "access.log").read_text()
        nursery.cancel_scope.cancel()
