"""Notebooks: cells that run in a real Jupyter kernel, whose asyncio loop is running, with engines of ours."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from jupyter_client.manager import start_new_kernel

from .conftest import LIMIT, Cluster

pytestmark = pytest.mark.interop

StartCluster = Callable[..., Cluster]
OURS = ("--engine-command", f"{sys.executable} -m trio_hub engine")


HTML = "<IPython.core.display.HTML object>"


def plain(text: str) -> str:
    """Return a text without colours."""
    return re.sub(r"\x1b\[[0-9;]*m", "", text)


class Cell:
    """What a notebook shows below a cell: ``stdout``, ``stderr``, the text of each ``shown`` object, and the error."""

    def __init__(self) -> None:
        self.stdout = self.stderr = self.error = self.traceback = ""
        self.shown: list[str] = []

    def take(self, message: dict[str, Any]) -> None:
        """Take an output of the cell."""
        kind, content = message["msg_type"], message["content"]
        if kind == "stream":
            setattr(self, content["name"], getattr(self, content["name"]) + content["text"])
        elif kind in ("execute_result", "display_data"):
            self.shown.append(content["data"]["text/plain"])
        elif kind == "error":
            self.error, self.traceback = content["ename"], "\n".join(content["traceback"])


class Notebook:
    """A kernel, and a variable ``profile`` in it: the directory of the cluster's profile."""

    def __init__(self, client: Any, profile: Path) -> None:
        self._client = client
        self.run(f"profile = {str(profile)!r}")

    def run(self, code: str) -> Cell:
        """Run a cell. Return what it shows, also if it fails."""
        cell = Cell()
        self._client.execute_interactive(code, output_hook=cell.take, allow_stdin=False, timeout=LIMIT)
        return cell

    def prints(self, code: str) -> str:
        """Run a cell that must not fail. Return what it prints."""
        cell = self.run(code)
        assert not cell.error, cell.traceback
        assert not cell.stderr
        return cell.stdout


@contextmanager
def kernel(profile: Path) -> Iterator[Notebook]:
    manager, client = start_new_kernel(kernel_name="python3", startup_timeout=LIMIT)
    try:
        yield Notebook(client, profile)
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)
        manager.cleanup_resources()


def test_an_executor(start_cluster: StartCluster) -> None:
    cluster = start_cluster(2, *OURS)
    with kernel(cluster.profile_dir) as notebook:
        # Functions of the notebook have no module that engines could import.
        notebook.prints("def inverse(number): return 1 / number")
        notebook.prints("import trio_hub; executor = trio_hub.Executor(profile_dir=profile)")
        assert notebook.prints("print(list(executor.map(inverse, [1, 2, 4])))") == "[1.0, 0.5, 0.25]\n"
        assert notebook.run("executor.submit(inverse, 4).result()").shown == ["0.25"]
        in_asyncio = "print(await asyncio.gather(*(loop.run_in_executor(executor, inverse, n) for n in (1, 2))))"
        notebook.prints("import asyncio; loop = asyncio.get_running_loop()")
        assert notebook.prints(in_asyncio) == "[1.0, 0.5]\n"

        failed = notebook.run("executor.submit(inverse, 0).result()")
        assert failed.error == "RemoteZeroDivisionError"
        assert "in inverse\nZeroDivisionError: division by zero" in plain(failed.traceback), "of the engine"

        cancelled = """
        import time
        held = [executor.submit(time.sleep, 3) for _ in executor.engines]
        waits = executor.submit(inverse, 8)
        print(waits.cancel(), waits.cancelled(), [call.result() for call in held])
        """
        assert notebook.prints(cancelled) == "True True [None, None]\n"
        assert notebook.prints("executor.shutdown()") == ""
        assert notebook.run("executor.submit(inverse, 1)").error == "RuntimeError"
        within = "with trio_hub.Executor(profile_dir=profile) as other: print(other.submit(inverse, 5).result())"
        assert notebook.prints(within) == "0.2\n"


def test_a_trio_client(start_cluster: StartCluster) -> None:
    """The client runs in Trio beside the kernel's loop, by `trio.run` or by IPython's own support for Trio."""
    cluster = start_cluster(1, *OURS)
    use = """
    async def use():
        async with trio_hub.connect(profile_dir=profile) as client:
            print([value async for value in client.map(lambda number: number * number, range(4))])
            await client.apply(divmod, 1, 0)
    """
    with kernel(cluster.profile_dir) as notebook:
        notebook.prints("import trio, trio_hub")
        notebook.prints(use)
        first = notebook.run("trio.run(use)")
        notebook.prints("%autoawait trio")
        for cell in (first, notebook.run("await use()")):
            assert cell.stdout == "[0, 1, 4, 9]\n"
            assert cell.error == "RemoteError"
            assert "ZeroDivisionError" in cell.traceback


def test_a_stock_client(start_cluster: StartCluster) -> None:
    """What cells show of an engine of ours: output, values, errors, and the magic commands of IPython Parallel."""
    cluster = start_cluster(2, *OURS)
    with kernel(cluster.profile_dir) as notebook:
        notebook.prints("import ipyparallel as ipp; rc = ipp.Client(profile_dir=profile, timeout=60)")
        notebook.run(
            "rc.wait_for_engines(2, timeout=60, interactive=False); view = rc[:]; view.block = True; view.activate()"
        )
        notebook.run("%px 0")  # the engines load IPython, and a progress bar is shown if that takes long
        printed = notebook.run("%px print('hello')")
        assert sorted(printed.shown) == ["[stdout:0] hello\n", "[stdout:1] hello\n"]
        values = notebook.run("%px import os; os.getpid() > 0")
        assert sorted(map(plain, values.shown)) == ["Out[0:3]: True", "Out[1:3]: True"]
        failed = notebook.run("%px 1 / 0")
        assert failed.error == "AlreadyDisplayedError"
        assert plain(failed.stderr).count("----> 1 1 / 0") == 2
        html = "from IPython.display import HTML, display; display(HTML('<b>bold</b>'))"
        displayed = notebook.run(f"%px {html}").shown
        assert sorted(displayed) == [HTML, HTML, "[output:0]", "[output:1]"]
        cell = notebook.run("%%px --targets 0\nx = 5\n!echo shell\nx + 1").shown
        assert [plain(one).split() for one in cell] == [["[stdout:0]", "shell"], ["Out[0:6]:", "6"]]

        notebook.prints("call = rc[0].apply_async(lambda: print('applied')); call.get(); call.wait_for_output()")
        assert notebook.prints("call.display_outputs()") == "applied\n"
        assert notebook.prints("print(rc[1].apply_sync(abs, -1))") == "1\n"
        failed = notebook.run("rc[0].apply_sync(divmod, 1, 0)")
        assert "ZeroDivisionError" in failed.error + failed.stderr + failed.traceback
