"""Shows the dashboard of the user's hub in Jupyter: an entry of jupyter-server-proxy, in JupyterLab's launcher.

jupyter-server-proxy loads `setup` by its entry point, and starts ``python -m trio_hub.jupyter SOCKET`` when a user
first opens the page. That process finds the user's hub at each request (`trio_hub.jupyter.finding`), and passes the
request on with the hub's token (`trio_hub.jupyter.forwarding`).
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

__all__ = ["setup"]

ICON = Path(__file__).parents[1] / "dashboard" / "static" / "icon.svg"


def setup() -> dict[str, Any]:
    """Return the settings of the entry ``trio-hub`` of jupyter-server-proxy.

    The process listens on a Unix socket in a directory that only this user can enter. On a TCP port, all users of the
    machine could reach the process, which adds the token to their requests.
    """
    python = sys.executable.replace("{", "{{").replace("}", "}}")  # jupyter-server-proxy formats each word
    return {
        "command": [python, "-m", "trio_hub.jupyter", "{unix_socket}"],
        "unix_socket": True,
        "timeout": 30.0,
        "new_browser_tab": True,
        "update_last_activity": False,  # an open page alone must not keep an idle Jupyter server running
        "launcher_entry": {"title": "trio-hub", "icon_path": str(ICON)},
    }
