"""The application of the dashboard: one function per path."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from functools import partial
from time import time
from typing import Any, TypeAlias

import trio
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from ..errors import QueryError, StoreError
from ..runtime import RunningHub
from .access import Access, AccessMiddleware
from .actions import action_route, actor_of
from .answers import as_json, engine_details, engine_table, failure_table, refusal
from .audience import EventStream
from .bulk import count_found
from .clients import client_table
from .feed import Feed
from .journal import MAX_ENTRIES, as_rows
from .metrics import exposition
from .pools import pool_details
from .static_files import StaticFile, static_files
from .story import output_headers, task_details, whole_output
from .tasks import MAX_LIMIT, Search, find_tasks
from .timings import Timings
from .trace import trace_parts

__all__ = ["dashboard_app"]

Endpoint: TypeAlias = Callable[[Request], Awaitable[Response]]

MAX_FIRST_BARS = 20_000
"""The maximum number of bars in one answer."""
TRACE_HEADERS = [
    (b"content-type", b"application/json"),
    (b"content-disposition", b'attachment; filename="trio-hub-trace.json"'),
]


def dashboard_app(hub: RunningHub, feed: Feed, access: Access) -> ASGIApp:
    """Return the application for a hub."""
    routes = [*_own_routes(hub, feed.watch.timings), *_page_routes(), *_api_routes(hub, feed)]
    routes.append(action_route(hub, feed.watch, feed.history.journal, allowed=feed.admin))
    app = Starlette(routes=routes)
    app.router.redirect_slashes = False  # these redirects name the host and path that the hub sees, not the browser's
    return AccessMiddleware(app, access)


def _own_routes(hub: RunningHub, timings: Timings) -> list[Route]:
    """Return the routes for Prometheus, scripts and process managers."""
    scrape = exposition(hub, timings)

    async def metrics(request: Request) -> Response:
        text, content_type = scrape(request.headers.get("accept", ""))
        return Response(text, headers={"content-type": content_type})

    async def status(request: Request) -> Response:
        return as_json(hub.statistics())

    async def healthz(request: Request) -> Response:
        return PlainTextResponse("ok\n")

    async def readyz(request: Request) -> Response:
        return PlainTextResponse("stopping\n", 503) if hub.is_stopping else PlainTextResponse("ready\n")

    return [
        Route("/metrics", metrics),
        Route("/api/status", status),
        Route("/healthz", healthz),
        Route("/readyz", readyz),
    ]


def _page_routes() -> list[Route]:
    """Return the routes of the page and its files."""
    known = static_files()

    async def index(request: Request) -> Response:
        return _file(request, known["index.html"])

    async def static(request: Request) -> Response:
        name = request.path_params["name"]
        return _file(request, known[name]) if name in known else PlainTextResponse("there is no such file\n", 404)

    return [Route("/", index), Route("/static/{name}", static)]


def _file(request: Request, file: StaticFile) -> Response:
    headers = {"etag": file.etag, "content-type": file.content_type}
    if request.headers.get("if-none-match") == file.etag:
        return Response(status_code=304, headers=headers)
    return Response(file.content, headers=headers)


def _api_routes(hub: RunningHub, feed: Feed) -> list[Route]:
    """Return the routes of the data for pages and scripts."""
    watch = feed.watch

    async def events(request: Request) -> Response:
        first = partial(feed.first_message, actor_of(request))
        return EventStream(feed.audience, first, _whole(request, "stream", 0, 1) == 1)

    async def engines(request: Request) -> Response:
        return as_json(engine_table(hub, watch, time()))

    async def engine(request: Request) -> Response:
        uuid = request.path_params["uuid"]
        details = engine_details(hub, watch, uuid, time())
        if details is None:
            return refusal(404, f"the engine {uuid!r} is unknown, or it left long ago")
        return as_json(details)

    async def clients(request: Request) -> Response:
        return as_json(client_table(hub, watch.clients, time()))

    async def stream(request: Request) -> Response:
        return as_json(await feed.bars_since(_whole(request, "since", 0, 2**62), MAX_FIRST_BARS))

    async def history(request: Request) -> Response:
        found = feed.history.range(request.query_params.get("range", "hour"))
        if found is None:
            raise QueryError('range: expected "hour" or "day"')
        return as_json(found)

    async def journal(request: Request) -> Response:
        feed.refresh()  # errors come into the journal when the hub's numbers are read
        kept = feed.history.journal
        entries = kept.since(
            _whole(request, "since", 0, 2**62), max(1, _whole(request, "limit", MAX_ENTRIES, MAX_ENTRIES))
        )
        return as_json({"entries": as_rows(entries), "next": kept.seq})

    async def trace(request: Request) -> Response:
        return _Trace(feed)

    async def labels(request: Request) -> Response:
        return as_json({"labels": watch.progress.table(watch.bars)})

    async def failures(request: Request) -> Response:
        return as_json(await failure_table(hub, watch, time()))

    def search_in(request: Request) -> Search:
        asked = request.query_params
        return Search(hub, watch, _query_in(asked.get("query")), asked.get("text", ""), asked.get("state", ""))

    async def tasks(request: Request) -> Response:
        limit = max(1, _whole(request, "limit", 100, MAX_LIMIT))
        return as_json(await find_tasks(search_in(request), limit, request.query_params.get("before") or None))

    async def count(request: Request) -> Response:
        return as_json(await count_found(hub, search_in(request)))

    async def policies(request: Request) -> Response:
        return as_json({"policies": hub.policies})

    async def pools(request: Request) -> Response:
        return as_json({"now": time(), "pools": hub.pools})

    async def pool(request: Request) -> Response:
        name = request.path_params["name"]
        details = pool_details(hub.pools, name)
        if details is None:
            return refusal(404, f"there is no pool {name[:100]!r}")
        return as_json({"now": time()} | dict(details))

    async def output(request: Request) -> Response:
        msg_id, stream = request.path_params["msg_id"], request.path_params["stream"]
        text = await whole_output(hub, msg_id, stream)
        if text is None:
            return _no_record(msg_id)
        return Response(text.encode("utf-8", "backslashreplace"), headers=output_headers(msg_id, stream))

    async def task(request: Request) -> Response:
        msg_id = request.path_params["msg_id"]
        details = await task_details(hub, watch, msg_id)
        if details is None:
            return _no_record(msg_id)
        return as_json(details)

    return [
        Route("/api/events", explained(events)),
        Route("/api/engines", explained(engines)),
        Route("/api/engines/{uuid:path}", explained(engine)),
        Route("/api/clients", explained(clients)),
        Route("/api/stream", explained(stream)),
        Route("/api/history", explained(history)),
        Route("/api/journal", explained(journal)),
        Route("/api/trace", trace),
        Route("/api/labels", explained(labels)),
        Route("/api/failures", explained(failures)),
        Route("/api/policies", policies),
        Route("/api/pools", pools),
        Route("/api/pools/{name:path}", pool),
        Route("/api/tasks", explained(tasks)),
        Route("/api/tasks/{msg_id:path}", explained(task)),
        Route("/api/count", explained(count)),
        Route("/api/output/{stream}/{msg_id:path}", explained(output)),
    ]


def _no_record(msg_id: str) -> Response:
    return refusal(404, f"there is no record of {msg_id!r}: it is unknown, or was dropped or purged")


def explained(endpoint: Endpoint) -> Endpoint:
    """Turn an invalid query (400) or a failed database (503) into an answer that says so."""

    async def explain(request: Request) -> Response:
        try:
            return await endpoint(request)
        except QueryError as error:
            return refusal(400, str(error))
        except StoreError as error:
            return refusal(503, f"the task database failed: {error}")

    return explain


def _whole(request: Request, name: str, default: int, most: int) -> int:
    """Return a whole number in the query of a request. Raises `QueryError`."""
    text = request.query_params.get(name)
    if not text:
        return default
    if not text.isascii() or not text.isdigit() or len(text) > 20 or int(text) > most:
        raise QueryError(f"{name}: expected a whole number, {most} at most, not {text[:60]!r}")
    return int(text)


def _query_in(text: str | None) -> Any:
    if not text:
        return None
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise QueryError(f"query: not JSON: {error}") from None


class _Trace(Response):
    """An answer with a trace, which is made piece by piece while it is sent."""

    def __init__(self, feed: Feed) -> None:
        super().__init__()
        self._feed = feed

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": TRACE_HEADERS})
        for part in trace_parts(self._feed.watch, time()):
            await send({"type": "http.response.body", "body": part, "more_body": True})
            await trio.lowlevel.checkpoint()
        await send({"type": "http.response.body", "body": b"", "more_body": False})
