"""The dashboard below the path prefix of a reverse proxy: each route, with each kind of proxy, and hostile headers."""

from __future__ import annotations

import json
from html.parser import HTMLParser
from urllib.parse import quote, unquote, urlsplit

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from starlette.applications import Starlette
from starlette.routing import Route
from starlette.types import Message, Receive, Scope, Send

from trio_hub.config.prefix import OWN_PATHS, check_prefix
from trio_hub.dashboard.access import Access, AccessMiddleware
from trio_hub.dashboard.app import dashboard_app
from trio_hub.dashboard.prefix import Placed, place
from trio_hub.dashboard.timings import Timings
from trio_hub.dashboard.watching import Watch
from trio_hub.testing import open_hub

from ..runtime.support import within_limit
from .support import feed_of, fetch, open_dashboard, reading

TOKEN = "0123456789abcdef"
PREFIX = "/user/jo%40x.org/trio-hub"
BEARER = {"Authorization": f"Bearer {TOKEN}"}
TOLD = {"X-Forwarded-Prefix": PREFIX}
ROUTES = {
    "/": "text/html",
    "/static/main.js": "text/javascript",
    "/static/icon.svg": "image/svg+xml",
    "/metrics": "text/plain",
    "/healthz": "text/plain",
    "/readyz": "text/plain",
    "/api/status": "application/json",
    "/api/engines": "application/json",
    "/api/clients": "application/json",
    "/api/stream": "application/json",
    "/api/history": "application/json",
    "/api/journal": "application/json",
    "/api/trace": "application/json",
    "/api/labels": "application/json",
    "/api/failures": "application/json",
    "/api/policies": "application/json",
    "/api/pools": "application/json",
    "/api/tasks": "application/json",
    "/api/count": "application/json",
}
"""The routes that need no argument, and the type of their answers."""
OTHERS = {
    "/static/{name}": "/static/none",
    "/api/engines/{uuid:path}": "/api/engines/none",
    "/api/pools/{name:path}": "/api/pools/none",
    "/api/tasks/{msg_id:path}": "/api/tasks/none",
    "/api/output/{stream}/{msg_id:path}": "/api/output/stdout/none",
    "/api/actions/{name}": "/api/actions/none",
    "/api/events": "/api/events",
}
"""The routes with an argument, with which there is nothing to show, and the stream, which has tests of its own."""


async def test_this_module_knows_every_route() -> None:
    async with within_limit(), open_hub() as hub:
        app = dashboard_app(hub, feed_of(hub, Watch(Timings())), Access(TOKEN, "127.0.0.1", 1))
    assert isinstance(app, AccessMiddleware)
    assert isinstance(app._app, Starlette)
    known = {*(path for path in ROUTES if "/static/" not in path), *OTHERS}
    assert {route.path for route in app._app.routes if isinstance(route, Route)} == known


@pytest.mark.parametrize(
    ("setting", "sent", "headers"),
    [
        ("", "", {}),
        ("", "", TOLD),
        ("", PREFIX, TOLD),
        (PREFIX, "", {}),
        (PREFIX, PREFIX, {}),
        (PREFIX, PREFIX, TOLD),
        ("/inner", "/inner", {"X-Forwarded-Prefix": "/outer/inner"}),
    ],
    ids=["none", "stripped", "header", "setting-stripped", "setting", "both", "proxy-behind-proxy"],
)
async def test_every_route_works(setting: str, sent: str, headers: dict[str, str]) -> None:
    async with (
        within_limit(),
        open_hub() as hub,
        open_dashboard(hub, token=TOKEN, prefix=setting, admin=True) as dashboard,
    ):
        for path, content_type in ROUTES.items():
            answer = await fetch(dashboard.port, f"{sent}{path}", BEARER | headers)
            assert answer.status == 200, path
            assert answer.headers["content-type"].startswith(content_type)
            if path not in ("/healthz", "/readyz"):
                assert (await fetch(dashboard.port, f"{sent}{path}", headers)).status == 403, path
        for path in OTHERS.values():
            if path != "/api/events":
                answer = await fetch(dashboard.port, f"{sent}{path}", BEARER | headers)
                assert answer.status == (405 if "/actions/" in path else 404), path
        action = await fetch(
            dashboard.port,
            f"{sent}/api/actions/purge",
            BEARER | headers | {"X-Trio-Hub": "1"},
            method="POST",
            body=b'{"all": true}',
        )
        assert json.loads(action.body) == {"purged": 0}


async def test_the_printed_url_has_the_prefix_and_logs_in() -> None:
    async with within_limit(), open_hub() as hub, open_dashboard(hub, token=TOKEN, prefix=f"{PREFIX}/") as dashboard:
        assert dashboard.url == f"http://127.0.0.1:{dashboard.port}{PREFIX}/?token={TOKEN}"
        answer = await fetch(dashboard.port, dashboard.url.removeprefix(f"http://127.0.0.1:{dashboard.port}"))
        assert answer.status == 200
        cookie, *attributes = answer.headers["set-cookie"].split("; ")
        assert attributes == [f"Path={PREFIX}/", "HttpOnly", "SameSite=Strict"]
        assert (await fetch(dashboard.port, f"{PREFIX}/api/status", {"Cookie": cookie})).status == 200


async def test_events_arrive_below_the_prefix() -> None:
    async with (
        within_limit(),
        open_hub() as hub,
        open_dashboard(hub, prefix=PREFIX) as dashboard,
        reading(dashboard, prefix=PREFIX) as events,
    ):
        assert (await events.until("overview"))["statistics"]["engines"] == 0


async def test_over_https_the_cookie_is_for_https_only() -> None:
    async with within_limit(), open_hub() as hub, open_dashboard(hub, token=TOKEN) as dashboard:
        answer = await fetch(dashboard.port, f"/?token={TOKEN}", TOLD | {"X-Forwarded-Proto": "https"})
        assert answer.headers["set-cookie"].endswith("; SameSite=Strict; Secure")


async def test_the_prefix_without_its_slash_leads_to_the_page() -> None:
    async with within_limit(), open_hub() as hub, open_dashboard(hub, token=TOKEN, prefix="/hub") as dashboard:
        answer = await fetch(dashboard.port, f"/hub?token={TOKEN}&actor=jo")
        assert answer.status == 307
        assert answer.headers["location"] == f"/hub/?token={TOKEN}&actor=jo"
        assert (await fetch(dashboard.port, "/hub")).headers["location"] == "/hub/"
        assert (await fetch(dashboard.port, "/hub", name="evil.example")).status == 403
        assert (await fetch(dashboard.port, "/hubs/", BEARER)).status == 404


async def test_no_redirect_names_a_host_or_leaves_the_prefix() -> None:
    async with within_limit(), open_hub() as hub, open_dashboard(hub, token=TOKEN) as dashboard:
        for path in ("/metrics/", "/api/status/", "//evil.example", f"{PREFIX}//evil.example"):
            answer = await fetch(dashboard.port, path, BEARER | TOLD)
            assert answer.status == 404, path
            assert "location" not in answer.headers


async def test_the_form_for_the_token_leads_to_the_page() -> None:
    async with within_limit(), open_hub() as hub, open_dashboard(hub, token=TOKEN) as dashboard:
        for headers, action in (({}, "/"), (TOLD, f"{PREFIX}/"), ({"X-Forwarded-Prefix": "//evil.example"}, "/")):
            answer = await fetch(dashboard.port, "/api/status", headers | {"Accept": "text/html"})
            assert answer.status == 403
            assert f'<form method="post" action="{action}">' in answer.body
            answer = await fetch(dashboard.port, "/", headers | {"Accept": "text/html"})
            assert '<form method="post" action="./">' in answer.body, "right for a proxy that tells nothing"


FORM = {"Content-Type": "application/x-www-form-urlencoded", "Accept": "text/html"}


async def test_the_form_logs_in_without_a_token_in_the_url() -> None:
    async with within_limit(), open_hub() as hub, open_dashboard(hub, token=TOKEN) as dashboard:
        for headers, path in (({}, "/"), (TOLD, f"{PREFIX}/")):
            for sent in dict.fromkeys(("/", path)):
                answer = await fetch(
                    dashboard.port, sent, FORM | headers, method="POST", body=f"a=b&token={TOKEN}".encode()
                )
                assert (answer.status, answer.headers["location"]) == (303, "./")
                cookie, *attributes = answer.headers["set-cookie"].split("; ")
                assert attributes[0] == f"Path={path}"
                assert (await fetch(dashboard.port, sent, headers | {"Cookie": cookie})).status == 200


@pytest.mark.parametrize(
    "body", [b"token=wrong", b"token", b"x=" + 5000 * b"x" + b"&token=" + TOKEN.encode(), b"\xff=%ff&token=%00"]
)
async def test_a_wrong_form_is_asked_again(body: bytes) -> None:
    async with within_limit(), open_hub() as hub, open_dashboard(hub, token=TOKEN) as dashboard:
        answer = await fetch(dashboard.port, "/", FORM, method="POST", body=body)
        assert answer.status == 403
        assert "This dashboard needs a token" in answer.body
        assert "set-cookie" not in answer.headers
        answer = await fetch(
            dashboard.port, "/", FORM, method="POST", body=b"token=" + TOKEN.encode(), name="evil.example"
        )
        assert answer.status == 403
        assert "set-cookie" not in answer.headers


# Hostile headers


@pytest.mark.parametrize(
    "header",
    [
        "//evil.example",
        "/\\evil.example",
        "https://evil.example/",
        "javascript:alert(1)",
        "/a/../../b",
        "/%2e%2e/b",
        "/a;Domain=example.com",
        '/"><script>alert(1)</script>',
        "/a, /b",
        "/a b",
        "/a?b",
        "/a#b",
        "/%",
        "/%0d%0aSet-Cookie:x=y",
        "/\xff",
        "relative",
        "/api",
    ],
)
def test_an_unusable_prefix_is_ignored(header: str) -> None:
    headers = [(b"x-forwarded-prefix", header.encode("latin-1"))]
    assert place("/metrics", headers, "/hub") == Placed("/hub", "/metrics")
    assert place("/hub/metrics", headers, "/hub") == Placed("/hub", "/metrics")


def test_several_prefixes_are_ignored() -> None:
    assert place("/", [(b"x-forwarded-prefix", b"/a"), (b"x-forwarded-prefix", b"/b")], "") == Placed("", "/")


def test_the_header_can_say_that_there_is_no_prefix() -> None:
    for value in (b"", b"/"):
        assert place("/hub/metrics", [(b"x-forwarded-prefix", value)], "/hub") == Placed("", "/metrics")


async def no_application(scope: Scope, receive: Receive, send: Send) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b""})


async def answered(path: str, query: bytes, prefix: bytes) -> tuple[dict[str, str], str]:
    """Return the headers and the body of the answer to a browser without an application behind the access control."""
    sent: list[Message] = []

    async def send(message: Message) -> None:
        sent.append(message)

    async def receive() -> Message:
        return {"type": "http.request", "body": b"", "more_body": False}

    headers = [(b"host", b"localhost"), (b"accept", b"text/html"), (b"x-forwarded-prefix", prefix)]
    scope = {"type": "http", "method": "GET", "path": path, "query_string": query, "headers": headers}
    await AccessMiddleware(no_application, Access(TOKEN, "127.0.0.1", 1))(scope, receive, send)
    found = {name.decode(): value.decode("latin-1") for name, value in sent[0]["headers"]}
    return found, b"".join(message.get("body", b"") for message in sent[1:]).decode()


class Tags(HTMLParser):
    """The tags of a page, and the target of its form."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.seen: list[str] = []
        self.action = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append(tag)
        if tag == "form":
            self.action = dict(attrs)["action"] or ""


PLAIN = Tags(trio.run(answered, "/", b"", b"/")[1])
WORDS = r"/ // a .. %2e %2f %5c \ : @ evil.example ? # ; & ' <script> > %0d%0a % %41 %ff , = javascript: https:// api"
pieces = st.sampled_from([*WORDS.split(), " ", "\t", '"'])
hostile = st.one_of(st.binary(max_size=30), st.lists(pieces, max_size=8).map(lambda parts: "".join(parts).encode()))


@pytest.mark.property
@given(hostile)
def test_no_header_leads_elsewhere_or_gets_into_the_page(prefix: bytes) -> None:
    for path in ("/", "/api/status", "/" + prefix.decode("latin-1"), unquote(prefix.decode("latin-1"))):
        headers, body = trio.run(answered, path, b"", prefix)
        if "location" in headers:
            target = urlsplit(headers["location"])
            assert (target.scheme, target.netloc) == ("", "")
            assert headers["location"].startswith("/")
            assert not headers["location"].startswith(("//", "/\\"))
            assert headers["location"].isascii()
            assert headers["location"].isprintable()
        else:
            tags = Tags(body)
            assert tags.seen == PLAIN.seen
            assert tags.action.startswith(("/", "./"))
            assert not tags.action.startswith(("//", "/\\"))
        headers, _ = trio.run(answered, "/", f"token={TOKEN}".encode(), prefix)
        if "location" not in headers:
            name, path, *flags = headers["set-cookie"].split("; ")
            assert (name, flags) == (f"trio_hub_token_1={TOKEN}", ["HttpOnly", "SameSite=Strict"])
            assert path.startswith("Path=/")
            assert ";" not in path


@pytest.mark.property
@given(st.lists(st.text(min_size=1).filter(lambda part: part not in (".", "..")), min_size=1, max_size=5))
def test_a_path_that_is_encoded_is_a_prefix_unless_it_has_odd_characters(parts: list[str]) -> None:
    try:
        path = "/" + "/".join(quote(part, safe="") for part in parts)
    except UnicodeEncodeError:  # half of a surrogate pair
        return
    odd = any(not part.isprintable() or {"/", "\\"} & set(part) for part in parts)
    if odd or len(path) > 1000 or (len(parts) == 1 and parts[0] in OWN_PATHS):
        with pytest.raises(ValueError, match="path"):
            check_prefix(path)
    else:
        assert check_prefix(path) == check_prefix(f"{path}/") == path
        below = "/" + "/".join(parts)
        assert place(f"{below}/api/status", [(b"x-forwarded-prefix", path.encode())], "") == Placed(path, "/api/status")
        assert place("/api/status", [], path) == Placed(path, "/api/status")
        assert place(below, [], path) == Placed(path, "")
