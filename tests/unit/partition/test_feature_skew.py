from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest

from umbel.errors import UsageError
from umbel.partition import continuous

VALUES = np.random.default_rng(0).normal(size=5000)


def kept(strictness: float) -> float:
    """The share of samples that are in their own quantile bin."""
    pure = continuous(VALUES, clients=5, seed=1)
    parts = continuous(VALUES, clients=5, strictness=strictness, seed=2)
    return sum(int(np.isin(part, bin_).sum()) for part, bin_ in zip(parts, pure, strict=True)) / VALUES.size


@pytest.mark.parametrize("strictness", [0.0, 0.3, 0.8, 1.0])
def test_strictness_is_the_share_that_stays(strictness: float) -> None:
    assert kept(strictness) == pytest.approx(strictness + (1 - strictness) / 5, abs=0.02)


def test_only_the_order_of_values_matters() -> None:
    parts = continuous(VALUES, clients=5, strictness=0.7, seed=3)
    assert continuous(np.exp(VALUES), clients=5, strictness=0.7, seed=3) == parts
    outlier = np.where(VALUES.max() == VALUES, np.inf, VALUES)
    assert continuous(outlier, clients=5, strictness=0.7, seed=3) == parts
    assert continuous(list(VALUES), clients=5, strictness=0.7, seed=3) == parts
    assert continuous(VALUES.astype(object), clients=5, strictness=0.7, seed=3) == parts


def test_dates_sizes_and_equal_values() -> None:
    days = pd.date_range("2024-01-01", periods=10)
    assert continuous(days, clients=["early", "late"], sizes=[3, 7])["early"].tolist() == [0, 1, 2]
    assert continuous(np.ones(10), clients=3).sizes.tolist() == [4, 3, 3]


@pytest.mark.parametrize(
    ("values", "more", "message"),
    [
        ([1.0, np.nan, np.nan], {}, r"values\[1\] is missing, as 2 of 3 are"),
        ([1.0, None], {}, r"values\[1\] is None, which is no number"),
        (["a", "b"], {}, r"values\[0\] is 'a', which is no number"),
        (np.array(["2020-01-01", "NaT"], "M8[D]"), {}, r"values\[1\] is missing"),
        ([[1.0]], {}, r"shape \(1, 1\)"),
        ([], {}, "There are no values"),
        ([1.0, 2.0], {"strictness": 1.5}, "strictness is 1.5"),
        ([1.0, 2.0], {"strictness": "high"}, "strictness is 'high'"),
        ([1.0, 2.0], {"clients": 3}, "2 samples cannot give 3 clients"),
    ],
)
def test_errors(values: Any, more: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        continuous(values, **({"clients": 1} | more))
    assert caught.value.advice
