"""Samples of the queued tasks, for estimates of what waits."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from trio_hub.schedulers.fairqueue import FairQueue

from .making import make_task


def queue_of(sessions: list[int]) -> FairQueue:
    """Return a queue with a task for each session in a list. Every third task does not come in its order."""
    queue = FairQueue()
    for number, session in enumerate(sessions):
        task = make_task(str(number), f"client-{session}")
        task.number = number if number % 3 else -number
        queue.push(task)
    return queue


@given(st.lists(st.integers(0, 5), max_size=100), st.integers(1, 50))
def test_a_sample_has_tasks_of_all_places(sessions: list[int], parts: int) -> None:
    queue = queue_of(sessions)
    levels = queue.levels()
    assert [level.queued for level in levels] == ([len(sessions)] if sessions else [])
    for level in levels:
        sample = level.sample(parts)
        assert len({task.msg_id for task in sample}) == len(sample)
        assert len(sample) == (len(sessions) if len(sessions) <= 2 * parts else parts)
        part = len(sessions) / parts
        for session in set(sessions):
            if sessions.count(session) >= 2 * part:
                assert any(task.session == f"client-{session}" for task in sample)


def test_a_sample_is_not_in_step_with_tasks_of_several_kinds_in_turn() -> None:
    for kinds in (2, 3, 4, 8, 16):
        [level] = queue_of([0] * 1600).levels()
        sample = level.sample(100)
        for kind in range(kinds):
            part = sum(int(task.msg_id) % kinds == kind for task in sample)
            assert 0.5 * 100 / kinds <= part <= 1.7 * 100 / kinds
