"""The memory of recent marks, compared with a model of plain lists."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trio_hub.wire.recent import Recent

# Few places and many marks that want the same one.
MARKS = st.one_of(st.integers(0, 5), st.sampled_from([k << 62 | n for k in range(4) for n in (0, 1, 63, 64)]))


def same(mark: int) -> int:
    return mark or 1  # 0 is taken for 1, which of 64-bit hashes nobody notices


@given(st.lists(st.tuples(MARKS, st.integers())), st.integers(1, 5))
@pytest.mark.property
def test_it_does_what_two_dicts_do(seen: list[tuple[int, int]], size: int) -> None:
    recent: Recent[int] = Recent(size)
    young: dict[int, int] = {}
    old: dict[int, int] = {}
    for raw, value in seen:
        mark = same(raw)
        is_new = mark not in young and mark not in old
        assert recent.remember(raw, value) is is_new
        if is_new:
            if len(young) >= size:
                young, old = {}, young
            young[mark] = value
        assert len(recent) == len(young) + len(old)
        for other, _ in seen:
            assert recent.find(other) == young.get(same(other), old.get(same(other)))


def test_it_grows_and_forgets_nothing_by_it() -> None:
    recent: Recent[str] = Recent(10_000)
    for number in range(10_000):
        assert recent.remember(hash(str(number)) & 0xFFFF_FFFF_FFFF_FFFF, str(number))
    for number in range(10_000):
        assert recent.find(hash(str(number)) & 0xFFFF_FFFF_FFFF_FFFF) == str(number)
    assert recent.find(3) is None


def test_it_takes_up_no_more_than_two_generations() -> None:
    recent: Recent[bool] = Recent(1_000)
    for number in range(100_000):
        recent.remember((number * 0x9E37_79B9_7F4A_7C15) & 0xFFFF_FFFF_FFFF_FFFF, True)
        assert 2 * max(recent._young.count, recent._old.count) <= len(recent._young.marks) <= 4_096
