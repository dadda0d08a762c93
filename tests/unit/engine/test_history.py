from __future__ import annotations

import csv
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from umbel.engine.history import COUNTS, STAGES, History, Row
from umbel.errors import UsageError

NAMES = st.sampled_from(["loss", "accuracy", "round", "folded", "evaluate.loss", "main.round", "train.loss", "a b", ""])
METRICS = st.dictionaries(NAMES, st.floats(allow_nan=False), max_size=3)
ROWS = st.lists(st.dictionaries(st.sampled_from(STAGES), METRICS), max_size=6)


def history(*stages: dict[str, dict[str, Any]], **counts: int) -> History:
    return History([Row(round=i, stages=s, **counts) for i, s in enumerate(stages, 1)])


def test_two_stages_with_one_name() -> None:
    table = history(
        {"train": {"loss": 1.0}, "evaluate": {"loss": 2.0, "accuracy": 0.5}, "central": {"loss": 3.0, "accuracy": 0.6}},
        {"train": {"loss": 0.5}},
    )
    assert table.columns == (*COUNTS, "loss", "evaluate.loss", "accuracy", "central.loss", "central.accuracy")
    assert table["loss"].tolist() == [1.0, 0.5]
    assert table["evaluate.loss"].tolist() == pytest.approx([2.0, math.nan], nan_ok=True)
    assert table[0]["central.accuracy"] == 0.6
    assert "evaluate.loss" not in table[-1]


def test_a_metric_may_be_called_like_a_count_or_like_another_ones_stage() -> None:
    table = history({"": {"round": 7.0}, "train": {"loss": 1.0, "evaluate.loss": 2.0}, "evaluate": {"loss": 3.0}})
    assert table["round"].tolist() == [1]
    assert table["main.round"].tolist() == [7.0]
    assert [table[c][0] for c in ("loss", "evaluate.loss", "evaluate.evaluate.loss")] == [1.0, 2.0, 3.0]


@given(ROWS)
def test_no_metric_is_lost_whatever_it_is_called(stages: list[dict[str, dict[str, float]]]) -> None:
    table = history(*stages, cohort=5, folded=4, failed=1)
    assert len(set(table.columns)) == len(table.columns)
    assert len(table) == len(stages)
    for row, its in zip(table, stages, strict=True):
        found = sorted(v for k, v in row.items() if k not in COUNTS)
        assert found == sorted(v for metrics in its.values() for v in metrics.values())
        assert [row[name] for name in COUNTS] == [row["round"], 5, 4, 1]
    for name in table.columns:
        column = table[name]
        assert column.shape == (len(stages),)
        for i, row in enumerate(table):
            assert column[i] == row[name] if name in row else math.isnan(column[i])
            assert table.values(name)[i] == row.get(name, math.nan) or name not in row


@given(ROWS, st.integers(0, 6))
def test_it_is_the_same_grown_round_by_round_or_made_at_once(
    stages: list[dict[str, dict[str, float]]], cut: int
) -> None:
    rows = [Row(round=i, stages=s) for i, s in enumerate(stages, 1)]
    grown = History(rows[:cut])
    for row in rows[cut:]:
        assert grown.columns is not None  # looks, so that what was remembered is asked for
        grown.append(row)
    assert grown == History(rows)
    assert grown.columns == History(rows).columns


def test_two_histories_are_equal_where_their_rows_are() -> None:
    nan = {"train": {"loss": math.nan, "matrix": np.ones((2, 2))}}
    assert history(nan) == history(nan)
    assert history(nan) != history({"train": {"loss": 1.0, "matrix": np.ones((2, 2))}})
    assert history(nan) != history(nan, nan)
    assert history({"train": {"loss": 1.0}}) != history({"evaluate": {"accuracy": 1.0}})
    assert history() != "history"


def test_a_column_of_arrays_has_the_rounds_along_its_first_axis() -> None:
    table = history({"": {"m": np.ones((2, 3))}}, {}, {"": {"m": np.zeros((2, 3))}})
    assert table["m"].shape == (3, 2, 3)
    assert np.isnan(table["m"][1]).all()
    assert table["m"][2].tolist() == np.zeros((2, 3)).tolist()


@pytest.mark.parametrize(
    "values", [(np.ones((2, 3)), np.ones((2, 4))), (np.ones(2), np.ones(3)), ("text", 1.0), (None, 1.0), ([1], "x")]
)
def test_a_column_of_anything_else_holds_objects(values: tuple[Any, ...]) -> None:
    table = history(*({"": {"m": v}} for v in values))
    column = table["m"]
    assert (column.dtype, column.shape) == (np.dtype(object), (2,))
    assert column[1] is values[1]


def test_rows_slices_and_unknown_columns() -> None:
    table = history({"": {"a": 1.0}}, {"": {"a": 2.0}}, {"": {"a": 3.0}})
    assert [row["a"] for row in table[1:]] == [2.0, 3.0]
    assert [row["a"] for row in table.rows] == [1.0, 2.0, 3.0]
    with pytest.raises(UsageError, match=r"no column 'b'(?s:.*)round, cohort, folded, failed, a"):
        table["b"]
    with pytest.raises(IndexError):
        table[3]
    assert all(math.isnan(v) for v in table.values("b"))


def test_an_empty_history() -> None:
    table = History()
    assert table.columns == COUNTS
    assert table["round"].tolist() == []
    assert repr(table) == "History(no rounds yet)"
    assert list(table) == []


def test_it_says_what_the_last_round_was() -> None:
    table = history({"train": {"loss": 0.123456789, "m": np.ones((2, 2))}})
    text = "History(1 rounds; last: round=1, cohort=0, folded=0, failed=0, loss=0.1235, m=[[1. 1.]  [1. 1.]])"
    assert repr(table) == text


def test_a_dataframe() -> None:
    pd = pytest.importorskip("pandas")
    frame = history({"train": {"loss": 1.0}}, {"evaluate": {"loss": 2.0, "m": np.ones(2)}}).dataframe()
    assert isinstance(frame, pd.DataFrame)
    assert list(frame.columns) == [*COUNTS, "loss", "evaluate.loss", "m"]
    assert frame["loss"].tolist() == pytest.approx([1.0, math.nan], nan_ok=True)
    assert frame["m"][1].tolist() == [1.0, 1.0]
    assert list(History().dataframe().columns) == list(COUNTS)


def test_a_csv_file(tmp_path: Path) -> None:
    table = history({"train": {"loss": 1 / 3, 'a "b",\nc': 1.0}}, {"evaluate": {"m": np.ones(2), "ä": -0.0}})
    table.save(tmp_path / "history.csv")
    with open(tmp_path / "history.csv", newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [float(row["loss"] or "nan") for row in rows] == pytest.approx([1 / 3, math.nan], nan_ok=True)
    assert float(rows[0]["loss"]) == 1 / 3, "to the last bit"
    assert (rows[0]['a "b",\nc'], rows[1]["m"], rows[1]["ä"]) == ("1.0", "[1.0, 1.0]", "-0.0")
