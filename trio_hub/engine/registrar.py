"""Asks the hub to register the engine, and whether the hub still knows the engine."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from typing import Any

import trio

from ..errors import HubLostError, WireError
from ..logs import get_logger
from ..wire.frames import Frames
from .dispatch import Dispatcher
from .offers import seconds_left
from .waiting import happens_within

__all__ = ["Registrar", "RegistrationFailed"]

log = get_logger("trio_hub.engine")


class RegistrationFailed(HubLostError):
    """The hub does not answer a registration, or refuses it."""


class _Question:
    """A request whose answer has not come yet. ``answer`` is the content of the answer."""

    def __init__(self, reply_type: str) -> None:
        self.reply_type = reply_type
        self.answer: dict[str, Any] | None = None
        self.answered = trio.Event()


class Registrar:
    """Asks questions on the registration channel. All methods are for the thread of the sockets.

    Args:
        uuid: the engine's name.
        dispatcher: has the session, and sends on the channel.
        timeout: seconds that the hub has for each answer.
        wanted_id: the id that the engine asks for; None for any.
        offers: the tags and amounts that the engine offers.
        block: the name of the pool's block that has started the engine; empty if none has.
    """

    def __init__(
        self,
        uuid: str,
        dispatcher: Dispatcher,
        timeout: float,
        wanted_id: int | None,
        offers: Mapping[str, str | float],
        block: str = "",
    ) -> None:
        self._uuid = uuid
        self._dispatcher = dispatcher
        self._timeout = timeout
        self.wanted_id = wanted_id
        self._offers = dict(offers)
        self._block = block
        self.hub = ""
        """The address of the hub that is asked, for messages."""
        self._open: dict[str, _Question] = {}
        """The requests whose answers have not come yet, by their msg_ids."""
        self._late: dict[str, Any] | None = None
        """The content of an acceptance that came after its time."""

    def turn_to(self, hub: str) -> None:
        """Ask the hub at this address from now on. A late answer of the previous hub no longer counts."""
        self.hub, self._late = hub, None

    async def register(self) -> dict[str, Any] | None:
        """Ask to be registered. Return the content of the answer; None if there is none in time."""
        content: dict[str, Any] = {"uuid": self._uuid, "aims_interrupts": True, "offers": self._offers}
        if (left := seconds_left(time.time())) is not None:
            content["seconds_left"] = left
        if self._block:
            content["block"] = self._block
        if self.wanted_id is not None:
            content["id"] = self.wanted_id
        return await self._ask("registration_request", content)

    async def drain(self, content: Mapping[str, Any]) -> dict[str, Any] | None:
        """Ask the hub for a drain of this engine, or about it. Return the answer's content; None if there is none."""
        return await self._ask("drain_request", {"uuid": self._uuid, **content})

    def accepted(self, answer: dict[str, Any] | None) -> dict[str, Any]:
        """Return the answer to `register` if the hub has accepted the engine. Raises `RegistrationFailed`."""
        if answer is None:
            raise self._no_answer()
        if answer.get("status") != "ok":
            raise RegistrationFailed(f"the hub has refused the registration: {answer.get('evalue')}")
        return answer

    def is_in_use(self, answer: dict[str, Any] | None) -> bool:
        """Return whether the hub has refused a registration since it already knows an engine with this uuid."""
        return answer is not None and answer.get("ename") == "KeyError" and self._uuid in str(answer.get("evalue"))

    def _no_answer(self) -> RegistrationFailed:
        return RegistrationFailed(
            f"no answer from the hub at {self.hub} within {self._timeout:g} s. "
            "Is the hub still running, and does it listen at an address that this machine can reach?"
        )

    def accepted_late(self) -> dict[str, Any] | None:
        """Return the content of the hub's acceptance if it came after its time, once; else None."""
        late, self._late = self._late, None
        return late

    async def id_at_hub(self) -> int | None:
        """Return the id by which the hub knows this engine; None if the hub does not know this engine.

        Raises:
            RegistrationFailed: there is no answer in time.
            WireError: the answer has no table of engines.
        """
        answer = await self._ask("connection_request", {})
        if answer is None:
            raise self._no_answer()
        engines = answer.get("engines")
        if not isinstance(engines, dict):
            raise WireError("malformed", f"the hub's answer has no engines: {answer!r}")
        return next((int(engine_id) for engine_id, uuid in engines.items() if uuid == self._uuid), None)

    async def _ask(self, msg_type: str, content: dict[str, Any]) -> dict[str, Any] | None:
        session = self._dispatcher.session
        header = session.new_header(msg_type)
        # with the process id in it, as in stock sessions, so that the hub knows the process
        msg_id = header["msg_id"] = f"{self._uuid}_{os.getpid()}_{header['msg_id'].rpartition('_')[2]}"
        question = self._open[msg_id] = _Question(msg_type.replace("_request", "_reply"))
        self._dispatcher.send("registration", session.write(msg_type, content, header=header))
        try:
            await happens_within(question.answered, self._timeout)
        finally:
            del self._open[msg_id]
        return question.answer

    def on_reply(self, frames: Frames) -> None:
        """Take an answer of the hub."""
        session = self._dispatcher.session
        try:
            message = session.read_untrusted(frames)
            content = session.content(message)
        except WireError as error:
            log.warning("a message that cannot be read was dropped", error=error)
            return
        msg_type, msg_id = message.header.msg_type, message.parent.msg_id
        accepts = msg_type == "registration_reply" and content.get("status") == "ok"
        question = self._open.get(msg_id)
        if question is None and (accepts or not msg_id):
            # ipcontroller's registration_reply does not name the request. An acceptance may belong to an earlier
            # request; then the hub will refuse the request that is open.
            question = next((one for one in reversed(self._open.values()) if one.reply_type == msg_type), None)
        if question is not None:
            question.answer = content
            question.answered.set()
        elif accepts:
            self._late = content
