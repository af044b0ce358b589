"""Broadcasts of an earlier hub: their engines may still answer, and some answers are noted already."""

from __future__ import annotations

from collections.abc import Mapping

from ..errors import EngineError
from ..records.record import TaskRecord
from ..schedulers.broadcast import Broadcast, sub_msg_id
from ..schedulers.unanswered import Direct, Lane
from ..wire.messages import Message, Session
from .broadcasts import Broadcasts
from .connector import EngineConnector
from .engines import Engines
from .gathering import Gathering
from .scattered import Scattered
from .shares import noted_shares

__all__ = ["RestoredBroadcasts"]


class RestoredBroadcasts:
    """Hands the broadcasts of an earlier hub to the parts that carry on with them.

    Args:
        session: reads messages.
        engines, gathering, scattered, broadcasts: the parts of the hub below.
    """

    def __init__(
        self, session: Session, *, engines: Engines, gathering: Gathering, scattered: Scattered, broadcasts: Broadcasts
    ) -> None:
        self._session = session
        self._by_ident, self._gone = engines.by_ident, engines.gone
        self._gathering = gathering
        self._scattered = scattered
        self._broadcasts = broadcasts

    def take_over_share(self, message: Message, engine: EngineConnector | None) -> None:
        """Carry on with a share of an earlier hub's broadcast. Raises `EngineError` if `engine` is None."""
        self._broadcasts.count_restored()
        if engine is None:
            raise EngineError("its record names no engine")
        self._scattered.restore_share(message.idents, message.header, message.raw_header, engine.uuid)
        self._broadcasts.unanswered.restore(
            Direct(message.idents, message.header, message.raw_header, engine.broadcast)
        )

    def take_over(self, message: Message, shares: Mapping[str, TaskRecord]) -> None:
        """Carry on with a gathered broadcast of an earlier hub, given its notes of answers. Raises `WireError`."""
        self._broadcasts.count_restored()
        header = message.header
        targets = self._session.broadcast_metadata(message).targets
        broadcast = Broadcast(message.idents, header, message.raw_header, targets)
        self._gathering.begin(broadcast)
        for uuid, answer in noted_shares(broadcast, shares):
            broadcast.answered(uuid, answer)
        missing = [uuid for uuid, _ in targets if uuid not in broadcast.answers]
        if not missing:
            self._gathering.finish_broadcast(broadcast)
        for uuid in missing:
            engine = self._by_ident.get(uuid.encode("utf-8", "replace"))
            lane = Lane(b"") if engine is None else engine.broadcast
            renamed = header.renamed(sub_msg_id(header.msg_id, uuid))
            direct = Direct(message.idents, renamed, message.raw_header, lane, broadcast)
            if engine is not None:
                self._broadcasts.unanswered.restore(direct)
            else:
                self._broadcasts.fail_share(direct, uuid, self._gone.no_such_engine(uuid.encode("utf-8", "replace")))
