"""The stock engine, ``ipengine``, as an engine of a pool: ``python -m trio_hub.engine.stock --block=NAME …``.

The hub has to know which block of a pool has brought an engine. A stock engine tells the hub nothing but its uuid. So
this module has the engine choose a uuid that begins with the name of the block. Nothing else is changed; all other
options are those of ``ipengine``.
"""

from __future__ import annotations

import os
import secrets
import sys
from collections.abc import Mapping, Sequence

from ..wire.blocks import BLOCK_NAME, uuid_with_block
from .options import BLOCK, OptionError

__all__ = ["block_of", "main", "new_uuid"]


def main(arguments: Sequence[str] | None = None) -> None:
    """Run a stock engine with this command line, or with the one of this process."""
    try:
        block, rest = block_of(sys.argv[1:] if arguments is None else arguments, os.environ)
    except OptionError as error:
        sys.exit(str(error))

    os.environ.pop(BLOCK, None)  # engines that user code starts are not of this block
    from ipyparallel.engine import app
    from traitlets import default

    class IPEngine(app.IPEngine):  # type: ignore[misc]
        """The stock engine with a uuid of our choice. The engine's session has another id, like the nanny's."""

        @default("ident")
        def _default_ident(self) -> str:
            return new_uuid(block) if block else str(self.session.session)

    IPEngine.launch_instance(list(rest))


def block_of(arguments: Sequence[str], environ: Mapping[str, str]) -> tuple[str, list[str]]:
    """Return the name of the block in a command line or in the environment, and the other arguments.

    The command line takes precedence. The name is empty if neither has one.

    Raises:
        OptionError: the name cannot be used.
    """
    block, rest = environ.get(BLOCK, ""), []
    words = iter(arguments)
    for word in words:
        name, mark, value = word.partition("=")
        if name in ("--block", "--Engine.block"):
            block = value if mark else next(words, "")
            if not block:
                raise OptionError(f"the option {name} needs a value")
        else:
            rest.append(word)
    if block and not BLOCK_NAME.fullmatch(block):
        raise OptionError(f"--block cannot be {block!r}: it must be up to 100 printable characters without spaces")
    return block, rest


def new_uuid(block: str) -> str:
    """Return a new uuid for an engine of a block, from which the hub reads the name of the block."""
    return uuid_with_block(block, secrets.token_hex(16))


if __name__ == "__main__":
    main()
