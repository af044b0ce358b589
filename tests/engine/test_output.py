"""The output of user code, on its way to the socket."""

from __future__ import annotations

import io
import itertools
import os
import sys
import threading
from collections.abc import Callable
from typing import Any

import pytest

from trio_hub.engine import output
from trio_hub.engine.output import DROPPED, MAX_PIECE, OutputStream, Printed, Publication, Text


def texts(printed: Printed) -> list[tuple[str, str]]:
    pieces = iter(printed.take, None)
    return [(piece.name, piece.text) for piece in pieces if isinstance(piece, Text)]


def test_text_of_one_stream_and_request_is_joined() -> None:
    woken: list[int] = []
    printed = Printed(lambda: woken.append(1))
    printed.add("stdout", "a")
    printed.add("stdout", "b")
    printed.add("stderr", "c")
    printed.parent = b'{"other": 1}'
    printed.add("stderr", "d")
    assert woken == [1], "one wake-up is enough until somebody takes"
    assert texts(printed) == [("stdout", "ab"), ("stderr", "c"), ("stderr", "d")]
    printed.add("stdout", "e")
    assert woken == [1, 1]


def test_order_is_kept_between_text_and_messages() -> None:
    printed = Printed(lambda: None)
    message = Publication("display_data", "displaypub", b"{}", b"{}", [])
    printed.add("stdout", "before")
    printed.publish(message)
    printed.add("stdout", "after")
    taken = list(iter(printed.take, None))
    assert [getattr(piece, "text", None) for piece in taken] == ["before", None, "after"]
    assert taken[1] is message


def test_pieces_have_a_limit_and_can_be_put_back() -> None:
    printed = Printed(lambda: None)
    printed.add("stdout", "x" * (2 * MAX_PIECE + 1))
    first = printed.take()
    assert isinstance(first, Text)
    assert len(first.text) == MAX_PIECE
    printed.put_back(first)
    assert [len(text) for _, text in texts(printed)] == [MAX_PIECE, MAX_PIECE, 1]
    assert printed.take() is None


def test_a_writer_waits_while_too_much_is_not_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(output, "MAX_WAITING", 10)
    printed = Printed(lambda: None)
    printed.add("stdout", "x" * 20)
    written = threading.Event()

    def write() -> None:
        printed.add("stdout", "y")
        written.set()

    writer = threading.Thread(target=write)
    writer.start()
    assert not written.wait(0.05)
    assert isinstance(printed.take(), Text)
    assert written.wait(60)
    writer.join()
    printed.owner = threading.get_ident()
    printed.add("stdout", "z" * 50)
    printed.add("stdout", "the thread that sends never waits for itself")
    printed.close()


def test_a_closed_output_lets_writers_go() -> None:
    printed = Printed(lambda: None)
    printed.close()
    printed.add("stdout", "x" * (output.MAX_WAITING + 1))
    printed.add("stdout", "y")
    assert printed.take() is None


PARENT = b"{}"


def test_while_the_hub_is_away_the_latest_output_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(output, "MAX_WAITING", 800)
    printed = Printed(lambda: None)
    printed.add("stdout", "before ")
    printed.hold()
    for number in range(1000):
        printed.add("stdout", f"{number:03} ")
    assert not printed.is_full, "nobody waits"
    text = "before " + "".join(f"{number:03} " for number in range(1000))
    note, kept = printed.take(), printed.take()
    assert isinstance(note, Text)
    assert isinstance(kept, Text)
    assert 700 <= len(kept.text) <= 800
    assert text.endswith(kept.text)
    assert note == Text("stdout", PARENT, DROPPED.format(len(text) - len(kept.text)))
    assert printed.take() is None


def test_notes_of_dropped_output_name_stream_and_request_and_statuses_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(output, "MAX_WAITING", 800)
    printed = Printed(lambda: None)
    printed.hold()
    idle = Publication("status", "status", b"{}", b"first", [])
    shown = Publication("display_data", "displaypub", b"x" * 99, b"second", [])
    printed.parent = b"first"
    printed.add("stdout", "x" * 50)
    printed.add("stderr", "x" * 40)
    printed.publish(idle)
    printed.publish(shown)
    printed.parent = b"second"
    printed.add("stderr", "y" * 2000)
    assert list(iter(printed.take, None)) == [
        Text("stdout", b"first", DROPPED.format(50)),
        Text("stderr", b"first", DROPPED.format(40)),
        Text("stdout", b"second", DROPPED.format(100)),
        Text("stderr", b"second", DROPPED.format(1303)),
        idle,
        Text("stderr", b"second", "y" * 697),
    ]
    assert printed.is_empty


def test_the_absence_of_the_hub_lets_waiting_writers_go(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(output, "MAX_WAITING", 10)
    printed = Printed(lambda: None)
    printed.add("stdout", "x" * 20)
    writer = threading.Thread(target=printed.add, args=("stderr", "y"))
    writer.start()
    printed.hold()
    writer.join(60)
    assert not writer.is_alive()
    printed.release()
    assert texts(printed) == [("stdout", DROPPED.format(12)), ("stdout", "x" * 8), ("stderr", "y")]


def test_short_texts_are_joined_while_the_hub_is_away() -> None:
    """A piece of its own for each word would take ten times as much memory."""
    printed = Printed(lambda: None)
    printed.hold()
    for _ in range(output.SHORT):
        printed.add("stdout", "word\n")
    assert len(printed._pieces) == 5
    assert texts(printed) == [("stdout", "word\n" * output.SHORT)]


def test_a_stream_is_a_text_file() -> None:
    printed = Printed(lambda: None)
    stream = OutputStream("stdout", printed, 1)
    print("text", 5, file=stream)
    stream.buffer.write("ü".encode())
    stream.flush()
    assert not stream.isatty()
    assert stream.fileno() == 1
    stream.close()
    print("still there", file=stream, end="")
    with pytest.raises(TypeError):
        stream.write(b"bytes")  # type: ignore[arg-type]
    assert texts(printed) == [("stdout", "text 5\nüstill there")]


def test_a_forked_child_writes_to_the_descriptor() -> None:
    reading, writing = os.pipe()
    printed = Printed(lambda: None)
    stream = OutputStream("stdout", printed, writing)
    stream._pid = -1
    print("from the child", file=stream, end="")
    os.close(writing)
    with open(reading, "rb") as pipe:
        assert pipe.read() == b"from the child"
    assert printed.take() is None


def test_text_and_bytes_of_a_stream_keep_their_order() -> None:
    printed = Printed(lambda: None)
    stream = OutputStream("stdout", printed, 1)
    stream.buffer.write(b"first ")
    print("second", file=stream)
    stream.buffer.writelines([b"third ", "\u00e4".encode()])
    print(" fourth", file=stream)
    wrapper = io.TextIOWrapper(stream.buffer, encoding="utf-8", write_through=True)
    wrapper.write("fifth ")
    stream.write("sixth")
    wrapper.detach()
    assert texts(printed) == [("stdout", "first second\nthird \u00e4 fourth\nfifth sixth")]


def interrupted(change: Callable[[], object], at: int, handler: Callable[[], object]) -> bool:
    """Make a change in a thread, and call the handler there once, at the ``at``-th call of a function or return.

    At calls and returns, the interpreter runs signal handlers and finalizers.

    Returns:
        Whether there were so many calls and returns.
    """
    seen = 0

    def look(frame: Any, event: str, arg: Any) -> None:
        nonlocal seen
        seen += 1
        if seen == at:
            handler()

    def run() -> None:
        sys.setprofile(look)
        try:
            change()
        finally:
            sys.setprofile(None)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(60)
    assert not thread.is_alive(), "the thread waits for itself"
    return seen >= at


def prints_during(change: str, held: bool, at: int) -> bool:
    """Print while a change is made, and check that nothing is lost. Return whether the change was interrupted."""
    woken: list[int] = []
    printed = Printed(lambda: woken.append(1))
    if held:
        printed.hold()
    printed.add("stdout", "x" * 790)
    taken = [printed.take()] if change == "put_back" else []

    def put_back() -> None:
        piece = taken.pop()
        assert piece is not None
        printed.put_back(piece)

    changes: dict[str, Callable[[], object]] = {
        "add": lambda: printed.add("stdout", "y" * 9),
        "take": lambda: taken.append(printed.take()),
        "put_back": put_back,
        "hold": printed.hold,
    }
    was_interrupted = interrupted(changes[change], at, lambda: printed.add("stderr", "!!"))
    texts = [piece.text for piece in [*taken, *iter(printed.take, None)] if isinstance(piece, Text)]
    kept = "".join(text for text in texts if not text.startswith("[trio-hub: "))
    dropped = sum(int(text.split()[1]) for text in texts if text.startswith("[trio-hub: "))
    assert kept.count("!") == 2 * was_interrupted
    assert len(kept) + dropped == 790 + 9 * (change == "add") + 2 * was_interrupted
    woken.clear()
    printed.add("stdout", "z")
    assert woken == [1], "it knows that nothing was left"
    return was_interrupted


@pytest.mark.parametrize("held", [False, True])
@pytest.mark.parametrize("change", ["add", "take", "put_back", "hold"])
def test_a_handler_or_finalizer_may_print_at_any_moment(
    monkeypatch: pytest.MonkeyPatch, change: str, held: bool
) -> None:
    monkeypatch.setattr(output, "MAX_WAITING", 800)
    assert next(at for at in itertools.count(1) if not prints_during(change, held, at)) > 5
