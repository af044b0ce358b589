"""One measurement, in a process group of its own, of which nothing is left when it ends.

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

from .contenders import Contender
from .failure import Failed
from .line import Figures, Line

__all__ = ["measured"]

ROOT = Path(__file__).parents[2]
OURS = ("TRIO_HUB_", "IPP_")
"""Variables that begin so would be taken as settings by what is measured."""


def measured(line: Line, contender: Contender, *, tiny: bool) -> Figures:
    """The figures of one measurement.

    Raises:
        Failed: if it has failed, or does not end within the line's limit.
    """
    with tempfile.TemporaryDirectory(prefix="compare-", ignore_cleanup_errors=True) as directory:
        result, output = Path(directory, "result.json"), Path(directory, "output.txt")
        number = str(line.contenders.index(contender))
        command = [sys.executable, "-m", __spec__.name, line.name, number, str(result), *(["--tiny"] if tiny else [])]
        env = {name: value for name, value in os.environ.items() if not name.startswith(OURS)}
        with output.open("wb") as words:
            worker = subprocess.Popen(
                command,
                cwd=ROOT,
                env=env | {"TMPDIR": directory},
                stdin=subprocess.PIPE,  # which ends when this process does, and then the worker ends, too
                stdout=words,
                stderr=words,
                process_group=0,
            )
        try:
            worker.wait(line.limit)
        except subprocess.TimeoutExpired:
            raise Failed(f"not measured in {line.limit:g} s: {last_words(output)}") from None
        finally:
            if worker.poll() is None:
                os.killpg(worker.pid, signal.SIGKILL)
                worker.wait()
            assert worker.stdin is not None
            worker.stdin.close()
        if not result.exists():
            raise Failed(last_words(output) or "the measurement ended without a word")
        answer = json.loads(result.read_text())
        if "failed" in answer:
            raise Failed("\n".join(filter(None, (last_words(output), answer["failed"]))))
        figures: Figures = answer["figures"]
        return figures


def last_words(output: Path) -> str:
    return output.read_text(errors="replace")[-2000:].strip()


def end_with(stream: int) -> None:
    """Kill this process group when the other end of a pipe is closed."""
    os.read(stream, 1)
    os.killpg(0, signal.SIGKILL)


def main() -> None:
    from .engines import raise_limits
    from .lines import LINES

    threading.Thread(target=end_with, args=(sys.stdin.fileno(),), daemon=True).start()
    name, number, result = sys.argv[1:4]
    line = next(line for line in LINES if line.name == name)
    raise_limits()
    answer: dict[str, object]
    try:
        answer = {"figures": line.measure(line.contenders[int(number)], "--tiny" in sys.argv)}
    except Failed as error:
        answer = {"failed": str(error)}
    except Exception:
        answer = {"failed": traceback.format_exc()}
    whole = Path(result).with_suffix(".new")
    whole.write_text(json.dumps(answer))
    whole.rename(result)
    os.killpg(0, signal.SIGKILL)  # whatever is left; this process, too


if __name__ == "__main__":
    main()
