"""Access to the dashboard: a request must contain the token, and, on a loopback address, must name this machine.

`Access` decides by the headers and the query of a request. `AccessMiddleware` applies its decisions to an application.
"""

from __future__ import annotations

import hmac
from collections.abc import Iterable, Mapping
from html import escape
from ipaddress import ip_address
from typing import TypeAlias
from urllib.parse import parse_qs, urlsplit

from starlette.responses import HTMLResponse, PlainTextResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from .plainpages import plain_page, plain_policy
from .prefix import place

__all__ = ["Access", "AccessMiddleware"]

Headers: TypeAlias = Iterable[tuple[bytes, bytes]]

COOKIE = "trio_hub_token"
OPEN_PATHS = frozenset(("/healthz", "/readyz"))
"""The paths that do not require the token. They only tell that the hub is running."""
NOTHING = b"default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
"""The content security policy of answers that are not pages: browsers load nothing."""
PAGE = NOTHING + b"; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; font-src 'self'"
"""The content security policy of pages: browsers load only files of the dashboard, and run no inline scripts."""
SECURITY_HEADERS = (
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"cache-control", b"no-store"),
)
NO_TOKEN = (
    "The token is missing or wrong. Use the URL that the hub has printed, which contains ?token=..., "
    "or the header 'Authorization: Bearer TOKEN'.\n"
)
STYLE = """
:root { color-scheme: light dark; font: 15px/1.5 system-ui, sans-serif; }
main { max-width: 34rem; margin: 12vh auto 0; padding: 0 1rem; }
form { display: flex; flex-wrap: wrap; gap: 0.5rem; }
label { flex: 1 0 100%; }
input { flex: 1; min-width: 12rem; }
input, button { font: inherit; padding: 0.35rem 0.7rem; }
"""
ASKS_TOKEN = plain_page(
    "Token needed",
    STYLE,
    """<h1>This dashboard needs a token</h1>
<p>The token is missing or wrong. Use the URL that the hub has printed at its start, which contains
<code>?token=…</code>, or enter the token here. Each start of the hub makes a new token, unless the setting
<code>dashboard_token</code> is used.</p>
<form method="post" action="ACTION">
<label for="token">Token</label>
<input id="token" name="token" type="password" autocomplete="current-password" required autofocus>
<button type="submit">Open</button>
</form>""",
)
"""The page for browsers whose token is missing or wrong. ACTION stands for the path to which the form sends the token.
The form sends it in the body of a request, since proxies log the queries of requests.
"""
ASKING = plain_policy(STYLE, form_action="'self'").encode()
"""The content security policy of this page: it has a form and its own style, and no scripts."""
WRONG_HOST = (
    "This request is for another host name. The dashboard listens on this machine only: use localhost, 127.0.0.1 or "
    "[::1]. A reverse proxy on this machine must send one of these names in the header Host.\n"
)


FORM = b"application/x-www-form-urlencoded"
MAX_FORM = 4096
"""The maximum size of the body with the token, in bytes."""


class Access:
    """Decides which requests are allowed.

    Args:
        token: The secret that requests must contain.
        host: The address that the dashboard listens on.
        port: Its port, which is part of the cookie's name, since browsers send a cookie to all ports of a host.
        prefix: The setting ``dashboard_prefix``.
    """

    def __init__(self, token: str, host: str, port: int, prefix: str = "") -> None:
        self.prefix = prefix
        self._token = token.encode()
        self._local = ip_address(host).is_loopback
        self._hosts = {"localhost", "127.0.0.1", "::1", host}
        self.cookie = f"{COOKIE}_{port}"

    def is_for_us(self, headers: Headers) -> bool:
        """Return whether the Host header names this machine. Any host is accepted if the address is not loopback.

        This prevents DNS rebinding: another site makes its own name resolve to this machine, and makes the browser
        send requests under that name.
        """
        if not self._local:
            return True
        hosts = [value for name, value in headers if name == b"host"]
        if len(hosts) != 1:
            return False
        try:
            return urlsplit(f"//{hosts[0].decode('latin-1')}").hostname in self._hosts
        except ValueError:
            return False

    def knows_by_query(self, query: bytes) -> bool:
        """Return whether the query, or the body of the form, contains the right ``token``."""
        given = parse_qs(query.decode("latin-1"), errors="replace").get("token", ())
        return any(map(self._is_right, given))

    def knows_by_headers(self, headers: Headers) -> bool:
        """Return whether the Authorization header or the cookie contains the right token."""
        for name, value in headers:
            text = value.decode("latin-1")
            if name == b"authorization":
                scheme, _, given = text.partition(" ")
                if scheme.lower() in ("bearer", "token") and self._is_right(given.strip()):
                    return True
            elif name == b"cookie":
                for part in text.split(";"):
                    key, _, given = part.strip().partition("=")
                    if key == self.cookie and self._is_right(given):
                        return True
        return False

    def set_cookie(self, prefix: str = "", *, secure: bool = False) -> bytes:
        """Return the header that stores the token in a browser: for this site only, and hidden from scripts.

        Args:
            prefix: The path below which the browser sees the dashboard. The browser sends the cookie to no other path,
                since there are other applications behind the same proxy.
            secure: Whether the browser may send the cookie over HTTPS only.
        """
        value = f"{self.cookie}={self._token.decode()}; Path={prefix}/; HttpOnly; SameSite=Strict"
        return (value + "; Secure" * secure).encode()

    def _is_right(self, given: str) -> bool:
        return hmac.compare_digest(given.encode("utf-8", "replace"), self._token)


class AccessMiddleware:
    """Passes on the requests that `access` allows to an application, and adds security headers to every answer."""

    def __init__(self, app: ASGIApp, access: Access) -> None:
        self._app = app
        self._access = access

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008})
            return
        prefix, path = place(scope["path"], scope["headers"], self._access.prefix)
        scope = {**scope, "path": path}
        form = await _body_of_form(receive) if _is_form(scope) else None
        app, extra = self._admit(scope, prefix, form)

        async def send_hardened(message: Message) -> None:
            if message["type"] == "http.response.start":
                given = list(message.get("headers", ()))
                allowed = ASKING if isinstance(app, HTMLResponse) else PAGE if _is_page(given) else NOTHING
                policy = (b"content-security-policy", allowed)
                message = {**message, "headers": [*given, policy, *SECURITY_HEADERS, *extra]}
            await send(message)

        await app(scope, receive, send_hardened)

    def _admit(
        self, scope: Mapping[str, object], prefix: str, form: bytes | None
    ) -> tuple[ASGIApp, list[tuple[bytes, bytes]]]:
        """Return the application that answers a request, and headers to add to the answer."""
        headers, query = scope["headers"], scope["query_string"]
        assert isinstance(headers, Iterable)
        assert isinstance(query, bytes)
        headers = list(headers)
        if not self._access.is_for_us(headers):
            return PlainTextResponse(WRONG_HOST, 403), []
        if not scope["path"]:  # the links of the page are relative to the slash at the end of the prefix
            location = f"{prefix}/" + f"?{query.decode('latin-1')}" * bool(query)
            return Response(status_code=307, headers={"location": location}), []
        if form is not None and self._access.knows_by_query(form):
            return Response(status_code=303, headers={"location": "./"}), [self._cookie(headers, prefix)]
        if scope["path"] in OPEN_PATHS:
            return self._app, []
        if self._access.knows_by_headers(headers):
            return self._app, []
        if self._access.knows_by_query(query):
            return self._app, [self._cookie(headers, prefix)]
        # A proxy may remove a prefix that is not known here: then only the relative address is right.
        return _refusal(headers, "./" if scope["path"] == "/" else f"{prefix}/"), []

    def _cookie(self, headers: Headers, prefix: str) -> tuple[bytes, bytes]:
        """Return the header with which an answer stores the token in the browser."""
        return b"set-cookie", self._access.set_cookie(prefix, secure=(b"x-forwarded-proto", b"https") in headers)


def _is_form(scope: Scope) -> bool:
    """Return whether a request sends the form that asks for the token."""
    return (
        scope["path"] == "/"
        and scope["method"] == "POST"
        and any(name == b"content-type" and value.startswith(FORM) for name, value in scope["headers"])
    )


async def _body_of_form(receive: Receive) -> bytes:
    """Return the body of a request; only its beginning if it is too long for a token."""
    body = bytearray()
    while len(body) < MAX_FORM:
        message = await receive()
        body += message.get("body", b"")
        if not message.get("more_body", False):
            break
    return bytes(body[:MAX_FORM])


def _refusal(headers: Headers, action: str) -> Response:
    """Return the answer to a request without the right token: a page for browsers, a text for scripts."""
    wants_page = any(name == b"accept" and b"text/html" in value for name, value in headers)
    if wants_page:
        return HTMLResponse(ASKS_TOKEN.replace("ACTION", escape(action)), 403)
    return PlainTextResponse(NO_TOKEN, 403)


def _is_page(headers: Headers) -> bool:
    return any(name == b"content-type" and value.startswith(b"text/html") for name, value in headers)
