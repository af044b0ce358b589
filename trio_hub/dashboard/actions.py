"""The actions of the pages, if the setting ``dashboard_admin`` allows them: ``POST /api/actions/NAME``.

The hub logs each action and each refused action, with the person who asked for it. The pages of other sites cannot ask
for actions: their forms cannot set the required header, and browsers do not allow their scripts to set it.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Mapping
from contextlib import aclosing
from typing import Any, NamedTuple, TypeAlias

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from ..errors import EngineError, PoolError, QueryError, StoreError
from ..hub.draining import SHUTDOWN
from ..logs import get_logger
from ..runtime import RunningHub
from ..wire.plain import json_text
from .answers import as_json, refusal
from .bulk import abort_found, by_what, cancel_found, resubmit_failures, resubmit_found
from .journal import Journal
from .pools import pool_details
from .sentences import plural
from .tasks import Search
from .watching import Watch

__all__ = ["ACTOR_COOKIE", "action_route", "actor_of"]

log = get_logger("trio_hub.dashboard")


class Asking(NamedTuple):
    """What an action may use: the hub, its observer, and the name and address of the person who asks for it."""

    hub: RunningHub
    watch: Watch
    who: str


Action: TypeAlias = Callable[[Asking, dict[str, Any]], Awaitable[dict[str, Any]]]

HEADER = "x-trio-hub"
ACTOR_COOKIE = "trio_hub_actor"
MAX_BODY = 16 << 20
"""The maximum size of a request, in bytes. A million msg_ids have more, and need several requests."""
MAX_ACTOR = 100
"""The maximum length of the name of a person, in characters."""
MAX_SECONDS = 10_000_000
"""The maximum number of seconds of a grace or a deadline."""
MAX_SHOWN = 5
"""The maximum number of tasks in a log line."""


def actor_of(request: Request) -> str | None:
    """Return the name that a person has given, as ``?actor=…`` or in a cookie. The name is not verified."""
    return (request.query_params.get("actor") or request.cookies.get(ACTOR_COOKIE) or "")[:MAX_ACTOR] or None


async def _abort(asking: Asking, body: dict[str, Any]) -> dict[str, Any]:
    search = _search(asking, body)
    if search is not None:
        return await abort_found(asking.hub, search)
    msg_ids = _msg_ids(body)
    aborted = asking.hub.abort(msg_ids)
    gone = set(aborted)
    return {"aborted": aborted, "not_queued": [msg_id for msg_id in dict.fromkeys(msg_ids) if msg_id not in gone]}


async def _cancel(asking: Asking, body: dict[str, Any]) -> dict[str, Any]:
    grace = _seconds(body, "grace")
    search = _search(asking, body)
    if search is not None:
        return await cancel_found(asking.hub, search, by=asking.who, grace=grace)
    return by_what(await asking.hub.cancel(_msg_ids(body), by=asking.who, grace=grace))


async def _resubmit(asking: Asking, body: dict[str, Any]) -> dict[str, Any]:
    group = body.get("group")
    if type(group) is int:
        return await resubmit_failures(asking.hub, asking.watch, group)
    search = _search(asking, body)
    if search is not None:
        return await resubmit_found(asking.hub, search)
    return {"resubmitted": await asking.hub.resubmit(_msg_ids(body)), "refused": []}


async def _purge(asking: Asking, body: dict[str, Any]) -> dict[str, Any]:
    if len(body) != 1:
        raise QueryError('purge: give exactly one of "msg_ids", "query" and "all"')
    if "query" in body:
        return {"purged": await asking.hub.purge(body["query"])}
    if "all" in body:
        if body["all"] is not True:
            raise QueryError('purge: "all" must be true, or left out')
        return {"purged": await asking.hub.purge({})}
    return {"purged": await asking.hub.purge({"msg_id": {"$in": _msg_ids(body)}})}


async def _drain(asking: Asking, body: dict[str, Any]) -> dict[str, Any]:
    uuids, deadline, then = _texts(body, "uuids"), _seconds(body, "deadline"), body.get("then") or ""
    if then not in ("", SHUTDOWN):
        raise QueryError(f'"then" must be "{SHUTDOWN}" or empty')
    asking.hub.drain(uuids, deadline=deadline, then=then, by=asking.who)
    return {"drained": uuids}


async def _undrain(asking: Asking, body: dict[str, Any]) -> dict[str, Any]:
    uuids = _texts(body, "uuids")
    asking.hub.undrain(uuids, by=asking.who)
    return {"undrained": uuids}


async def _shutdown_engine(asking: Asking, body: dict[str, Any]) -> dict[str, Any]:
    uuid = body.get("uuid")
    if not isinstance(uuid, str):
        raise QueryError('"uuid" must be the uuid of an engine')
    asking.hub.shutdown_engine(uuid)
    return {}


async def _drop_owed(asking: Asking, body: dict[str, Any]) -> dict[str, Any]:
    client = body.get("client")
    if not isinstance(client, str):
        raise QueryError('"client" must be the session of a client')
    return {"dropped": await asking.hub.drop_owed(client)}


async def _scale_pool(asking: Asking, body: dict[str, Any]) -> dict[str, Any]:
    name, numbers = _pool(body), {key: _whole(body, key) for key in ("engines", "min", "max")}
    given = {key for key, value in numbers.items() if value is not None}
    if given not in ({"engines"}, {"min", "max"}, set()) or (body.get("reset") is True) is bool(given):
        raise QueryError('give either "engines", or "min" and "max", or "reset": true')
    asking.hub.scale(name, numbers["engines"], min=numbers["min"], max=numbers["max"], by=asking.who)
    pool = pool_details(asking.hub.pools, name)
    return {} if pool is None else {"min": pool["min"], "max": pool["max"]}


async def _resume_pool(asking: Asking, body: dict[str, Any]) -> dict[str, Any]:
    asking.hub.resume_pool(_pool(body), by=asking.who)
    return {}


async def _stop_hub(asking: Asking, body: dict[str, Any]) -> dict[str, Any]:
    asking.hub.shutdown("the dashboard's request")
    return {}


ACTIONS: Mapping[str, Action] = {
    "abort": _abort,
    "cancel": _cancel,
    "resubmit": _resubmit,
    "purge": _purge,
    "drain": _drain,
    "undrain": _undrain,
    "shutdown_engine": _shutdown_engine,
    "drop_owed": _drop_owed,
    "scale_pool": _scale_pool,
    "resume_pool": _resume_pool,
    "stop_hub": _stop_hub,
}


NOTED_BY_EVENTS = frozenset(("cancel", "drain", "undrain", "scale_pool"))
"""The actions that the hub tells in events with the name of the person. The journal notes these events."""


def action_route(hub: RunningHub, watch: Watch, journal: Journal, *, allowed: bool) -> Route:
    """Return the route of all actions.

    Args:
        hub: The hub that carries out the actions.
        watch: The observer of the hub.
        journal: Notes who did what.
        allowed: Whether actions are allowed.
    """

    async def act(request: Request) -> Response:
        name = request.path_params["name"]
        peer = request.client.host if request.client is not None else None
        actor = actor_of(request)
        who = f"{actor} ({peer})" if actor and peer else actor or peer or "somebody"

        def refused(status: int, why: str) -> Response:
            log.warning(
                "refused an action from the dashboard",
                kind="action_refused",
                action=name[:60],
                peer=peer,
                actor=actor,
                error=why,
            )
            journal.note("refused", "warn", f"was not allowed the action {name[:60]!r}: {why}", who=who, near=60.0)
            return refusal(status, why)

        if not allowed:
            return refused(403, "this dashboard is read-only: start the hub with --dashboard-admin to allow actions")
        if request.headers.get(HEADER) != "1":
            return refused(403, "the header 'X-Trio-Hub: 1' is missing, which every action requires")
        action = ACTIONS.get(name)
        if action is None:
            return refused(404, f"there is no action {name[:60]!r}; the actions are {', '.join(ACTIONS)}")
        if hub.is_stopping:
            return refused(503, "the hub is stopping")
        try:
            body = await _body_of(request)
            answer = await action(Asking(hub, watch, who), body)
        except (QueryError, PoolError) as error:
            return refused(400, str(error))
        except KeyError as error:
            return refused(404, str(error.args[0]))
        except EngineError as error:
            return refused(404, str(error))
        except StoreError as error:
            return refused(503, f"the task database failed: {error}")
        log.info(
            "action from the dashboard",
            action=name,
            peer=peer,
            actor=actor,
            asked=_shown(body),
            outcome=_shown(answer),
        )
        if name not in NOTED_BY_EVENTS:
            journal.note("action", "info", _told(hub, name, body, answer), who=who, near=-1.0)
        return as_json(answer)

    return Route("/api/actions/{name}", act, methods=["POST"])


async def _body_of(request: Request) -> dict[str, Any]:
    """Return the JSON object in a request. Raises `QueryError`."""
    received = bytearray()
    async with aclosing(request.stream()) as parts:
        async for part in parts:
            received += part
            if len(received) > MAX_BODY:
                raise QueryError(f"the request has more than {MAX_BODY} bytes: send several smaller requests")
    try:
        body = json.loads(received or b"{}")
    except (ValueError, RecursionError) as error:
        raise QueryError(f"the body is not JSON: {error}") from None
    if not isinstance(body, dict):
        raise QueryError("the body must be a JSON object")
    return body


def _told(hub: RunningHub, name: str, body: dict[str, Any], answer: dict[str, Any]) -> str:
    """Return what somebody did, for the journal."""
    match name:
        case "abort":
            return f"aborted {plural(_number(answer['aborted']), 'task')}"
        case "resubmit":
            return f"resubmitted {plural(_number(answer['resubmitted']), 'task')}"
        case "purge":
            return f"purged {plural(answer['purged'], 'record')}"
        case "shutdown_engine":
            engine = hub.core.engines.by_ident.get(body["uuid"].encode("utf-8", "replace"))
            return f"asked engine {body['uuid'][:60] if engine is None else engine.id} to end"
        case "drop_owed":
            return f"dropped {plural(answer['dropped'], 'result')} that waited for client {body['client'][:60]}"
        case "resume_pool":
            return f"resumed pool {body['pool'][:60]}"
        case "stop_hub":
            return "asked the hub to stop"
        case _:
            return f"carried out the action {name!r}"


def _number(done: Any) -> int:
    """Return the number of tasks, which an answer tells as such or by their msg_ids."""
    return done if isinstance(done, int) else len(done)


def _msg_ids(body: dict[str, Any]) -> list[str]:
    return _texts(body, "msg_ids")


def _texts(body: dict[str, Any], name: str) -> list[str]:
    texts = body.get(name)
    if not isinstance(texts, list) or not texts or not all(isinstance(one, str) for one in texts):
        raise QueryError(f'"{name}" must be a list of at least one text')
    return texts


def _pool(body: dict[str, Any]) -> str:
    name = body.get("pool")
    if not isinstance(name, str):
        raise QueryError('"pool" must be the name of a pool')
    return name


def _whole(body: dict[str, Any], name: str) -> int | None:
    number = body.get(name)
    if number is not None and (type(number) is not int or number < 0):
        raise QueryError(f'"{name}" must be a number of engines')
    return number


def _seconds(body: dict[str, Any], name: str) -> float | None:
    seconds = body.get(name)
    if seconds is None:
        return None
    if type(seconds) not in (int, float) or not 0 <= seconds <= MAX_SECONDS:
        raise QueryError(f'"{name}" must be a number of seconds, at most {MAX_SECONDS:,}')
    return float(seconds)


def _search(asking: Asking, body: dict[str, Any]) -> Search | None:
    """Return the search for the tasks that an action is for; None if the action does not name a query."""
    if "query" not in body:
        return None
    if "msg_ids" in body:
        raise QueryError('give either "msg_ids" or "query"')
    text, state = body.get("text", ""), body.get("state", "")
    if not isinstance(text, str) or not isinstance(state, str):
        raise QueryError('"text" and "state" must be texts')
    return Search(asking.hub, asking.watch, body["query"], text, state)


def _shown(values: dict[str, Any]) -> str:
    """Return the body of a request or an answer as a short text for a log line."""
    shown = {}
    for key, value in values.items():
        if isinstance(value, list | dict) and len(value) > MAX_SHOWN:
            shown[key] = [*list(value)[:MAX_SHOWN], f"and {len(value) - MAX_SHOWN} more"]
        else:
            shown[key] = value
    return json_text(shown)[:500]
