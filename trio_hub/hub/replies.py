"""Messages to clients that are not recorded: replies to queries, refusals, and notifications."""

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
    """The answer to a query. The receiver of the object may change its content."""

    __slots__ = ("buffers", "content", "msg_type")

    def __init__(self, msg_type: str, content: dict[str, Any], buffers: list[Buffer] | None = None) -> None:
        self.msg_type = msg_type
        self.content = content
        self.buffers = buffers or []


class Replies:
    """Writes and sends messages that are not recorded.

    Args:
        host: access to the sockets.
        session: writes messages.
        notices: counts messages that cannot be sent.
    """

    def __init__(self, host: Host, session: Session, notices: Notices) -> None:
        self._host = host
        self._session = session
        self._notices = notices

    def reply(self, channel: str, idents: list[bytes], message: Message, reply: Reply) -> None:
        """Answer a message, on the channel on which it came."""
        self.send(channel, idents, self.write(message, reply))

    def write(self, message: Message, reply: Reply, *, noted: bool = True) -> Frames:
        """Return the frames of an answer, from the delimiter on. Raises `TypeError` if it cannot be packed.

        A thread calls this with ``noted=False``, and the event loop then notes the signature, see `Session.note`.
        """
        return self._session.write(
            reply.msg_type, reply.content, parent=message.frames[2], buffers=reply.buffers, noted=noted
        )

    def send(self, channel: str, idents: list[bytes], frames: Frames) -> None:
        """Send the frames of an answer."""
        if not self._host.send(channel, [*idents, *frames]):
            self._notices.ignored["client_gone"] += 1

    def refuse(self, channel: str, idents: list[bytes], msg: Message, error: HubError) -> None:
        """Answer a request that was never recorded with an error."""
        if isinstance(error, WireError):
            self._notices.unreadable(channel, error, task=msg.header.msg_id, client=msg.header.session)
        content = error_content(type(error).__name__, str(error))
        frames = self._session.write(
            reply_type(msg.header.msg_type), content, parent=msg.frames[2], metadata={"status": "error"}
        )
        self.send_back(channel, idents, frames)

    def send_back(self, channel: str, idents: list[bytes], frames: Frames) -> None:
        """Send a client an answer that is not recorded. Do nothing without identities: the hub itself has asked."""
        if idents and not self._host.send(channel, [*idents, *frames]):
            self._notices.ignore("client_gone", "a reply for a client that has disconnected", channel=channel)

    def notify(self, msg_type: str, content: dict[str, Any]) -> None:
        """Send a notification to all clients. Never raises: a notification that cannot be sent is lost."""
        try:
            self._host.send("notification", self._session.write(msg_type, content))
        except Exception as error:
            self._notices.failed("notification", error)


def reply_type(request_type: str) -> str:
    """Return the type of the reply to a request, such as ``apply_reply`` for ``apply_request``."""
    return request_type.removesuffix("_request") + "_reply"


def content_of(error: BaseException) -> dict[str, Any]:
    """Return the content of a reply that reports an error."""
    name = type(error).__name__
    text = str(error.args[0]) if isinstance(error, KeyError) and error.args else str(error)
    return error_content(name, text)
