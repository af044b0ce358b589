"""Plain pages: HTML of a few sentences, without scripts, and with its style in the page.

A browser gets a plain page in place of the dashboard if the token is missing, or if Jupyter finds no dashboard.
"""

from __future__ import annotations

from base64 import b64encode
from hashlib import sha256

__all__ = ["plain_page", "plain_policy"]


def plain_page(title: str, style: str, content: str) -> str:
    """Return a page, from its style in CSS and from its content in HTML."""
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title} · trio-hub</title>
<style>{style}</style>
</head>
<body>
<main>
{content}
</main>
</body>
</html>
"""


def plain_policy(style: str, *, form_action: str = "'none'", frame_ancestors: str = "'none'") -> str:
    """Return the content security policy of a page with this style. The browser loads nothing for the page.

    Args:
        style: The style of the page. The browser applies no other style.
        form_action: The addresses to which the page may send a form, as the policy writes them.
        frame_ancestors: The pages that may contain this page in a frame, as the policy writes them.
    """
    digest = b64encode(sha256(style.encode()).digest()).decode()
    return (
        f"default-src 'none'; base-uri 'none'; form-action {form_action}; frame-ancestors {frame_ancestors}; "
        f"style-src 'sha256-{digest}'"
    )
