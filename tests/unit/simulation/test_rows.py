"""Tiny updates side by side."""

from __future__ import annotations

import pickle
from typing import Any

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

import umbel
from umbel.simulation.rows import Rows

VALUES = st.floats(width=32, allow_nan=False)


@given(st.lists(st.tuples(st.lists(VALUES, min_size=3, max_size=3), st.floats(1, 9), st.integers(0, 255))))
def test_updates_come_out_as_they_went_in(given: list[tuple[list[float], float, int]]) -> None:
    updates = [
        umbel.Update(
            delta={"w": np.array(w, np.float32), "n": np.array([n], np.uint8)}, weight=weight, metrics={"n": n}
        )
        for w, weight, n in given
    ]
    rows = Rows("delta", 0, [], [], [], [])
    for task, update in enumerate(updates):
        rows.add(2 * task, update)
    sent: Rows = pickle.loads(pickle.dumps(rows))  # noqa: S301  # our own
    spec = umbel.Arrays({"w": np.zeros(3, np.float32), "n": np.zeros(1, np.uint8)}).spec

    def told(update: umbel.Update) -> Any:
        return update.kind, update.arrays.digest(), update.weight, update.metrics, update.extra

    assert sent.tasks == [2 * task for task in range(len(updates))]
    assert [told(update) for update in sent.updates(spec)] == [told(update) for update in updates]


def test_updates_of_rows_cannot_be_written() -> None:
    rows = Rows("model", 0, [], [], [], [])
    rows.add(0, umbel.Update(model={"w": np.ones(2)}))
    (update,) = rows.updates(umbel.Arrays({"w": np.ones(2)}).spec)
    assert not update.arrays["w"].flags.writeable
    assert not update.arrays.writable


def test_updates_without_values() -> None:
    rows = Rows("value", 0, [], [], [], [])
    rows.add(0, umbel.Update(value={}))
    (update,) = rows.updates(umbel.Arrays({}).spec)
    assert len(update.arrays) == 0
