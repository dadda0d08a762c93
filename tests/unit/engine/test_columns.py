"""Columns are a sequence of tuples in all that can be seen from outside."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from umbel.engine.columns import Columns

ROWS = st.lists(st.tuples(st.text(), st.integers()))


@given(rows=ROWS, other=ROWS, cut=st.slices(5))
def test_columns_are_a_sequence(rows: list[tuple[str, int]], other: list[tuple[str, int]], cut: slice) -> None:
    columns = Columns.of(rows, 2)
    assert Columns.of(columns, 2) is columns
    assert [*columns] == rows
    assert len(columns) == len(rows)
    assert [columns[i] for i in range(-len(rows), len(rows))] == rows * 2
    assert [*columns[cut]] == rows[cut]
    assert (columns == other) is (rows == other)
    assert columns == rows
    assert columns != 3
    assert Columns([1], [2]) != [[1, 2]]  # as tuples and lists differ
    assert repr(columns) == repr(rows)
