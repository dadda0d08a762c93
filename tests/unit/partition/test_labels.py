from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest

from umbel.errors import UsageError
from umbel.partition import dirichlet
from umbel.partition.labels import encode

LABELS = [3, 10, 3, 0, 9, 10, 10, 9] * 5


@pytest.mark.parametrize(
    "same",
    [
        tuple(LABELS),
        np.array(LABELS, np.uint8),
        np.array(LABELS, np.float16),
        np.array(LABELS, np.uint64),
        np.array(LABELS, object),
        [float(label) for label in LABELS],
        [str(label) for label in LABELS],
        np.array([str(label) for label in LABELS]),
        np.array([str(label) for label in LABELS], "S"),
        [np.int8(label) for label in LABELS],
        pd.Series(LABELS, index=range(100, 100 + len(LABELS))),
        pd.Series(LABELS).astype(str),
        pd.Series(LABELS).astype("category"),
        pd.Series(LABELS).astype("Int64"),
    ],
    ids=lambda labels: f"{type(labels).__name__} {getattr(labels, 'dtype', type(next(iter(labels))).__name__)}",
)
def test_what_holds_the_labels_does_not_matter(same: Any) -> None:
    assert encode(same).classes == ("0", "3", "9", "10")
    assert dirichlet(same, clients=4, alpha=0.5, seed=7) == dirichlet(LABELS, clients=4, alpha=0.5, seed=7)


def test_tensors() -> None:
    torch = pytest.importorskip("torch")
    expected = dirichlet(LABELS, clients=4, alpha=0.5, seed=7)
    for dtype in (torch.int64, torch.uint8, torch.float32):
        assert dirichlet(torch.tensor(LABELS, dtype=dtype), clients=4, alpha=0.5, seed=7) == expected
    assert dirichlet(list(torch.tensor(LABELS)), clients=4, alpha=0.5, seed=7) == expected


def test_bools_are_0_and_1() -> None:
    assert encode([True, False]).classes == encode(np.array([True, False])).classes == ("0", "1")


def test_text_is_ordered_by_code_point_and_integers_in_text_by_value() -> None:
    assert encode(["b", "a", "Z", "ä"]).classes == ("Z", "a", "b", "ä")
    assert encode(["10", "9", "-1"]).classes == ("-1", "9", "10")
    assert encode(["10", "9", "x"]).classes == ("10", "9", "x")
    assert encode(["010", "9"]).classes == ("010", "9")  # 010 is no way to write a number


def test_integers_beyond_int64() -> None:
    assert encode([2**80, 5, -(2**70)]).classes == (str(-(2**70)), "5", str(2**80))
    assert encode([1e300, 5.0]).classes == ("5", str(int(1e300)))


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([0.0, 1.0, float("nan"), float("nan")], r"labels\[2\] is missing \(nan\) \(1 more like it\)"),
        (np.array([1, np.nan], np.float32), r"labels\[1\] is missing"),
        ([1, None, 2], r"labels\[1\] is missing \(None\)"),
        (["a", "b", None], r"labels\[2\] is missing \(None\)"),
        (["a", float("nan")], r"labels\[1\] is missing \(nan\)"),
        (pd.Series(["a", None, "b"]), r"labels\[1\] is missing"),
        (pd.Series([1, None], dtype="Int64"), r"labels\[1\] is missing"),
        (np.array(["a", pd.NA], object), r"labels\[1\] is missing \(<NA>\)"),
        (np.array([pd.NaT, 1], object), r"labels\[0\] is missing \(NaT\)"),
        ([0.0, 0.5], r"labels\[1\] is 0.5, which is not a class"),
        ([0.0, float("inf")], r"labels\[1\] is inf"),
        (np.array([1, 2.5], object), r"labels\[1\] is 2.5"),
        (["a", 1], r"labels\[0\] is text and labels\[1\] is number \(1\)"),
        ([["a"], ["b"]], r"labels have the shape \(2, 1\)"),
        ([[0, 1], [1, 0]], r"labels have the shape \(2, 2\)"),
        ([[0, 1], [1]], "labels are not a flat list"),
        ([{}, {}], r"labels\[0\] is {}, which is not a class"),
        ("cat", "labels are one str, not a list"),
        ({1, 2}, "labels are one set, not a list"),
        (5, "labels are one int, not a list"),
        ([], "There are no labels"),
        (np.array([1j]), "labels are complex128"),
        (np.array(["2020-01-01"], "M8[D]"), "labels are datetime64"),
    ],
)
def test_what_is_no_label_is_refused_by_its_index(labels: Any, message: str) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        dirichlet(labels, clients=2, alpha=1)
    assert caught.value.advice


def test_advice_fits_the_mistake() -> None:
    with pytest.raises(UsageError, match=r"argmax\(axis=1\)"):
        encode(np.eye(3))
    with pytest.raises(UsageError, match=r"reshape\(-1\)"):
        encode(np.zeros((3, 1)))
    with pytest.raises(UsageError, match=r"umbel\.partition\.continuous"):
        encode([0.1, 0.2])
