"""The queue of waiting tasks: fair over sessions, first-in-first-out within one, and open to all engines alike."""

from __future__ import annotations

from collections.abc import Iterable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

from trio_hub.schedulers.fairqueue import FairQueue
from trio_hub.schedulers.task import Task

from .making import make_task


class Filled:
    """A queue whose tasks are numbered in the order in which they were made."""

    def __init__(self) -> None:
        self.queue = FairQueue()
        self.number = 0

    def make(self, session: str, targets: str = "", refused: str = "") -> Task:
        self.number += 1
        task = make_task(f"{session}{self.number}", session, targets=list(targets) or None)
        task.number = self.number
        task.refused = frozenset(name.encode() for name in refused)
        return task

    def push(self, session: str, targets: str = "", refused: str = "") -> Task:
        task = self.make(session, targets, refused)
        self.queue.push(task)
        return task

    def take_all(self, ident: str = "x") -> list[str]:
        taken = []
        while (task := self.queue.take(ident.encode())) is not None:
            taken.append(task.msg_id)
        return taken


def ids(tasks: Iterable[Task]) -> list[str]:
    return [task.msg_id for task in tasks]


def test_the_tasks_of_each_session_are_counted() -> None:
    filled = Filled()
    assert filled.queue.lengths() == {}
    for session, targets in (("a", ""), ("b", "x"), ("a", "xy"), ("a", "")):
        filled.push(session, targets)
    assert filled.queue.lengths() == {"a": 3, "b": 1}
    filled.take_all()
    assert filled.queue.lengths() == {}


def test_sessions_take_turns() -> None:
    filled = Filled()
    for session in "aaabbc":
        filled.push(session)
    assert filled.take_all() == ["a1", "b4", "c6", "a2", "b5", "a3"]
    assert len(filled.queue) == 0


def test_a_burst_delays_another_sessions_next_task_by_one() -> None:
    filled = Filled()
    for _ in range(20_000):
        filled.push("a")
    other = filled.push("b")
    assert len(filled.queue) == 20_001
    assert ids(filter(None, (filled.queue.take(b"x") for _ in range(3)))) == ["a1", other.msg_id, "a2"]
    another = filled.push("b")
    assert ids(filter(None, (filled.queue.take(b"x") for _ in range(3)))) == ["a3", another.msg_id, "a4"]


def test_what_waited_before_goes_where_it_was() -> None:
    filled = Filled()
    tasks = [filled.push("a") for _ in range(5)]
    taken = [filled.queue.take(b"x") for _ in range(3)]
    for task in (taken[2], taken[0], taken[1]):
        assert task is not None
        filled.queue.push(task)
    assert filled.take_all() == ids(tasks)


def test_what_waited_elsewhere_goes_where_its_number_belongs() -> None:
    filled = Filled()
    early = [filled.make("a") for _ in range(3)]
    between = []
    for _ in range(3):
        filled.push("a")
        between.append(filled.make("a"))
    for task in (between[1], early[2], between[2], early[0], between[0], early[1]):
        filled.queue.push(task)
    assert ids(filled.queue) == [f"a{number}" for number in range(1, 10)]
    filled.queue.remove(between[1])
    filled.queue.remove(early[0])
    assert filled.take_all() == ["a2", "a3", "a4", "a5", "a6", "a8", "a9"]
    assert filled.queue.keeps_nothing


def test_pools_are_open_to_those_they_name() -> None:
    filled = Filled()
    filled.push("a", targets="xy")
    filled.push("a", targets="y")
    filled.push("a")
    filled.push("a", refused="x")
    filled.push("a", targets="xy", refused="y")
    assert filled.take_all("z") == ["a3", "a4"]
    assert filled.take_all("x") == ["a1", "a5"]
    assert filled.take_all("y") == ["a2"]


def test_pools_are_first_in_first_out_together() -> None:
    filled = Filled()
    tasks = [
        filled.push("a", targets, refused) for targets, refused in [("xy", ""), ("", ""), ("", "z"), ("x", "")] * 5
    ]
    assert filled.take_all("x") == ids(tasks)


def test_those_that_wait_for_others_block_nobody() -> None:
    filled = Filled()
    for session in "abc":
        filled.push(session, targets="y")
    filled.push("b")
    filled.push("c")
    assert filled.take_all("x") == ["b4", "c5"]
    assert filled.take_all("y") == ["a1", "b2", "c3"]


def test_a_session_passed_over_keeps_its_turn() -> None:
    filled = Filled()
    filled.push("a", targets="y")
    filled.push("b")
    filled.push("b")
    assert filled.queue.take(b"x") is not None
    assert filled.take_all("y") == ["a1", "b3"]


@pytest.mark.parametrize(("targets", "refused"), [("", ""), ("xy", ""), ("", "z"), ("xy", "y")])
def test_removal(targets: str, refused: str) -> None:
    filled = Filled()
    tasks = [filled.push(session, targets, refused) for session in "aaab"]
    for task in (tasks[1], tasks[3], tasks[0]):
        filled.queue.remove(task)
    assert len(filled.queue) == 1
    assert ids(filled.queue) == ["a3"]
    assert filled.take_all() == ["a3"]


def test_what_is_not_queued_cannot_be_removed() -> None:
    filled = Filled()
    filled.push("a")
    for other in (filled.make("a"), filled.make("b"), filled.make("a", targets="x")):
        with pytest.raises((KeyError, ValueError)):
            filled.queue.remove(other)
    assert len(filled.queue) == 1


def test_tasks_confined_to_an_engine_that_is_gone() -> None:
    filled = Filled()
    filled.push("a")
    filled.push("a", targets="x")
    filled.push("b", targets="xy")
    filled.push("b", targets="xz", refused="z")
    filled.push("b", targets="xw")
    filled.push("c", refused="yz")
    filled.push("c", refused="y")
    filled.push("c", refused="xyz")
    others = {b"y", b"z"}
    assert ids(filled.queue.take_confined_to(b"x", others)) == ["a2", "b4", "b5", "c6"]
    assert filled.queue.take_confined_to(b"x", others) == []
    assert sorted(ids(filled.queue)) == ["a1", "b3", "c7", "c8"]
    assert len(filled.queue) == 4


def test_with_no_engine_left_all_that_was_refused_is_confined() -> None:
    filled = Filled()
    filled.push("a")
    filled.push("a", refused="y")
    filled.push("a", refused="x")
    assert ids(filled.queue.take_confined_to(b"x", set())) == ["a2"]
    assert ids(filled.queue) == ["a1", "a3"]


def test_an_empty_queue_keeps_nothing() -> None:
    filled = Filled()
    for session in "abcab":
        for targets in ("", "x", "xy"):
            for refused in ("", "y"):
                filled.push(session, targets, refused)
    filled.take_all("x")
    assert len(filled.queue) == 0
    assert filled.queue.keeps_nothing


# Against a model


class Model:
    """The queue in its simplest form: a list in the order of turns, which is searched from the front."""

    def __init__(self) -> None:
        self.sessions: list[tuple[str, list[Task]]] = []

    def push(self, task: Task) -> None:
        for name, tasks in self.sessions:
            if name == task.session:
                tasks.append(task)
                tasks.sort(key=lambda task: task.number)
                return
        self.sessions.append((task.session, [task]))

    def take(self, ident: bytes) -> Task | None:
        for entry in self.sessions:
            for task in entry[1]:
                if task.accepts(ident):
                    self.remove(task)
                    if entry in self.sessions:
                        self.sessions.remove(entry)
                        self.sessions.append(entry)
                    return task
        return None

    def remove(self, task: Task) -> None:
        for entry in list(self.sessions):
            if task in entry[1]:
                entry[1].remove(task)
            if not entry[1]:
                self.sessions.remove(entry)

    def all(self) -> list[Task]:
        return [task for _, tasks in self.sessions for task in tasks]


names = st.text("wxyz", max_size=3).map(lambda text: "".join(sorted(set(text))))
idents = st.sampled_from([b"w", b"x", b"y", b"z"])


class QueueMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.filled = Filled()
        self.model = Model()
        self.taken: list[Task] = []

    @rule(session=st.sampled_from("abc"), allowed=names, refused=names, count=st.integers(1, 3))
    def push(self, session: str, allowed: str, refused: str, count: int) -> None:
        for _ in range(count):
            self.model.push(self.filled.push(session, allowed, refused))

    @rule(ident=idents)
    def take(self, ident: bytes) -> None:
        task = self.filled.queue.take(ident)
        assert task is self.model.take(ident)
        if task is not None:
            self.taken.append(task)

    @rule(session=st.sampled_from("abc"), allowed=names)
    def wait_elsewhere(self, session: str, allowed: str) -> None:
        self.taken.append(self.filled.make(session, allowed))

    @precondition(lambda self: self.taken)
    @rule(data=st.data(), refused=names)
    def push_again(self, data: st.DataObject, refused: str) -> None:
        task = self.taken.pop(data.draw(st.integers(0, len(self.taken) - 1)))
        task.refused |= {name.encode() for name in refused}
        self.filled.queue.push(task)
        self.model.push(task)

    @precondition(lambda self: len(self.filled.queue) > 0)
    @rule(data=st.data())
    def remove(self, data: st.DataObject) -> None:
        tasks = self.model.all()
        task = tasks[data.draw(st.integers(0, len(tasks) - 1))]
        self.filled.queue.remove(task)
        self.model.remove(task)

    @rule(data=st.data())
    def remove_many(self, data: st.DataObject) -> None:
        tasks = [task for task in self.model.all() if data.draw(st.booleans())]
        self.filled.queue.remove_many(tasks)
        for task in tasks:
            self.model.remove(task)

    @rule(ident=idents, others=st.frozensets(idents))
    def take_confined_to(self, ident: bytes, others: frozenset[bytes]) -> None:
        others -= {ident}
        taken = self.filled.queue.take_confined_to(ident, others)
        wanted = [
            task
            for task in self.model.all()
            if task.accepts(ident) and not any(map(task.accepts, others)) and (task.targets is not None or task.refused)
        ]
        assert {id(task) for task in taken} == {id(task) for task in wanted}
        assert len(taken) == len(wanted)
        for task in wanted:
            self.model.remove(task)

    @invariant()
    def same(self) -> None:
        assert len(self.filled.queue) == len(self.model.all())
        assert {id(task) for task in self.filled.queue} == {id(task) for task in self.model.all()}


@pytest.mark.property
def test_against_a_model() -> None:
    run_state_machine_as_test(QueueMachine, settings=settings(max_examples=30))


@given(st.lists(st.sampled_from("aaaabc"), max_size=30))
@pytest.mark.property
def test_no_session_gets_two_turns_while_another_waits(pushes: list[str]) -> None:
    filled = Filled()
    for session in pushes:
        filled.push(session)
    turns = [msg_id[0] for msg_id in filled.take_all()]
    sessions = dict.fromkeys(pushes)  # in the order in which they came
    rounds = range(len(pushes))
    assert turns == [session for number in rounds for session in sessions if pushes.count(session) > number]
