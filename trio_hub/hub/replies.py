"""What is sent to clients and not recorded: replies to queries, refusals, and notifications."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..errors import HubError, WireError
from ..wire.frames import Buffer, Frames
from ..wire.messages import Message, Session, error_content

if TYPE_CHECKING:
    from .notices import Notices
    from .ports import Host

__all__ = ["Replies", "Reply", "content_of", "reply_type"]


class Reply:
    """The answer to a query; whoever is given it may change its content."""

    __slots__ = ("buffers", "content", "msg_type")

    def __init__(self, msg_type: str, content: dict[str, Any], buffers: list[Buffer] | None = None) -> None:
        self.msg_type = msg_type
        self.content = content
        self.buffers = buffers or []


class Replies:
    """Writes and sends what is not recorded.

    Args:
        host: the way to the sockets.
        session: writes messages.
        notices: counts what cannot be sent.
    """

    def __init__(self, host: Host, session: Session, notices: Notices) -> None:
        self._host = host
        self._session = session
        self._notices = notices

    def reply(self, channel: str, idents: list[bytes], message: Message, reply: Reply) -> None:
        """Answer a message on the channel it came by."""
        self.send(channel, idents, self.write(message, reply))

    def write(self, message: Message, reply: Reply, *, noted: bool = True) -> Frames:
        """The answer to a message, from the delimiter on. Raises `TypeError` if it cannot be packed.

        A thread that writes it leaves it to the event loop to note it, see `Session.note`.
        """
        return self._session.write(
            reply.msg_type, reply.content, parent=message.frames[2], buffers=reply.buffers, noted=noted
        )

    def send(self, channel: str, idents: list[bytes], frames: Frames) -> None:
        """Send an answer that is written."""
        if not self._host.send(channel, [*idents, *frames]):
            self._notices.ignored["client_gone"] += 1

    def refuse(self, channel: str, idents: list[bytes], msg: Message, error: HubError) -> None:
        """Answer with an error a request that was never recorded."""
        if isinstance(error, WireError):
            self._notices.unreadable(channel, error, task=msg.header.msg_id, client=msg.header.session)
        content = error_content(type(error).__name__, str(error))
        frames = self._session.write(
            reply_type(msg.header.msg_type), content, parent=msg.frames[2], metadata={"status": "error"}
        )
        self.send_back(channel, idents, frames)

    def send_back(self, channel: str, idents: list[bytes], frames: Frames) -> None:
        """Send a client an answer that is not recorded. If the hub itself has asked, nobody is sent anything."""
        if idents and not self._host.send(channel, [*idents, *frames]):
            self._notices.ignore("client_gone", "a reply for a client that has disconnected", channel=channel)

    def notify(self, msg_type: str, content: dict[str, Any]) -> None:
        """Tell all clients. A notification that cannot be sent is lost, and nothing else: never raises."""
        try:
            self._host.send("notification", self._session.write(msg_type, content))
        except Exception as error:
            self._notices.failed("notification", error)


def reply_type(request_type: str) -> str:
    """``apply_request`` is answered by ``apply_reply``, and so on."""
    return request_type.removesuffix("_request") + "_reply"


def content_of(error: BaseException) -> dict[str, Any]:
    """The content of a reply that reports this error."""
    name = type(error).__name__
    text = str(error.args[0]) if isinstance(error, KeyError) and error.args else str(error)
    return error_content(name, text)
