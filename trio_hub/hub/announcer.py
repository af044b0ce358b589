"""Announces each new request, with a label, to the observers of the hub."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..wire.frames import Buffer
from .events import TaskSubmitted
from .labels import Labels
from .notices import Notices

__all__ = ["Announcer"]


class Announcer:
    """Finds a label for each request, and announces the request. Never raises, since nothing depends on a label.

    Args:
        notices: passes on events.
        labels: finds labels.
    """

    def __init__(self, notices: Notices, labels: Labels) -> None:
        self._notices = notices
        self.labels = labels

    def request_came(
        self,
        queue: str,
        msg_id: str,
        msg_type: str,
        session: str,
        label: Any,
        buffers: Sequence[Buffer],
        uuid: str | None = None,
    ) -> None:
        """Announce a request that has come. Call this only while the host is listening.

        Args:
            queue: the queue that the request is in.
            msg_id, msg_type, session: from the header of the request.
            label: the label in the metadata of the request, if any.
            buffers: the buffers of the request.
            uuid: the engine that the request is for, if its client has named one.
        """
        try:
            name = self.labels.of(label, msg_type, buffers)
        except Exception as error:
            self._notices.failed("label", error, task=msg_id)
            name = ""
        self._notices.tell(TaskSubmitted(msg_id, queue, name, session, uuid))
