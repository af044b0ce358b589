"""Clients' queries about pools: ``pools_request``, ``scale_request`` and ``resume_pool_request``."""

from __future__ import annotations

from functools import partial
from typing import Any

from ...hub import Hub
from ...hub.askers import who_asks
from ...hub.replies import Reply
from ...wire.messages import Message
from .steering import Steering

__all__ = ["answer_queries"]


def answer_queries(hub: Hub, steering: Steering) -> None:
    """Have the hub answer queries about its pools."""
    hub.query_handlers["pools_request"] = partial(pools_request, steering)
    hub.query_handlers["scale_request"] = partial(scale_request, hub, steering)
    hub.query_handlers["resume_pool_request"] = partial(resume_pool_request, hub, steering)


def pools_request(steering: Steering, client_id: list[bytes], msg: Message) -> Reply:
    """Reply with a description of each pool."""
    return Reply("pools_reply", {"status": "ok", "pools": steering.listed()})


def scale_request(hub: Hub, steering: Steering, client_id: list[bytes], msg: Message) -> Reply:
    """Change the size of a pool, and reply with the numbers of engines that it has at least and at most.

    The content has ``pool``, and either ``engines``, the number of engines, or ``min`` and ``max``. If all of these are
    missing or null, the numbers of the settings hold again. ``by`` says who asks for the change.
    """
    content = hub.session.content(msg)
    name, sizes = _pool(content), {key: _whole(content, key) for key in ("engines", "min", "max")}
    low, high = steering.scale(name, sizes["engines"], min=sizes["min"], max=sizes["max"], by=who_asks(content, msg))
    return Reply("scale_reply", {"status": "ok", "pool": name, "min": low, "max": high})


def resume_pool_request(hub: Hub, steering: Steering, client_id: list[bytes], msg: Message) -> Reply:
    """Have a pool ask for blocks again. The content has ``pool``, and may have ``by``."""
    content = hub.session.content(msg)
    name = _pool(content)
    steering.resume(name, who_asks(content, msg))
    return Reply("resume_pool_reply", {"status": "ok", "pool": name})


def _pool(content: dict[str, Any]) -> str:
    name = content.get("pool")
    if not isinstance(name, str):
        raise TypeError(f"pool must be the name of a pool, not {str(name)[:100]!r}")
    return name


def _whole(content: dict[str, Any], key: str) -> int | None:
    value = content.get(key)
    if value is not None and (type(value) is not int or value < 0):
        raise TypeError(f"{key} must be a whole number of engines, or null, not {str(value)[:100]!r}")
    return value
