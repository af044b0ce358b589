"""The raising line of an error, in the tracebacks of our engine, of stock engines, and of anything else."""

from __future__ import annotations

import traceback
from typing import Any

import pytest
from hypothesis import given

from trio_hub.wire.tracebacks import MAX_WHERE, raising_line, traceback_text, without_ansi

from .odd import odd_texts, odd_values

IPYTHON = [
    "\x1b[31m---------\x1b[39m",
    "\x1b[31mZeroDivisionError\x1b[39m                         Traceback (most recent call last)",
    "\x1b[36mFile \x1b[39m\x1b[32m<stdin>:10\x1b[39m\n",
    "\x1b[36mFile \x1b[39m\x1b[32m~/work/project/run.py:7\x1b[39m, in \x1b[36mf\x1b[39m\x1b[34m(x)\x1b[39m\n"
    "\x1b[32m----> 7\x1b[39m     return 1 / x\n",
    "\x1b[31mZeroDivisionError\x1b[39m: division by zero",
]


def fail() -> None:
    raise ValueError("no")


def test_the_line_of_a_traceback_of_python() -> None:
    with pytest.raises(ValueError, match="no") as caught:
        fail()
    shown = "".join(traceback.format_exception(caught.value))
    number = fail.__code__.co_firstlineno + 1
    assert raising_line(shown) == f"wire/test_tracebacks.py:{number} in fail"
    assert raising_line(shown.splitlines()) == raising_line(shown)


@pytest.mark.parametrize(
    ("shown", "line"),
    [
        (IPYTHON, "project/run.py:7 in f"),
        (["Cell In[3], line 2, in f(x)\n"], "Cell In[3]:2 in f"),
        (["Input In [3], in f(x)\n"], "Input In [3] in f"),
        (['  File "<string>", line 1, in <module>'], "<string>:1 in <module>"),
        (['  File "C:\\work\\project\\run.py", line 5, in run'], "project/run.py:5 in run"),
        (['  File "run.py", line 5, in run', "x" * 5_000, "ValueError: no"], "run.py:5 in run"),
        (['  File "run.py", line 5, in run', "x" * 50_000], ""),
        (["ValueError: no"], ""),
        (["File: none"], ""),
        ([], ""),
        (None, ""),
        ([None, 5, "x"], ""),
        ({"File": 1}, ""),
    ],
)
def test_the_lines_of_other_tracebacks(shown: Any, line: str) -> None:
    assert raising_line(shown) == line


@given(odd_texts)
def test_any_text_has_at_most_one_short_line(text: str) -> None:
    assert len(raising_line([f'File "{text}", line 5, in {text}', text])) <= MAX_WHERE


@given(odd_values)
def test_any_value_is_a_traceback_without_a_line_or_with_one(value: Any) -> None:
    assert isinstance(raising_line(value), str)


def test_colours_of_a_terminal_are_taken_off() -> None:
    assert (
        without_ansi("\x1b[0;31mValueError\x1b[0m: \x1b]8;;http://x\x07no\x1b]8;;\x07 \x1b[38;5;1mred")
        == "ValueError: no red"
    )


@pytest.mark.parametrize(
    ("sent", "text"),
    [(["a\n", "b", 3], "a\n\nb\n3"), ("a\nb", "a\nb"), (None, ""), ([], ""), (0, ""), ({"a": 1}, "{'a': 1}")],
)
def test_any_traceback_has_a_text(sent: Any, text: str) -> None:
    assert traceback_text(sent) == text
