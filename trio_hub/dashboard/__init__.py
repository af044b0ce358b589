"""An HTTP side for a hub: its metrics for Prometheus, and its status for scripts. It only looks on.

To serve it, and not to import it, needs ``pip install 'trio-hub[dashboard]'``. ``trio-hub serve --dashboard`` does so,
and embedders start it beside their hub::

    hub = await nursery.start(serve_hub, HubConfig(dashboard=8788))
    dashboard = await nursery.start(serve_dashboard, hub)
    print(dashboard.url)
"""

from .serve import Dashboard, serve_dashboard

__all__ = ["Dashboard", "serve_dashboard"]
