"""The output of user code: streams in place of ``sys.stdout`` and ``sys.stderr``, and pipes at descriptors 1 and 2.

Both hand text to the thread that owns the sockets, which sends it in pieces. A writer that is quicker than the hub
waits once `MAX_WAITING` characters have not been sent, so that a loop that prints for ever does not fill the memory.
While the hub is away, writers do not wait: the latest output is kept, and a note takes the place of older output.
"""

from __future__ import annotations

import codecs
import io
import os
import select
import sys
import threading
from collections import deque
from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

from ..wire.frames import Frames

__all__ = [
    "MAX_PIECE",
    "MAX_WAITING",
    "OutputStream",
    "Piece",
    "Printed",
    "Publication",
    "Redirection",
    "Text",
]

MAX_PIECE = 64 * 1024
"""The maximum number of characters in one message."""
MAX_WAITING = 8 * 1024 * 1024
"""Characters. A writer has to wait while more than this many wait to be sent."""
KEPT = 7 / 8
"""The part of `MAX_WAITING` to which output is shortened when it exceeds that limit while the hub is away."""
SHORT = 4096
"""Characters. While the hub is away, a text is joined with an earlier one that is shorter than this."""
DROPPED = "[trio-hub: {:,} characters of output were dropped here, since the hub was away]\n"
"""The note in the place of dropped output."""
LOOK_FOR_SIGNALS = 0.1
"""Seconds. A writer that waits wakes up this often, so that the handlers of signals can run."""
_FULL_PIPE = 64 * 1024
"""Bytes that a pipe holds, by Linux's default. One read takes at most this many."""


class Text(NamedTuple):
    """Text of a stream.

    - ``name``: ``stdout`` or ``stderr``.
    - ``parent``: the packed header of the request that printed it.
    """

    name: str
    parent: bytes
    text: str


class Publication(NamedTuple):
    """A message to be published.

    - ``topic``: the topic without the engine's id: ``execute_result`` for ``engine.3.execute_result``.
    - ``content``: packed.
    - ``parent``: the packed header of the request that it belongs to.
    """

    msg_type: str
    topic: str
    content: bytes
    parent: bytes
    buffers: Frames


Piece: TypeAlias = Text | Publication


class Printed:
    """The output that is not sent yet. Any thread may add to it; the thread that has the turn takes from it.

    A signal handler or a finalizer of user code may print at any moment, also while its thread changes this object. So
    the lock can be taken again by its thread, and each change leaves the object whole before it makes a further call.

    Args:
        wake: called when there is something to be taken, after there was nothing. Any thread may call it.
    """

    def __init__(self, wake: Callable[[], None]) -> None:
        self.wake = wake
        self._pieces: deque[Piece] = deque()
        self._size = 0
        self._changed = threading.Condition(threading.RLock())
        self._closed = False
        self._held = False
        self._dropped: dict[tuple[str, bytes], int] = {}
        """Characters that were dropped and not reported yet, by stream and request."""
        self.parent = b"{}"
        """The packed header of the request that runs now, or ran last; a packed empty dict before the first request."""
        self.owner = 0
        """The id of the thread that can send output now, or 0. It never waits for room: it would wait for itself."""
        self._main = threading.main_thread().ident
        self._in_add = False
        self._deferred: BaseException | None = None

    def add(self, name: str, text: str) -> None:
        """Add text of a stream; wait if too much is waiting."""
        if text:
            self._add(Text(name, self.parent, text))

    def publish(self, publication: Publication) -> None:
        """Add a message; wait if too much is waiting."""
        self._add(publication)

    def _add(self, piece: Piece) -> None:
        in_main = threading.get_ident() == self._main
        if not in_main or self._in_add:  # in the main thread, a handler or finalizer has interrupted an outer `_add`
            self._append(piece, in_main)
            return
        self._in_add = True
        try:
            self._append(piece, in_main)
        finally:
            self._in_add = False
            if self._deferred is not None:
                deferred, self._deferred = self._deferred, None
                raise deferred

    def _append(self, piece: Piece, in_main: bool) -> None:
        size = _size(piece)
        with self._changed:
            while self._must_wait(in_main):
                self._changed.wait(LOOK_FOR_SIGNALS)
            if self._closed:
                return
            was_empty = not self._size
            if self._held:
                self._keep(piece, size)
            else:
                self._pieces.append(piece)
                self._size += size
        if was_empty:
            self.wake()

    def _must_wait(self, in_main: bool) -> bool:
        full = self._size > MAX_WAITING and not self._closed and threading.get_ident() != self.owner
        return full and not self._held and not (in_main and self._deferred is not None)

    def defers(self, error: BaseException) -> bool:
        """Defer an error of a signal handler until the main thread has finished a change of this object.

        An error that is raised at once might leave the object half changed.

        Returns:
            Whether the main thread is changing the object. If so, it raises the error afterwards.
        """
        if self._in_add:
            self._deferred = error
        return self._in_add

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to be published."""
        return not self._pieces and not self._dropped

    @property
    def is_full(self) -> bool:
        return self._size > MAX_WAITING

    def take(self) -> Piece | None:
        """Return the next piece to be published; None if there is none.

        Texts of the same stream and the same request that follow each other are joined, up to `MAX_PIECE` characters.
        """
        if self.is_empty:
            return None
        with self._changed:
            if self._dropped:
                stream = next(iter(self._dropped))
                return Text(*stream, DROPPED.format(self._dropped.pop(stream)))
            piece = self._pieces.popleft()
            if isinstance(piece, Text):
                piece = piece._replace(text=self._joined(piece))
            size = _size(piece)
            self._size -= size
            if self._size <= MAX_WAITING:
                self._changed.notify_all()
        return piece

    def _joined(self, first: Text) -> str:
        texts, size = [first.text], len(first.text)
        while size < MAX_PIECE and self._pieces and self._pieces[0][:2] == first[:2]:
            text = str(self._pieces.popleft()[2])
            texts.append(text)
            size += len(text)
        text = "".join(texts)
        if size > MAX_PIECE:
            self._pieces.appendleft(first._replace(text=text[MAX_PIECE:]))
        return text[:MAX_PIECE]

    def put_back(self, piece: Piece) -> None:
        """Undo a `take`: the piece could not be sent."""
        size = _size(piece)
        with self._changed:
            self._pieces.appendleft(piece)
            self._size += size

    # While the hub is away

    @property
    def is_held(self) -> bool:
        """Whether the hub is away."""
        return self._held

    def hold(self) -> None:
        """Keep the latest output until the hub is back, and let writers go on. Older output is dropped."""
        with self._changed:
            self._held = True
            self._make_room()
            self._changed.notify_all()

    def release(self) -> None:
        """Let writers wait again while too much is waiting, since the hub is back."""
        with self._changed:
            self._held = False

    def _keep(self, piece: Piece, size: int) -> None:
        """Append a piece, or join it with the last one: many short pieces take far more memory than their text."""
        last = self._pieces[-1] if self._pieces else None
        joined: Piece | None = None
        if isinstance(piece, Text) and isinstance(last, Text) and last[:2] == piece[:2] and len(last.text) < SHORT:
            joined = last._replace(text=last.text + piece.text)
        if joined is not None and self._pieces[-1] is last:  # no handler or finalizer has printed meanwhile
            self._pieces[-1] = joined
        else:
            self._pieces.append(piece)
        self._size += size
        self._make_room()

    def _make_room(self) -> None:
        """Drop the oldest output if there is too much. Statuses are never dropped, since clients wait for them."""
        if self._size <= MAX_WAITING:
            return
        spared: list[Piece] = []
        while self._pieces and (excess := self._size - int(KEPT * MAX_WAITING)) > 0:
            piece = self._pieces.popleft()
            if isinstance(piece, Publication) and piece.msg_type == "status":
                spared.append(piece)
                continue
            size = _size(piece)
            if isinstance(piece, Text) and size > excess:
                self._pieces.appendleft(piece._replace(text=piece.text[excess:]))
                size = excess
            key = (piece.name if isinstance(piece, Text) else "stdout", piece.parent)
            self._dropped.setdefault(key, 0)
            self._dropped[key] += size
            self._size -= size
        self._pieces.extendleft(reversed(spared))

    def close(self) -> None:
        """Accept no more output, and let the writers that wait go on."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()


def _size(piece: Piece) -> int:
    """Return how much of `MAX_WAITING` a piece takes."""
    if isinstance(piece, Text):
        return len(piece.text)
    return 1 + len(piece.content) + sum(map(len, piece.buffers))


class OutputStream(io.TextIOBase):
    """A text stream whose text is sent to the clients.

    Args:
        name: ``stdout`` or ``stderr``.
        printed: takes the text.
        descriptor: the descriptor with this output, for code that asks for `fileno`.
    """

    def __init__(self, name: str, printed: Printed, descriptor: int) -> None:
        self.name = f"<{name}>"
        self._stream = name
        self._printed = printed
        self._descriptor = descriptor
        self._pid = os.getpid()
        self.topic = b""
        self.buffer = _Buffer(_Bytes(self))

    encoding = "utf-8"
    errors = "backslashreplace"

    def write(self, text: str) -> int:
        if not isinstance(text, str):
            raise TypeError(f"write() argument must be str, not {type(text).__name__}")
        if os.getpid() == self._pid:
            self._printed.add(self._stream, text)
        else:  # a child that was forked has no thread that sends, but it has the pipe
            data = text.encode("utf-8", "backslashreplace")
            while data:
                data = data[os.write(self._descriptor, data) :]
        return len(text)

    def flush(self) -> None:
        """Pass on what an interrupted write has left in ``buffer``. All other output is on its way at once."""
        self.buffer.flush()

    def fileno(self) -> int:
        return self._descriptor

    def writable(self) -> bool:
        return True

    def isatty(self) -> bool:
        return False

    def close(self) -> None:
        """Do nothing: code that closes its output may run beside other code."""

    def set_parent(self, parent: dict[str, Any]) -> None:
        """Do nothing. IPython calls this; the engine knows the request that runs."""


class _Bytes(io.RawIOBase):
    """The binary stream below an `OutputStream`."""

    def __init__(self, stream: OutputStream) -> None:
        self._stream = stream
        self._decoder = codecs.getincrementaldecoder("utf-8")("backslashreplace")

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        data = bytes(data)
        self._stream.write(self._decoder.decode(data))
        return len(data)


class _Buffer(io.BufferedWriter):
    """Passes each write on at once, so that bytes and text of a stream keep the order in which they were written."""

    def write(self, data: Any) -> int:
        written = super().write(data)
        self.flush()
        return written


class Redirection:
    """Catches what is written to descriptors 1 and 2, by subprocesses and libraries in C. Make it in the main thread.

    - ``log``: a text stream to what descriptor 2 was before.
    - ``pipes``: the names of the streams by the descriptors from which their bytes are read.
    """

    def __init__(self) -> None:
        for stream in (sys.stdout, sys.stderr):
            if stream is not None:
                stream.flush()
        self._before = {number: os.dup(number) for number in (1, 2)}
        self.log = open(os.dup(2), "w", encoding="utf-8", errors="backslashreplace", buffering=1)  # noqa: SIM115
        self.pipes: dict[int, str] = {}
        self._poll = select.poll()
        self._decoders: dict[int, codecs.IncrementalDecoder] = {}
        for number, name in ((1, "stdout"), (2, "stderr")):
            reading, writing = os.pipe()
            os.set_blocking(reading, False)
            os.dup2(writing, number)
            os.close(writing)
            self.pipes[reading] = name
            self._poll.register(reading, select.POLLIN)
            self._decoders[reading] = codecs.getincrementaldecoder("utf-8")("backslashreplace")

    def read(self, descriptor: int, printed: Printed) -> None:
        """Add the bytes in a pipe to the output, at most a full pipe. At the end of the pipe, forget it."""
        if descriptor not in self.pipes:
            return
        try:
            data = os.read(descriptor, _FULL_PIPE)
        except BlockingIOError:
            return
        except OSError:  # user code has closed it
            data = b""
        if not data:
            del self.pipes[descriptor]
            self._poll.unregister(descriptor)
            return
        printed.add(self.pipes[descriptor], self._decoders[descriptor].decode(data))

    def drain(self, printed: Printed) -> None:
        """Add everything that was written to the pipes until now to the output.

        One full pipe is enough: a writer that has written more has waited until its earlier bytes were read.
        """
        for descriptor, _ in self._poll.poll(0):  # before each reply: mostly, both pipes are empty
            self.read(descriptor, printed)

    def undo(self) -> None:
        """Restore descriptors 1 and 2."""
        for number, before in self._before.items():
            os.dup2(before, number)
