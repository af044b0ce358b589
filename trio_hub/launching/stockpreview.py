"""What a launcher of ipyparallel would do, as text for people. Values of secret variables are not shown.

Only the agent imports this module, since it needs ipyparallel.
"""

from __future__ import annotations

import re
import shlex
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ipyparallel.cluster import launcher as stock

from .batch import engine_script

__all__ = ["masked", "of_launcher"]

_SECRET = re.compile(r"key|token|secret|passw|credential", re.IGNORECASE)


def of_launcher(launcher: Any, block_directory: Path, engines: int) -> str:
    """Return what a launcher of ipyparallel would do, when it is started: a script and commands."""
    environment = {name: str(value) for name, value in launcher.get_env().items()}
    variables = "".join(f"export {name}={shlex.quote(value)}\n" for name, value in environment.items() if value)
    text = f"{variables}{_commands(launcher, block_directory, engines)}"
    return masked(text, environment)


def _commands(launcher: Any, block_directory: Path, engines: int) -> str:
    if isinstance(launcher, stock.BatchSystemLauncher):
        arguments = launcher.args
        if isinstance(launcher, stock.LSFLauncher):
            arguments = [*launcher.submit_command, "<", launcher.batch_file]
        line = " ".join(word if word == "<" else shlex.quote(word) for word in arguments)
        with tempfile.TemporaryDirectory() as directory:
            launcher.batch_file, path = str(Path(directory) / "script"), launcher.batch_file
            launcher.write_batch_script(engines)
            script = Path(launcher.batch_file).read_text("utf-8")
        text = f"{line}\n\n# {path}\n{script.strip()}\n"
        if isinstance(launcher, stock.HTCondorLauncher):
            text += f"\n# {block_directory / 'engine.sh'}\n{engine_script(launcher)}"
        return text
    engine = [*launcher.engine_cmd, *launcher.engine_args]
    if isinstance(launcher, stock.SSHLauncher):
        lines: list[str] = []
        for host, slots in launcher.engines.items():
            number = min(slots.get("n", 1) if isinstance(slots, dict) else slots, engines - len(lines))
            lines += [f"{shlex.join([*launcher.ssh_cmd, *launcher.ssh_args, host])} -- {shlex.join(engine)}"] * number
        return "".join(f"{line}\n" for line in lines)
    if isinstance(launcher, stock.LocalEngineSetLauncher):
        return f"{shlex.join(engine)}\n" * engines
    launcher.n = engines
    return f"{shlex.join(launcher.args)}\n"


def masked(text: str, environment: Mapping[str, str]) -> str:
    """Return a text without the values of those variables whose names look like those of secrets."""
    for name, value in environment.items():
        if _SECRET.search(name) and value:
            text = text.replace(shlex.quote(value), "***").replace(value, "***")
    return text
