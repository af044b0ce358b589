"""Broadcasts that are not gathered: when all shares are answered, the broadcast itself gets a reply.

A stock client waits for each share under the share's msg_id, and also counts the msg_id of the broadcast as
outstanding. Without a reply to that msg_id, `Client.wait` and `Client.purge_everything` of a stock client never succeed
after such a broadcast.
"""

from __future__ import annotations

from functools import partial
from typing import Any

from ..schedulers.broadcast import sub_msg_id
from ..wire.frames import Frames
from ..wire.messages import Header, Session
from .intake import Intake
from .notices import Notices
from .owed import OwedResults
from .ports import Host
from .replies import reply_type
from .results import NO_VALUE

__all__ = ["Scattered"]


class _Open:
    __slots__ = ("header", "idents", "left", "raw_header")

    def __init__(self, idents: list[bytes], header: Header, raw_header: bytes, left: int) -> None:
        self.idents = idents
        self.header = header
        self.raw_header = raw_header
        self.left = left


class Scattered:
    """Counts the unanswered shares of each stock client's broadcast, and sends the closing reply after the last share.

    The closing reply has no value and no record. If its client is away, the reply is dropped.

    Args:
        host, session: access to clients and to messages.
        notices, intake, owed: the parts of the hub below.
    """

    def __init__(self, host: Host, session: Session, *, notices: Notices, intake: Intake, owed: OwedResults) -> None:
        self._host = host
        self._session = session
        self._notices = notices
        self._intake = intake
        self._owed = owed
        self._open: dict[str, _Open] = {}

    def __len__(self) -> int:
        return len(self._open)

    def begin(self, idents: list[bytes], header: Header, raw_header: bytes, shares: int) -> None:
        """Note a broadcast that is about to be sent to its engines, as so many shares."""
        if not header.is_stock:
            return
        self._open[header.msg_id] = _Open(idents, header, raw_header, shares)

    def restore_share(self, idents: list[bytes], header: Header, raw_header: bytes, uuid: str) -> None:
        """Note an unanswered share of a broadcast of an earlier hub. ``header`` is the header of the share."""
        if not header.is_stock:
            return
        msg_id = header.msg_id.removesuffix(sub_msg_id("", uuid))
        broadcast = self._open.get(msg_id)
        if broadcast is None:
            packed = self._session.packer.repacked(raw_header, {"msg_id": msg_id})
            broadcast = self._open[msg_id] = _Open(idents, header.renamed(msg_id), packed, 0)
        broadcast.left += 1

    def share_ended(self, share: str, uuid: str) -> None:
        """Note that a share, given by its msg_id and engine, is answered or failed. Never raises."""
        msg_id = share.removesuffix(sub_msg_id("", uuid))
        broadcast = self._open.get(msg_id)
        if broadcast is None:
            return
        broadcast.left -= 1
        if broadcast.left > 0:
            return
        del self._open[msg_id]
        try:
            frames = self._closing_reply(broadcast)
            # behind the answers to the shares
            self._intake.when_safe(partial(self._host.soon, partial(self._send, broadcast, frames)))
        except Exception as error:
            self._notices.failed("broadcast result", error, task=msg_id)

    def _closing_reply(self, broadcast: _Open) -> Frames:
        header = broadcast.header
        is_call = header.msg_type == "apply_request"
        content: dict[str, Any] = {"status": "ok"}
        if not is_call:
            content |= {"execution_count": 0, "payload": [], "user_expressions": {}}
        return self._session.write(
            reply_type(header.msg_type),
            content,
            parent=broadcast.raw_header,
            metadata={
                "status": "ok",
                "is_broadcast": True,
                "is_coalescing": False,
                "original_msg_id": header.msg_id,
            },
            buffers=[NO_VALUE] if is_call else [],
        )

    def _send(self, broadcast: _Open, frames: Frames) -> None:
        try:
            if not broadcast.idents or self._host.send("broadcast_in", [*broadcast.idents, *frames]):
                return
            for channel, place in self._owed.clients.places(broadcast.header.session, "broadcast_in")[:1]:
                if self._host.send(channel, [place, *broadcast.idents[1:], *frames]):
                    return
            self._notices.ignored["client_gone"] += 1
        except Exception as error:
            self._notices.failed("delivery", error, task=broadcast.header.msg_id)
