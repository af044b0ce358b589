"""A small reverse proxy, as administrators put nginx in front of applications, with another application beside it."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import NamedTuple

from ...cli.process import LIMIT


class ReverseProxy(NamedTuple):
    address: str
    neighbour_cookies: list[str]
    """The cookies that browsers have sent to the other application."""


@contextmanager
def reverse_proxy(port: int, prefix: str, *, strips: bool) -> Iterator[ReverseProxy]:
    """Show the server at a port of this machine below a prefix.

    Args:
        port: The port of the dashboard.
        prefix: The path.
        strips: Whether the proxy removes the prefix from the path of a request. Then the proxy sends the prefix in a
            header.
    """
    cookies: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, format: str, *args: object) -> None:
            pass

        def do_GET(self) -> None:
            if not (self.path + "/").startswith((f"{prefix}/", f"{prefix}?")):
                cookies.append(self.headers.get("Cookie", ""))
                self.send_response(200)
                self.send_header("Content-Type", "text/plain")
                self.end_headers()
                self.wfile.write(b"another application")
                return
            path = self.path.removeprefix(prefix) if strips else self.path
            headers = {
                name: value for name, value in self.headers.items() if name.lower() not in ("host", "connection")
            }
            if strips:
                headers["X-Forwarded-Prefix"] = prefix
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            upstream = HTTPConnection("127.0.0.1", port, timeout=LIMIT)
            try:
                upstream.request(self.command, path or "/", body or None, headers | {"Connection": "close"})
                answer = upstream.getresponse()
                self.send_response_only(answer.status)
                for name, value in answer.getheaders():
                    if name.lower() not in ("connection", "transfer-encoding"):
                        self.send_header(name, value)
                self.end_headers()
                while piece := answer.read1(1 << 16):
                    self.wfile.write(piece)
                    self.wfile.flush()
            except OSError:
                pass  # one of both has closed its connection
            finally:
                upstream.close()

        do_POST = do_GET

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        server.block_on_close = False
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield ReverseProxy(f"http://127.0.0.1:{server.server_address[1]}", cookies)
        finally:
            server.shutdown()
            thread.join(LIMIT)
