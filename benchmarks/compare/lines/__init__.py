"""All lines (sections of the page with their measurements), in the order of the page."""

from ..line import Line
from .crowd import CROWD, DEATHS, ENGINES, TURNOVER
from .latency import BURST, HISTORY, SINGLE, STATUS
from .memory import MILLION
from .start import START
from .stock import STOCK
from .throughput import BUFFERS, GIGABYTE, MUX, TASK

__all__ = ["LINES"]

LINES: tuple[Line, ...] = (
    TASK,
    MUX,
    SINGLE,
    BURST,
    HISTORY,
    STATUS,
    BUFFERS,
    GIGABYTE,
    ENGINES,
    CROWD,
    DEATHS,
    START,
    STOCK,
    MILLION,
    TURNOVER,
)
