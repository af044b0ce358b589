"""The exit codes of all commands."""

from __future__ import annotations

import signal

__all__ = ["BAD_USAGE", "EXIT_CODES_HELP", "FAILED", "NO_HUB", "OK", "TIMED_OUT", "after_signal"]

OK = 0
FAILED = 1
BAD_USAGE = 2
"""That of click, too."""
NO_HUB = 3
"""There is no hub to ask: no connection file, or nobody answers. Of commands that ask a running hub."""
TIMED_OUT = 4
"""What was waited for has not come within --timeout. Likewise."""


def after_signal(signum: int) -> int:
    """The code after a signal that did not leave time for an orderly stop, as shells count it."""
    return 128 + signum


EXIT_CODES_HELP = f"""\
\b
Exit codes:
  {OK}    stopped in order, as asked by a signal or by a client
  {FAILED}    the hub failed; the last line on stderr says why
  {BAD_USAGE}    an option or a setting cannot be used; the message names it
  {after_signal(signal.SIGINT)}  stopped at once by a second signal, of which the last was SIGINT
  {after_signal(signal.SIGTERM)}  the same, and the last was SIGTERM
"""
