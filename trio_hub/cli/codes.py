"""The exit codes of all commands. Each kind of failure has one code, whatever command meets it."""

from __future__ import annotations

import signal

__all__ = ["BAD_USAGE", "EXIT_CODES_HELP", "FAILED", "NO_HUB", "OK", "TIMED_OUT", "after_signal"]

OK = 0
FAILED = 1
"""The command could not do its work, or it has found a failure; for example, stdout or a file cannot be written."""
BAD_USAGE = 2
"""A command line, a setting, or what it needs cannot be used: a profile, file, database, port, program or package.

The same command fails again until somebody changes something. click uses the same code.
"""
NO_HUB = 3
"""There is no connection file, or the hub does not answer. Used by commands that ask a running hub."""
TIMED_OUT = 4
"""The time limit of --timeout has passed. Used by commands that ask a running hub."""


def after_signal(signum: int) -> int:
    """Return the exit code of a process that a signal has ended at once, as shells define it."""
    return 128 + signum


EXIT_CODES_HELP = f"""\
\b
Exit codes:
  {OK}    stopped in order, on a signal or a client's request
  {FAILED}    the hub failed; the last line on stderr says why
  {BAD_USAGE}    a setting, or what it needs, cannot be used; the message names it
  {after_signal(signal.SIGINT)}  stopped at once by a second signal, SIGINT
  {after_signal(signal.SIGTERM)}  stopped at once by a second signal, SIGTERM
"""
