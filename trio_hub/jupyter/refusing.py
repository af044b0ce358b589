"""The answers of the proxy when there is no dashboard: a page for people, JSON for scripts."""

from __future__ import annotations

import json
from html import escape

from ..dashboard.plainpages import plain_page, plain_policy
from .finding import NoDashboard

__all__ = ["refusal"]

STYLE = """
:root { color-scheme: light dark; font: 15px/1.5 system-ui, sans-serif; }
main { max-width: 40rem; margin: 12vh auto 0; padding: 0 1rem; overflow-wrap: anywhere; }
"""
CONTENT = """<h1>There is no dashboard to show</h1>
<p>{reason}</p>
<p>{remedy}</p>
{command}
<p><a href="">Try again</a></p>"""
POLICY = plain_policy(STYLE, frame_ancestors="'self'")


def refusal(reason: NoDashboard, *, wants_page: bool) -> tuple[list[tuple[bytes, bytes]], bytes]:
    """Return the headers and the body of an answer that says why there is no dashboard, and what to do."""
    if wants_page:
        command = f"<pre><code>{escape(reason.command)}</code></pre>" if reason.command else ""
        content = CONTENT.format(reason=escape(str(reason)), remedy=escape(reason.remedy), command=command)
        page = plain_page("No dashboard", STYLE, content)
        content_type, body = "text/html; charset=utf-8", page.encode("utf-8", "backslashreplace")
    else:
        text = " ".join(part for part in (str(reason), reason.remedy, reason.command) if part)
        content_type, body = "application/json", json.dumps({"error": text}).encode()
    headers = {
        "content-type": content_type,
        "content-security-policy": POLICY,
        "x-content-type-options": "nosniff",
        "referrer-policy": "no-referrer",
        "cache-control": "no-store",
    }
    return [(name.encode(), value.encode()) for name, value in headers.items()], body
