"""Explains an unfinished task: what applies to it, and for each engine whether it could run the task now."""

from __future__ import annotations

from typing import Any

from ..errors import WireError
from ..schedulers.tasks import TaskScheduler
from ..wire.messages import Message, Session
from .engines import Engines
from .intake import Intake
from .replies import Reply
from .waiting import Details

__all__ = ["Explanations"]


class Explanations:
    """Explains tasks, by the scheduler's own reasons (`TaskScheduler.explain`).

    Args:
        session: reads queries.
        scheduler, engines, intake, details: the parts of the hub below.
    """

    def __init__(
        self, session: Session, *, scheduler: TaskScheduler, engines: Engines, intake: Intake, details: Details
    ) -> None:
        self._session = session
        self._scheduler = scheduler
        self._by_ident = engines.by_ident
        self._intake = intake
        self._details = details

    def explain(self, msg_id: str) -> dict[str, Any]:
        """Return what is known about an unfinished task, as JSON values.

        - ``msg_id``, ``state``; ``why``: why it waits, or None; ``text``: the same in the words of the scheduler;
        - ``rules``: the rules that are not the defaults; ``policies``: the names of those that have set some of them;
        - ``attempts``: how many have begun; ``deaths``: the uuids of the engines with which the task was lost;
        - ``engines``: for each engine its ``id`` and ``uuid``, whether it ``may`` run the task now, and why: a stable
          ``word`` and a ``text``.

        Raises:
            KeyError: No unfinished task has this msg_id.
        """
        task = self._scheduler.tasks.get(msg_id)
        why = self._details.why(msg_id)
        if task is None:
            if msg_id not in self._intake.uncommitted:
                raise KeyError(f"{msg_id} is no load-balanced task, or has finished, or is unknown")
            nothing: dict[str, Any] = {"rules": {}, "policies": [], "attempts": 0, "deaths": [], "engines": []}
            return {"msg_id": msg_id, "state": "recording", "why": why, "text": why} | nothing
        engines = []
        text = None
        for reason in self._scheduler.explain(task):
            if reason.engine is None:
                text = reason.text
                continue
            engine = self._by_ident.get(reason.engine)
            engines.append(
                {
                    "id": None if engine is None else engine.id,
                    "uuid": reason.engine.decode("utf-8", "replace"),
                    "may": reason.word in ("may_run", "runs_it"),
                    "word": reason.word,
                    "text": reason.text,
                }
            )
        engines.sort(key=lambda each: (each["id"] is None, each["id"] or 0))
        return {
            "msg_id": msg_id,
            "state": task.state.value,
            "why": why,
            "text": text,
            "rules": task.rules.as_dict(),
            "policies": list(task.policies),
            "attempts": task.attempts,
            "deaths": [ident.decode("utf-8", "replace") for ident in task.deaths],
            "engines": engines,
        }

    def explain_request(self, client_id: list[bytes], msg: Message) -> Reply:
        """Reply with what `explain` returns for the ``msg_id`` in the query."""
        msg_id = self._session.content(msg).get("msg_id")
        if not isinstance(msg_id, str):
            raise WireError("wrong_type", "msg_id must be a text")
        return Reply("explain_reply", {"status": "ok"} | self.explain(msg_id))
