"""Asks the hub to register the engine, and whether the hub still knows the engine."""

from __future__ import annotations

import os
from typing import Any

import trio

from ..errors import WireError
from ..logs import get_logger
from ..wire.frames import Frames
from .dispatch import Dispatcher

__all__ = ["Registrar"]

log = get_logger("trio_hub.engine")


class Registrar:
    """Asks questions on the registration channel. All methods are for the thread of the sockets.

    Args:
        uuid: the engine's name.
        dispatcher: has the session, and sends on the channel.
        timeout: seconds that the hub has for each answer.
        wanted_id: the id that the engine asks for; None for any.
    """

    def __init__(self, uuid: str, dispatcher: Dispatcher, timeout: float, wanted_id: int | None) -> None:
        self._uuid = uuid
        self._dispatcher = dispatcher
        self._timeout = timeout
        self.wanted_id = wanted_id
        self._asked: dict[str, trio.Event] = {}
        """Set when the answer has come, by the request's msg_id."""
        self._reply_types: dict[str, str] = {}
        """The msg_ids of the open requests, by the types of their replies."""
        self._replied: dict[str, dict[str, Any]] = {}

    async def register(self) -> dict[str, Any] | None:
        """Ask to be registered. Return the content of the answer; None if there is none in time."""
        content: dict[str, Any] = {"uuid": self._uuid}
        if self.wanted_id is not None:
            content["id"] = self.wanted_id
        return await self._ask("registration_request", content)

    async def is_known(self) -> bool:
        """Return whether the hub knows this engine; True without an answer: the hub is asked again when it returns."""
        answer = await self._ask("connection_request", {})
        engines = None if answer is None else answer.get("engines")
        return not isinstance(engines, dict) or self._uuid in engines.values()

    async def _ask(self, msg_type: str, content: dict[str, Any]) -> dict[str, Any] | None:
        session = self._dispatcher.session
        header = session.new_header(msg_type)
        # with the process id in it, as in stock sessions, so that the hub knows the process
        msg_id = header["msg_id"] = f"{self._uuid}_{os.getpid()}_{header['msg_id'].rpartition('_')[2]}"
        replied = self._asked[msg_id] = trio.Event()
        reply_type = msg_type.replace("_request", "_reply")
        self._reply_types[reply_type] = msg_id
        self._dispatcher.send("registration", session.write(msg_type, content, header=header))
        with trio.move_on_after(self._timeout):
            await replied.wait()
        del self._asked[msg_id], self._reply_types[reply_type]
        return self._replied.pop(msg_id, None)

    def on_reply(self, frames: Frames) -> None:
        """Take an answer of the hub."""
        session = self._dispatcher.session
        try:
            message = session.read_untrusted(frames)
            content = session.content(message)
        except WireError as error:
            log.warning("a message that cannot be read was dropped", error=error)
            return
        # ipcontroller's registration_reply does not name the request.
        msg_id = message.parent.msg_id or self._reply_types.get(message.header.msg_type, "")
        asked = self._asked.get(msg_id)
        if asked is not None:
            self._replied[msg_id] = content
            asked.set()
