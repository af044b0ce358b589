"""The shares of a broadcast, one request per engine, and the notes of their answers until all answers are in."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import msgspec

from ..errors import EngineError
from ..records.record import TaskRecord
from ..schedulers.broadcast import Answer, Broadcast, sub_msg_id
from ..schedulers.unanswered import Direct
from ..wire.frames import Frames
from ..wire.messages import BroadcastMetadata, Message, Session
from .connector import EngineConnector
from .custody import request_frames

__all__ = ["check_targets", "divided", "note_chosen", "note_of_share", "noted_shares", "share_frames"]


def divided(session: Session, msg: Message, uuids: list[str]) -> list[Message]:
    """Return the share of each engine, as a request of its own. Raises `WireError`."""
    pack = session.packer.pack
    header = session.header(msg)
    metadata = session.metadata(msg)
    del metadata["targets"]
    packed = pack(metadata | {"original_msg_id": msg.header.msg_id})
    shares = []
    for uuid in uuids:
        msg_id = sub_msg_id(msg.header.msg_id, uuid)
        raw_header = pack(header | {"msg_id": msg_id})
        frames = session.seal([raw_header, msg.raw_parent, packed, msg.raw_content], msg.buffers)
        shares.append(Message([], frames, msg.header.renamed(msg_id), msg.parent, raw_header, packed))
    return shares


def check_targets(metadata: BroadcastMetadata) -> None:
    """Raise `EngineError` if a broadcast names no engines, or one engine twice."""
    if not metadata.targets:
        raise EngineError("the broadcast names no engines")
    if len({uuid for uuid, _ in metadata.targets}) < len(metadata.targets):
        raise EngineError("the broadcast names an engine twice")


def note_chosen(metadata: BroadcastMetadata, engines: Mapping[bytes, EngineConnector]) -> None:
    """Count a broadcast at each of its engines, unless it is for all of the registered engines."""
    if len(metadata.targets) < len(engines):
        for uuid, _ in metadata.targets:
            engine = engines.get(uuid.encode("utf-8", "replace"))
            if engine is not None:
                engine.addressed += 1


def share_frames(session: Session, direct: Direct, record: TaskRecord) -> Frames:
    """Return the frames of a share, from the record of the share or of the broadcast. Raises `WireError`."""
    frames = request_frames(record, session)
    if direct.broadcast is None:
        return frames
    uuid = direct.lane.ident.decode("utf-8", "replace")
    [share] = divided(session, session.read_trusted([], frames), [uuid])
    return share.frames


def note_of_share(broadcast: Broadcast, uuid: str, answer: Answer) -> TaskRecord:
    """Return a note of one engine's answer, for the next hub, if this hub ends before all answers are in."""
    record = TaskRecord(sub_msg_id(broadcast.header.msg_id, uuid), engine_uuid=uuid, queue="broadcast")
    record.note = True
    record.result_content = msgspec.json.encode(_Noted(answer.content, answer.started))
    record.result_buffers = tuple(answer.buffers)
    return record


class _Noted(msgspec.Struct):
    content: dict[str, Any]
    started: str | None = None


def noted_shares(broadcast: Broadcast, records: Mapping[str, TaskRecord]) -> Iterator[tuple[str, Answer]]:
    """Yield the uuids and the answers of engines that an earlier hub has noted. Skip unreadable notes."""
    for uuid, _ in broadcast.targets:
        record = records.get(sub_msg_id(broadcast.header.msg_id, uuid))
        if record is not None:
            try:
                noted = msgspec.json.decode(record.result_content or b"", type=_Noted)
            except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
                continue
            yield uuid, Answer(noted.content, list(record.result_buffers or ()), noted.started)
