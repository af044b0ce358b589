"""``python -m trio_hub`` is ``trio-hub``."""

import sys

__all__ = ["main"]

_HELP = {"-h", "--help", "--help-all", "help", "-V", "--version"}


def main() -> None:
    """Run the command.

    An engine is started without loading the other commands, so that its first process stays small.
    """
    if sys.argv[1:2] == ["engine"] and _HELP.isdisjoint(sys.argv):
        from .engine.nanny import main as engine

        engine(sys.argv[2:])
    from .cli import main as command

    command(prog_name="trio-hub")


if __name__ == "__main__":
    main()
