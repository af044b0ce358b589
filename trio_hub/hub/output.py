"""IOPub: passes on to all clients the messages that engines publish, and records output."""

from __future__ import annotations

from collections.abc import Sequence

from ..errors import WireError
from ..records import Store
from ..wire.frames import Buffer
from ..wire.messages import Message, Session
from .engines import Engines
from .notices import Notices
from .ports import Host
from .usage import USAGE, usage_in

__all__ = ["Output"]

_OUTPUT = frozenset(("stream", "error", "execute_input", "execute_result"))


class Output:
    """Passes on and records the messages that engines publish.

    Args:
        host, session, store: access to clients, messages and records.
        notices: counts and logs messages that cannot be used.
        engines: loses engines that publish their shutdown.
    """

    def __init__(self, host: Host, session: Session, store: Store, notices: Notices, engines: Engines) -> None:
        self._host = host
        self._session = session
        self._store = store
        self._notices = notices
        self._engines = engines

    def is_of_use(self, frames: Sequence[Buffer]) -> bool:
        """Return whether a message that has arrived concerns anybody; it is not verified yet.

        A message needs no further work if no client wants it, and it is neither recorded nor counted nor a shutdown.
        Most such messages are the statuses that follow each result.
        """
        if self._host.is_wanted("iopub_out", frames):
            return True
        msg_type = self._session.msg_type_untrusted(frames)
        return msg_type in _OUTPUT or msg_type is None or msg_type == USAGE or msg_type.endswith(("_request", "_reply"))

    def monitor_iopub_message(self, topics: list[bytes], msg: Message) -> None:
        """Pass a message that an engine has published on to all clients, and record it if it is output."""
        msg_type = msg.header.msg_type
        if msg_type == USAGE:
            self._note_usage(msg)
            return
        if msg_type.endswith(("_request", "_reply")) and msg_type != "shutdown_reply":
            self._notices.ignore("not_output", f"{msg_type!r} is not output", task=msg.parent.msg_id, channel="iopub")
            return
        self._host.send("iopub_out", [*topics, *msg.frames])
        if msg_type == "shutdown_reply":
            engine = self._engines.by_ident.get(msg.header.session.encode("utf-8", "replace"))
            if engine is not None:
                self._engines.lose_engine(engine, "shutdown")
        elif msg_type in _OUTPUT and msg.parent.msg_id:
            self.save_iopub_message(topics, msg)

    def _note_usage(self, msg: Message) -> None:
        """Note what an engine uses. Clients are not told, since they have not asked for it."""
        engine = self._engines.by_ident.get(msg.header.session.encode("utf-8", "replace"))
        try:
            if engine is not None:
                engine.usage = usage_in(self._session.content(msg))
        except WireError as error:
            self._notices.unreadable("iopub", error)

    def save_iopub_message(self, topics: list[bytes], msg: Message) -> None:
        """Record the output of a request."""
        msg_id = msg.parent.msg_id
        try:
            content = self._session.content(msg)
            if msg.header.msg_type == "stream":
                name, text = content.get("name"), content.get("text")
                if name not in ("stdout", "stderr") or not isinstance(text, str):
                    raise WireError("wrong_type", f"a stream message must name stdout or stderr, not {name!r}")
                self._store.append(msg_id, name, text)
            elif msg.header.msg_type == "execute_input":
                code = content.get("code")
                if not isinstance(code, str):
                    raise WireError("wrong_type", "an execute_input message without code")
                self._store.update(msg_id, {"execute_input": code})
            else:
                self._store.update(msg_id, {msg.header.msg_type: self._session.packer.to_json(msg.raw_content)})
        except WireError as error:
            self._notices.unreadable("iopub", error)
