"""The HTTP server of a hub: pages for browsers, metrics for Prometheus, and JSON for scripts.

It changes nothing in the hub unless the setting ``dashboard_admin`` allows actions. Serving it requires
``pip install hypercorn starlette prometheus-client``; importing this package does not. ``trio-hub serve --dashboard``
serves it.
Programs with an embedded hub start it beside the hub::

    hub = await nursery.start(serve_hub, HubConfig(dashboard=8788))
    dashboard = await nursery.start(serve_dashboard, hub)
    print(dashboard.url)
"""

from .serve import Dashboard, serve_dashboard

__all__ = ["Dashboard", "serve_dashboard"]
