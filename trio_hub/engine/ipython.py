"""IPython in an engine: cells, completion, inspection, history, rich output and comms.

The kernel and the shell are ipykernel's own, without their sockets, threads and event loop. The messages that they send
become answers and publications of the engine. This module is loaded when IPython is first needed, which takes half a
second.
"""

from __future__ import annotations

import asyncio  # noqa: TID251 - IPython runs cells with await in an event loop of asyncio, between Trio's calls
import contextlib
import inspect
import warnings
from collections.abc import Awaitable, Iterable
from typing import Any

from ipykernel.ipkernel import IPythonKernel
from ipykernel.zmqshell import ZMQInteractiveShell
from IPython.core.async_helpers import get_asyncio_loop
from IPython.core.error import UsageError
from jupyter_client.session import Session
from traitlets import Any as AnyTrait
from traitlets.config import Config
from traitlets.config.loader import DeferredConfigString

from .jobs import Answer, Job
from .logs import quiet_logger
from .pickling import LARGE_BUFFER, MAX_ITEMS
from .worker import Worker

__all__ = ["Kernel"]

IOPUB, SHELL = "iopub", "shell"
"""Names in place of the sockets on which ipykernel would send."""


class _Session(Session):
    """Turns what ipykernel sends into answers and publications. It signs nothing."""

    kernel: Any = AnyTrait()

    def send(
        self,
        stream: Any,
        msg_or_type: Any,
        content: Any = None,
        parent: Any = None,
        ident: Any = None,
        buffers: Any = None,
        track: bool = False,
        header: Any = None,
        metadata: Any = None,
        **more: Any,
    ) -> Any:
        if isinstance(msg_or_type, dict):
            message = msg_or_type
            buffers = buffers or message.get("buffers")
        else:
            message = self.msg(msg_or_type, content=content, parent=parent, header=header, metadata=metadata)
        message["metadata"] = message.get("metadata") or {}
        self.kernel.sent(stream, message, ident, list(buffers or ()))
        return message


class _Shell(ZMQInteractiveShell):
    """IPython's shell, in the namespace that ``apply`` uses as well."""

    def init_sys_modules(self) -> None:
        """Do nothing: the engine has put its namespace in place of ``__main__`` before."""

    def enable_gui(self, gui: Any = None) -> None:
        """Accept a toolkit that needs no event loop between requests, such as inline figures; refuse all others."""
        if gui not in (None, "inline", "none", "auto"):
            raise UsageError(f"this engine runs no event loop of {gui} between requests: call the toolkit's own loop")
        self.active_eventloop = gui


class _IPythonKernel(IPythonKernel):
    """ipykernel's kernel, whose messages go through `Kernel`."""

    shell_class = _Shell
    owner: Any = AnyTrait()
    _execute_sleep = 0

    @property
    def engine_id(self) -> int:
        worker: Worker = self.owner.worker
        return worker.engine_id

    int_id = engine_id

    def _topic(self, topic: str) -> bytes:
        return topic.encode()

    def _abort_queues(self, subshell_id: str | None = None) -> None:
        self.owner.worker.jobs.abort_after("execute_request")

    def init_metadata(self, parent: Any) -> dict[str, Any]:
        return {}

    def finish_metadata(self, parent: Any, metadata: dict[str, Any], reply_content: Any) -> dict[str, Any]:
        return metadata


class Kernel:
    """Answers requests that need IPython. Make it in the main thread.

    Args:
        worker: the engine's main thread, whose namespace the shell gets.
        traits: settings of IPython's classes, as ``("InteractiveShell.colors", "nocolor")``.
    """

    def __init__(self, worker: Worker, traits: Iterable[tuple[str, str]] = ()) -> None:
        self.worker = worker
        self._answer: Answer | None = None
        # Cells with await and libraries for asyncio ask for the current loop of the main thread.
        asyncio.set_event_loop(get_asyncio_loop())  # type: ignore[no-untyped-call]
        namespace = worker.namespace
        own = namespace.pop("get_ipython", None)
        session = _Session(kernel=self, key=b"", session=worker.uuid, username="trio-hub-engine")
        config = Config({"HistoryManager": {"hist_file": ":memory:"}})
        for trait, value in traits:
            owner, _, name = trait.partition(".")
            config[owner][name] = DeferredConfigString(value)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            self._kernel: Any = _IPythonKernel.instance(
                config=config,
                owner=self,
                session=session,
                iopub_socket=IOPUB,
                user_module=worker.module,
                user_ns=namespace,
                log=quiet_logger(),
                ident=worker.uuid,
            )
        shell: Any = self._kernel.shell
        self.shell = shell
        namespace.setdefault("get_ipython", own)
        shell.display_pub.topic = b"displaypub"
        self._publish_data()

    def _publish_data(self) -> None:
        """Let ``ipyparallel.datapub`` publish, if that is installed."""
        with contextlib.suppress(ImportError):
            self.shell.data_pub = _DataPublisher(self)
            self.shell.configurables.append(self.shell.data_pub)

    # Requests

    def answer(self, job: Job) -> Answer | None:
        """Carry out a request. Return its answer; None if requests of this kind have none."""
        handler = self._kernel.shell_handlers.get(job.msg_type)
        if handler is None:
            raise NotImplementedError(f"this engine does not know requests of type {job.msg_type!r}")
        message = self._message(job)
        self._kernel.set_parent(job.message.idents, message)
        self._answer = None
        result = handler(SHELL, job.message.idents, message)
        if inspect.isawaitable(result):
            _finish(result)
        return self._answer

    def _message(self, job: Job) -> dict[str, Any]:
        """Return a request in the form in which ipykernel reads it."""
        unpack = self.worker.packer.unpack_untrusted
        raw = job.message
        header, parent = unpack(raw.raw_header), unpack(raw.raw_parent)
        return {
            "header": header,
            "msg_id": header["msg_id"],
            "msg_type": header["msg_type"],
            "parent_header": parent,
            "metadata": unpack(raw.raw_metadata),
            "content": unpack(raw.raw_content),
            "buffers": [memoryview(frame) for frame in raw.buffers],
        }

    def sent(self, stream: Any, message: dict[str, Any], ident: Any, buffers: list[Any]) -> None:
        """Take a message that ipykernel sends. Raises `TypeError` if it has an object that cannot be packed."""
        if stream == SHELL:
            self.worker.packer.pack(message["content"])  # fails here, where the error becomes the answer
            self._answer = Answer(message["content"], buffers, message["metadata"])
        else:
            self.publish(message["msg_type"], message["content"], ident, buffers)

    def publish(self, msg_type: str, content: Any, ident: Any, buffers: list[Any]) -> None:
        """Publish a message that belongs to the running request, even if IPython names another as its parent."""
        topic = ident[0] if isinstance(ident, list) else ident
        name = topic.decode() if isinstance(topic, bytes) else topic or ""
        self.worker.publish(msg_type, content, topic=name, buffers=buffers)

    def clear(self) -> None:
        """Empty the user's namespace, as ``%reset`` does."""
        self.shell.reset(False)


class _DataPublisher:
    """The object through which ``ipyparallel.datapub.publish_data`` publishes."""

    def __init__(self, kernel: Kernel) -> None:
        from ipyparallel.serialize import serialize_object

        self._serialize = serialize_object
        self._kernel = kernel

    def set_parent(self, parent: Any) -> None:
        """Do nothing: data belong to the running request."""

    def publish_data(self, data: dict[str, Any]) -> None:
        buffers = self._serialize(data, buffer_threshold=LARGE_BUFFER, item_threshold=MAX_ITEMS)
        self._kernel.publish("data_message", {"keys": list(data)}, b"datapub", buffers)


def _finish(awaitable: Awaitable[Any]) -> None:
    """Run a handler of ipykernel to its end. It never waits, as no event loop runs here."""
    coroutine: Any = awaitable
    try:
        coroutine.send(None)
    except StopIteration:
        return
    coroutine.close()
    raise RuntimeError("the request waits for an event, but this engine runs no event loop for requests")
