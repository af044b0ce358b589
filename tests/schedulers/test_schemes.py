"""Schemes: each by its rule, and never an engine that has no room or that the task does not accept."""

from __future__ import annotations

from collections import Counter
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trio_hub.schedulers.schemes import SCHEMES, Scheme
from trio_hub.schedulers.task import Task, Worker
from trio_hub.schedulers.tasks import TaskScheduler

from .making import Bench, Recorder, make_task

ANY = make_task("any")
each_scheme = pytest.mark.parametrize("name", sorted(SCHEMES))


def make_worker(name: str, load: int = 0, last_used: int = 0) -> Worker:
    worker = Worker(name.encode())
    worker.running = {f"{name}{number}": ANY for number in range(load)}
    worker.last_used = last_used
    return worker


def make(name: str, *workers: Worker, seed: int = 1) -> Scheme:
    scheme = SCHEMES[name](Random(seed))
    for worker in workers:
        scheme.add(worker)
    return scheme


def refusing(*workers: Worker) -> Task:
    task = make_task("picky")
    task.refused = frozenset(worker.ident for worker in workers)
    return task


def drawn(scheme: Scheme, times: int, task: Task = ANY) -> Counter[bytes]:
    workers = [scheme.choose(task) for _ in range(times)]
    return Counter(worker.ident for worker in workers if worker is not None)


def test_the_schemes_of_the_reference_are_here() -> None:
    assert set(SCHEMES) == {"leastload", "lru", "plainrandom", "pure", "twobin", "weighted"}


# Rules of all schemes


@each_scheme
def test_with_nobody_there_nobody_is_chosen(name: str) -> None:
    scheme = make(name)
    assert scheme.choose(ANY) is None
    assert scheme.choose(refusing(make_worker("a"))) is None


@each_scheme
def test_those_that_leave_are_not_chosen(name: str) -> None:
    workers = [make_worker(name) for name in "abc"]
    scheme = make(name, *workers)
    for worker in workers:
        assert worker in scheme
        scheme.discard(worker)
        scheme.discard(worker)
        assert worker not in scheme
        assert worker.ident not in drawn(scheme, 20)
    assert scheme.choose(ANY) is None
    scheme.add(workers[0])
    assert scheme.choose(ANY) is workers[0]


@each_scheme
def test_those_that_refuse_are_not_chosen(name: str) -> None:
    workers = [make_worker(str(number)) for number in range(50)]
    scheme = make(name, *workers)
    for count in (1, 25, 49):
        task = refusing(*workers[:count])
        assert drawn(scheme, 200, task).keys() <= {worker.ident for worker in workers[count:]}
    assert scheme.choose(refusing(*workers)) is None
    assert all(worker in scheme for worker in workers), "they are passed over, and stay"
    assert scheme.choose(ANY) is not None


@each_scheme
def test_an_engine_added_twice_is_there_once(name: str) -> None:
    one, other = make_worker("a"), make_worker("b")
    scheme = make(name, one, one, one, other)
    scheme.discard(one)
    assert one not in scheme
    assert drawn(scheme, 20) == {b"b": 20}


@each_scheme
def test_the_same_seed_makes_the_same_choices(name: str) -> None:
    workers = [make_worker(str(number), load=number % 3) for number in range(10)]
    one, other = ([make(name, *workers, seed=7).choose(ANY) for _ in range(5)] for _ in range(2))
    assert one == other


steps = st.lists(
    st.tuples(st.sampled_from(["add", "discard", "choose", "among"]), st.integers(0, 5), st.integers(0, 63))
)


@each_scheme
@given(steps=steps, seed=st.integers(0, 100))
@pytest.mark.property
def test_only_who_is_there_and_accepts_is_chosen(name: str, steps: list[tuple[str, int, int]], seed: int) -> None:
    workers = [make_worker(str(number)) for number in range(6)]
    scheme = make(name, seed=seed)
    there: set[Worker] = set()
    for step, index, bits in steps:
        worker = workers[index]
        chosen_of = {other for number, other in enumerate(workers) if bits >> number & 1}
        if step == "add":
            scheme.discard(worker)  # the load of this worker is about to change
            worker.running = {str(number): ANY for number in range(bits % 4)}
            worker.last_used = bits
            scheme.add(worker)
            there.add(worker)
        elif step == "discard":
            scheme.discard(worker)
            there.discard(worker)
        elif step == "choose":
            chosen = scheme.choose(refusing(*chosen_of))
            assert (chosen is None) == (there <= chosen_of)
            assert chosen is None or (chosen in there and chosen not in chosen_of)
            if chosen is not None and name in ("leastload", "lru", "pure"):
                keys = {
                    other: (other.load if name == "leastload" else 0, other.last_used) for other in there - chosen_of
                }
                assert keys[chosen] == min(keys.values())
        elif chosen_of:
            assert scheme.choose_among(sorted(chosen_of, key=lambda other: other.ident)) in chosen_of
        assert {other for other in workers if other in scheme} == there


# Each by its rule


def test_leastload_takes_the_lowest_load() -> None:
    workers = [make_worker("a", 2, 1), make_worker("b", 1, 3), make_worker("c", 1, 2)]
    scheme = make("leastload", *workers)
    assert scheme.choose(ANY) is workers[2], "of equals the least recently used"
    assert scheme.choose(refusing(workers[2])) is workers[1]
    assert scheme.choose(refusing(workers[2], workers[1])) is workers[0]
    assert scheme.choose_among(workers) is workers[2]
    assert scheme.choose_among(workers[:2]) is workers[1]


def test_lru_takes_the_least_recently_used_whatever_its_load() -> None:
    workers = [make_worker("a", 2, 1), make_worker("b", 1, 3), make_worker("c", 0, 2)]
    scheme = make("lru", *workers)
    assert scheme.choose(ANY) is workers[0]
    assert scheme.choose(refusing(workers[0])) is workers[2]
    assert scheme.choose_among(workers[1:]) is workers[2]


@pytest.mark.parametrize("name", ["leastload", "lru", "pure"])
def test_engines_take_turns(name: str) -> None:
    recorder = Recorder()
    scheduler = TaskScheduler(recorder, Random(1), hwm=0, scheme=name)
    for ident in (b"a", b"b", b"c"):
        scheduler.add_engine(ident)
    for number in range(9):
        scheduler.submit(make_task(str(number)))
    assert [ident for _, ident in recorder.assigned] == ["a", "b", "c"] * 3


def test_pure_takes_turns_whatever_is_outstanding() -> None:
    recorder = Recorder()
    scheduler = TaskScheduler(recorder, Random(1), hwm=1, scheme="pure")
    first = scheduler.add_engine(b"a")
    for number in range(4):
        scheduler.submit(make_task(str(number)))
    assert first.load == 4, "a newcomer takes nothing from those who have it"
    recorder.assigned.clear()
    scheduler.add_engine(b"b")
    for number in range(4, 9):
        scheduler.submit(make_task(str(number)))
    assert [ident for _, ident in recorder.assigned] == ["b", "a", "b", "a", "b"]
    assert len(scheduler.queue) == 0


def test_pure_honours_what_a_task_asks_for() -> None:
    bench = Bench("abc", scheme="pure")
    bench.submit("targeted", targets=["c"])
    assert bench.assigned == [("targeted", "c")]
    bench.submit("retried", retries=1)
    bench.submit("after", after=["retried"])
    assert bench.assigned == [("retried", "a")]
    assert not bench.answer("a", "retried", ok=False)
    assert bench.assigned == [("retried", "b")]
    assert bench.answer("b", "retried")
    assert bench.assigned == [("after", "c")], "c got something before the others did"


def test_plainrandom_gives_all_the_same_chances() -> None:
    workers = [make_worker(name, load) for name, load in zip("abcd", (0, 5, 50, 500), strict=True)]
    scheme = make("plainrandom", *workers)
    counts = drawn(scheme, 8000)
    assert all(1800 < counts[worker.ident] < 2200 for worker in workers)
    counts = drawn(scheme, 6000, refusing(workers[0]))
    assert all(1800 < counts[worker.ident] < 2200 for worker in workers[1:])
    scheme.discard(workers[1])
    counts = Counter(scheme.choose_among(workers[2:]).ident for _ in range(4000))
    assert all(1800 < counts[worker.ident] < 2200 for worker in workers[2:])


def test_twobin_takes_the_less_recently_used_of_two() -> None:
    workers = [make_worker(name, last_used=last) for name, last in zip("abcd", (4, 3, 2, 1), strict=True)]
    counts = drawn(make("twobin", *workers), 16_000)
    for worker, sixteenths in zip(workers, (1, 3, 5, 7), strict=True):  # two of four are drawn: 4 * 4 ways
        assert abs(counts[worker.ident] - 1000 * sixteenths) < 300


def test_weighted_prefers_the_less_loaded() -> None:
    workers = [make_worker(name, load) for name, load in zip("abcd", (0, 1, 3, 9), strict=True)]
    scheme = make("weighted", *workers)
    counts = drawn(scheme, 4000)
    assert counts[b"a"] > counts[b"b"] > counts[b"c"] > counts[b"d"] > 0
    # a single draw is weighted by 1/(load + 1), and the better of two is taken
    weights = [1, 1 / 2, 1 / 4, 1 / 10]
    shares = [weight / sum(weights) for weight in weights]
    rest = 1.0
    for worker, share in zip(workers, shares, strict=True):
        wanted = 4000 * (rest**2 - (rest - share) ** 2)
        rest -= share
        assert abs(counts[worker.ident] - wanted) < 0.15 * wanted + 30


def test_weighted_gives_up_weighing_where_all_are_heavily_loaded() -> None:
    workers = [make_worker(name, 100_000) for name in "ab"]
    assert drawn(make("weighted", *workers), 100).keys() == {b"a", b"b"}


# Memory


@pytest.mark.parametrize("name", ["leastload", "lru"])
def test_entries_of_the_past_are_cleared_away(name: str) -> None:
    workers = [make_worker(str(number)) for number in range(10)]
    scheme = make(name, *workers)
    for number in range(10_000):
        worker = workers[number % 7]
        scheme.discard(worker)
        worker.last_used = number
        scheme.add(worker)
        assert len(scheme._heap) <= 64 + 2 * len(workers) + 1  # type: ignore[attr-defined]
    assert scheme.choose(ANY) is workers[7]
    assert drawn(scheme, 10) == {b"7": 10}
