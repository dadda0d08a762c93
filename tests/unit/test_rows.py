"""Updates side by side."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import umbel
from umbel.rows import Rows

VALUES = st.floats(width=32, allow_nan=False)


def memory(size: int) -> Any:
    return np.empty(size, np.uint8)


def told(update: umbel.Update) -> Any:
    return update.kind, update.arrays.digest(), update.weight, update.metrics, update.extra


@given(
    given=st.lists(
        st.tuples(st.lists(VALUES, min_size=3, max_size=3), st.floats(1, 9), st.integers(0, 255)), min_size=1
    ),
    measured=st.booleans(),
    data=st.data(),
)
def test_updates_come_out_as_they_went_in(
    given: list[tuple[list[float], float, int]], measured: bool, data: st.DataObject
) -> None:
    updates = [
        umbel.Update(
            delta={"w": np.array(w, np.float32), "n": np.array([n], np.uint8)},
            weight=weight,
            metrics={"n": n} if measured else None,
        )
        for w, weight, n in given
    ]
    expected = [told(update) for update in updates]
    begin, end = sorted(data.draw(st.lists(st.integers(0, len(updates)), min_size=2, max_size=2)))
    some = data.draw(st.lists(st.integers(0, len(updates) - 1)))
    for rows in (Rows.over(updates), Rows.packed(updates, memory)):
        assert [told(rows.update(i)) for i in range(len(rows))] == expected
        part, taken = rows[begin:end], rows.take(some)
        assert [told(part.update(i)) for i in range(len(part))] == expected[begin:end]
        assert [told(taken.update(i)) for i in range(len(taken))] == [expected[i] for i in some]


def test_updates_of_rows_cannot_be_written() -> None:
    rows = Rows.packed([umbel.Update(model={"w": np.ones(2)})], memory)
    assert not rows.update(0).arrays["w"].flags.writeable
    assert not rows.update(0).arrays.writable
    with pytest.raises(ValueError, match="read-only"):
        rows.values[0][0] = 1


def test_updates_without_values() -> None:
    rows = Rows.packed([umbel.Update(value={}), umbel.Update(value={})], memory)
    assert len(rows.update(1).arrays) == 0


@pytest.mark.parametrize(("worst", "harmless"), [(3.0, True), (1e20, False), (np.inf, False), (np.nan, False)])
def test_they_are_looked_at_together(worst: float, harmless: bool) -> None:
    updates = [umbel.Update(model={"w": np.array([x, 1.0], np.float32)}) for x in (0.0, worst, 1.0)]
    assert Rows.packed(updates, memory).harmless is harmless


def test_what_is_not_of_floats_alone_takes_a_longer_look() -> None:
    update = umbel.Update(value={"w": np.ones(2), "n": 3})
    assert not Rows.packed([update], memory).harmless
