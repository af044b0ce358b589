"""Passes HTTP requests from a Unix socket on to the dashboard of the user's hub, with the hub's token.

Each connection has one request, as jupyter-server-proxy sends them. Answers are passed on piece by piece, so that the
page's stream of events works.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping

import h11
import trio

from ..logs import get_logger
from .finding import NoDashboard, Target, find_target
from .refusing import refusal

__all__ = ["MAX_STREAMS", "Forwarder"]

log = get_logger("trio_hub.jupyter")

MAX_HEAD = 1 << 18
"""The maximum size of the head of a request or an answer, in bytes. The cookies of Jupyter are a part of it."""
CHUNK = 1 << 16
"""The maximum number of bytes that are read at once."""
CONNECT_LIMIT = 5.0
"""Seconds within which the dashboard must accept a connection."""
END_LIMIT = 1.0
"""Seconds within which the end of a stream must be sent."""
MAX_STREAMS = 20
"""The maximum number of streams of events. A further stream ends the oldest one, since jupyter-server-proxy keeps the
streams of closed pages for up to two hours. If the oldest one is still read, its page opens another."""
_HOP_BY_HOP = {
    *(b"connection", b"keep-alive", b"proxy-connection", b"te", b"trailer", b"upgrade", b"expect"),
    *(b"proxy-authenticate", b"proxy-authorization"),
}
_NOT_FOR_THE_HUB = _HOP_BY_HOP | {b"host", b"authorization", b"cookie"}
"""The headers of a request that are not passed on. The hub must not learn the cookies and tokens of Jupyter."""
_NOT_FOR_THE_BROWSER = _HOP_BY_HOP | {b"set-cookie"}
"""The headers of an answer that are not passed on. A cookie would contain the hub's token."""
_USER = re.compile(r"[0-9A-Za-z_.@+-]{1,100}", re.ASCII)
_BROKEN = (trio.BrokenResourceError, trio.ClosedResourceError, h11.ProtocolError)


class Forwarder:
    """Answers the requests on connections.

    Args:
        find: Returns the dashboard that gets a request. Raises `NoDashboard`.
        environ: The environment variables. ``JUPYTERHUB_USER`` is the name of the person for the hub's log and events.
    """

    def __init__(self, find: Callable[[], Target] = find_target, environ: Mapping[str, str] = os.environ) -> None:
        self._find = find
        user = environ.get("JUPYTERHUB_USER", "")
        self._actor = user if _USER.fullmatch(user) else ""
        self._streams: dict[trio.CancelScope, None] = {}  # the oldest first

    async def serve(self, stream: trio.SocketStream) -> None:
        """Answer the request on one connection. An error on a connection does not affect the others."""
        browser = _Peer(stream, h11.SERVER)
        async with stream:
            try:
                request = await browser.next()
                if isinstance(request, h11.Request):
                    await self._answer(browser, request)
            except _BROKEN:
                log.debug("a connection to the proxy of the dashboard has broken")
            except Exception:
                log.exception("a connection to the proxy of the dashboard failed")

    async def _answer(self, browser: _Peer, request: h11.Request) -> None:
        accepts = b", ".join(value for name, value in request.headers if name == b"accept")
        try:
            target = self._find()
            hub = await _connect(target)
        except NoDashboard as reason:
            await _refuse(browser, 503, reason, accepts)
            return
        async with hub.stream:
            response = await self._ask(hub, browser, request, target)
            if response is None:
                silent = NoDashboard("The hub has closed the connection without an answer.", "Try again.")
                await _refuse(browser, 502, silent, accepts)
            else:
                await self._pass_on(response, hub, browser, is_stream=b"text/event-stream" in accepts)

    async def _ask(self, hub: _Peer, browser: _Peer, request: h11.Request, target: Target) -> h11.Response | None:
        """Send the browser's request to the hub, and return the head of the answer; None if there is none."""
        asked = h11.Request(method=request.method, target=_target(request), headers=self._headers(request, target))
        try:
            await hub.send(asked)
            while isinstance(part := await browser.next(), h11.Data):
                await hub.send(part)
            await hub.send(h11.EndOfMessage())
            response = await hub.next()
        except _BROKEN:
            return None
        return response if isinstance(response, h11.Response) else None

    async def _pass_on(self, response: h11.Response, hub: _Peer, browser: _Peer, *, is_stream: bool) -> None:
        """Send the hub's answer to the browser, until one of them closes its connection."""
        async with trio.open_nursery() as nursery:
            scope = nursery.cancel_scope
            if is_stream:
                self._make_room()
                self._streams[scope] = None
            nursery.start_soon(_until_gone, browser, scope)
            try:
                await _send_answer(response, hub, browser)
            except _BROKEN:
                log.debug("a connection to the proxy of the dashboard has broken")
            finally:
                made_room = is_stream and scope not in self._streams
                self._streams.pop(scope, None)
            scope.cancel()
        if made_room:  # end the answer in order, or Jupyter logs an error
            with trio.move_on_after(END_LIMIT):
                await browser.send(h11.EndOfMessage())

    def _make_room(self) -> None:
        """End the oldest stream of events if there are `MAX_STREAMS`."""
        if len(self._streams) >= MAX_STREAMS:
            oldest = next(iter(self._streams))
            del self._streams[oldest]
            oldest.cancel()

    def _headers(self, request: h11.Request, target: Target) -> list[tuple[bytes, bytes]]:
        """Return the headers for the hub."""
        headers = [(name, value) for name, value in request.headers if name not in _NOT_FOR_THE_HUB]
        if self._actor:
            headers.append((b"cookie", f"trio_hub_actor={self._actor}".encode()))
        host = f"[{target.host}]" if ":" in target.host else target.host
        return [
            (b"host", f"{host}:{target.port}".encode()),
            (b"authorization", f"Bearer {target.token}".encode()),
            (b"connection", b"close"),
            *headers,
        ]


class _Peer:
    """A stream, and the state of HTTP on it."""

    def __init__(self, stream: trio.SocketStream, role: type[h11.SERVER] | type[h11.CLIENT]) -> None:
        self.stream = stream
        self._http = h11.Connection(role, MAX_HEAD)

    @property
    def sends_body(self) -> bool:
        """Whether the end of the other side's message is still to come."""
        return self._http.their_state is h11.SEND_BODY

    async def next(self) -> h11.Event | None:
        """Return the next event; None after the end of a message."""
        while (event := self._http.next_event()) is h11.NEED_DATA:
            self._http.receive_data(await self.stream.receive_some(CHUNK))
        return event if isinstance(event, h11.Event) else None

    async def send(self, *events: h11.Event) -> None:
        """Send events as bytes."""
        await self.stream.send_all(b"".join(self._http.send(event) or b"" for event in events))


async def _connect(target: Target) -> _Peer:
    """Return a connection to the dashboard. Raises `NoDashboard`."""
    try:
        with trio.fail_after(CONNECT_LIMIT):
            return _Peer(await trio.open_tcp_stream(target.host, target.port), h11.CLIENT)
    except (OSError, trio.TooSlowError) as error:
        raise NoDashboard(
            f"The hub's dashboard at {target.host}, port {target.port}, does not accept connections.",
            "If the hub has ended, start it again. If it runs on another machine, ask who may connect to that port.",
            "trio-hub serve --dashboard 0",
        ) from error


def _target(request: h11.Request) -> bytes:
    """Return the path and query of a request without the token in the query: that token is for Jupyter."""
    path, _, query = request.target.partition(b"?")
    kept = b"&".join(part for part in query.split(b"&") if not part.startswith(b"token="))
    return path + b"?" + kept if kept else path


async def _refuse(browser: _Peer, status: int, reason: NoDashboard, accepts: bytes) -> None:
    """Read the rest of the request, and answer it with a reason."""
    headers, body = refusal(reason, wants_page=b"text/html" in accepts)
    headers += [(b"content-length", str(len(body)).encode()), (b"connection", b"close")]
    while browser.sends_body:
        await browser.next()
    await browser.send(h11.Response(status_code=status, headers=headers), h11.Data(data=body), h11.EndOfMessage())


async def _send_answer(response: h11.Response, hub: _Peer, browser: _Peer) -> None:
    """Send the hub's answer to the browser."""
    headers = [(name, value) for name, value in response.headers if name not in _NOT_FOR_THE_BROWSER]
    headers.append((b"connection", b"close"))
    await browser.send(h11.Response(status_code=response.status_code, reason=response.reason, headers=headers))
    while isinstance(part := await hub.next(), h11.Data):
        await browser.send(part)
    if isinstance(part, h11.EndOfMessage):  # otherwise the answer is incomplete, and the browser must notice it
        await browser.send(part)


async def _until_gone(browser: _Peer, scope: trio.CancelScope) -> None:
    """Cancel the scope when the browser has closed its connection."""
    try:
        while await browser.stream.receive_some(CHUNK):
            pass
    except (trio.BrokenResourceError, trio.ClosedResourceError):
        pass
    scope.cancel()
