"""What the dashboard serves: one function an address."""

from __future__ import annotations

import msgspec
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp

from .. import __version__
from ..runtime import RunningHub
from .access import Access, Guard
from .metrics import exposition
from .timings import Timings

__all__ = ["dashboard_app"]

INDEX = f"""\
<!DOCTYPE html>
<html lang="en">
<meta charset="utf-8">
<title>trio-hub</title>
<h1>trio-hub {__version__}</h1>
<ul>
<li><a href="metrics">/metrics</a>: metrics for Prometheus
<li><a href="api/status">/api/status</a>: the hub's statistics as JSON
<li><a href="healthz">/healthz</a>: whether it is there
<li><a href="readyz">/readyz</a>: whether it takes work
</ul>
</html>
"""


def dashboard_app(hub: RunningHub, timings: Timings, access: Access) -> ASGIApp:
    """The application for one hub."""
    scrape = exposition(hub, timings)

    async def index(request: Request) -> Response:
        return HTMLResponse(INDEX)

    async def metrics(request: Request) -> Response:
        text, content_type = scrape(request.headers.get("accept", ""))
        return Response(text, headers={"content-type": content_type})

    async def status(request: Request) -> Response:
        return Response(msgspec.json.encode(hub.statistics()), media_type="application/json")

    async def healthz(request: Request) -> Response:
        return PlainTextResponse("ok\n")

    async def readyz(request: Request) -> Response:
        return PlainTextResponse("stopping\n", 503) if hub.is_stopping else PlainTextResponse("ready\n")

    routes = [
        Route("/", index),
        Route("/metrics", metrics),
        Route("/api/status", status),
        Route("/healthz", healthz),
        Route("/readyz", readyz),
    ]
    return Guard(Starlette(routes=routes), access)
