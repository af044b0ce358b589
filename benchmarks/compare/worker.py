"""One measurement, in a separate process group, which is ended completely.

`measured` is called by the command; the rest runs in the process that it starts.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import traceback
from pathlib import Path
from typing import BinaryIO

import trio

from .contenders import Contender
from .failure import Failed
from .line import Figures, Line

__all__ = ["measured"]

ROOT = Path(__file__).parents[2]
OURS = ("TRIO_HUB_", "IPP_")
"""Prefixes of environment variables that the measured programs would take as settings."""
RESULT, OUTPUT = "result.json", "output.txt"


async def measured(line: Line, contender: Contender, *, tiny: bool) -> Figures:
    """Return the figures of one measurement.

    Raises:
        Failed: The measurement has failed, or did not end within the line's limit.
    """
    with tempfile.TemporaryDirectory(prefix="compare-", ignore_cleanup_errors=True) as directory:
        command = [sys.executable, "-m", __spec__.name, line.name, str(line.contenders.index(contender)), directory]
        env = {name: value for name, value in os.environ.items() if not name.startswith(OURS)}
        with trio.move_on_after(line.limit):
            await run_group([*command, *(["--tiny"] if tiny else [])], env | {"TMPDIR": directory}, Path(directory))
        return figures_in(Path(directory))


async def run_group(command: list[str], env: dict[str, str], directory: Path) -> None:
    """Run a command until it ends, in a separate process group. If this is cancelled, kill the whole group."""
    with open_output(directory) as output:
        process = await trio.lowlevel.open_process(
            command,
            cwd=ROOT,
            env=env,
            stdin=subprocess.PIPE,  # closed when this process ends, however it ends
            stdout=output,
            stderr=output,
            process_group=0,
        )
    assert process.stdin is not None
    async with process.stdin:
        try:
            await process.wait()
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                with trio.CancelScope(shield=True):
                    await process.wait()


def open_output(directory: Path) -> BinaryIO:
    return (directory / OUTPUT).open("wb")


def figures_in(directory: Path) -> Figures:
    """Return the figures that a worker has written."""
    said = (directory / OUTPUT).read_text(errors="replace")[-2000:].strip()
    try:
        answer = json.loads((directory / RESULT).read_text())
    except FileNotFoundError:
        raise Failed(f"{said}\nthe measurement did not come to an end in time".strip()) from None
    if "failed" in answer:
        raise Failed(f"{said}\n{answer['failed']}".strip())
    figures: Figures = answer["figures"]
    return figures


def end_with(stream: int) -> None:
    """Kill this process group when the other end of a pipe is closed."""
    os.read(stream, 1)
    os.killpg(0, signal.SIGKILL)


def main() -> None:
    from .engines import raise_limits
    from .lines import LINES

    threading.Thread(target=end_with, args=(sys.stdin.fileno(),), daemon=True).start()
    name, number, directory = sys.argv[1:4]
    line = next(line for line in LINES if line.name == name)
    raise_limits()
    answer: dict[str, object]
    try:
        answer = {"figures": line.measure(line.contenders[int(number)], "--tiny" in sys.argv)}
    except Failed as error:
        answer = {"failed": str(error)}
    except Exception:
        answer = {"failed": traceback.format_exc()}
    unfinished = Path(directory, "unfinished.json")
    unfinished.write_text(json.dumps(answer))
    unfinished.rename(Path(directory, RESULT))
    os.killpg(0, signal.SIGKILL)  # all processes that are left, this one included


if __name__ == "__main__":
    main()
