from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from umbel.errors import UsageError
from umbel.partition import class_counts, exponential, iid, linear, sizes, square

CLIENTS = 10
EXACT = {
    linear: [60000 * i / 55 for i in range(1, 11)],
    square: [60000 * i**2 / 385 for i in range(1, 11)],
    exponential: [60000 * math.exp(i) / sum(map(math.exp, range(10))) for i in range(10)],
}


@pytest.mark.parametrize("scheme", EXACT, ids=lambda scheme: scheme.__name__)
def test_sizes_are_the_quotas_rounded(scheme: Any) -> None:
    each = scheme(60000, clients=CLIENTS).sizes
    assert np.abs(each - EXACT[scheme]).max() < 1
    assert each.sum() == 60000


def test_iid_is_random_also_for_sorted_labels() -> None:
    labels = np.repeat(np.arange(10), 100)
    for data in (labels, len(labels)):
        counts = class_counts(iid(data, clients=10), labels)
        assert counts.max() < 30  # 10 expected, standard deviation 2.9
        assert (counts.sum(axis=1) == 100).all()
    assert iid(11, clients=4).sizes.tolist() == [3, 3, 3, 2]


def test_explicit_sizes_and_shares() -> None:
    assert sizes(10, [7, 0, 3]).sizes.tolist() == [7, 0, 3]
    assert sizes(10, [0.5, 0.25, 0.25], clients=["a", "b", "c"]).sizes.tolist() == [5, 3, 2]
    assert sizes(10, [1e300, 1e-300]).sizes.tolist() == [9, 1]
    assert sizes(10, [1e300, 0.0], min_size=0).sizes.tolist() == [10, 0]


def test_exponential_is_steep_but_leaves_nobody_empty() -> None:
    each = exponential(100_000, clients=5000).sizes
    assert each.min() == 1
    assert each[-1] == 58_224  # 63.2 % of them, less 4,988 that the others lack for one each
    assert exponential(1000, clients=100, growth=1e-300).sizes[0] == 901
    gentle = exponential(100_000, clients=100, growth=1.05).sizes
    assert gentle[-1] / gentle[0] == pytest.approx(1.05**99, rel=0.05)


def test_seeds_differ() -> None:
    assert len({iid(50, clients=5, seed=seed) for seed in range(20)}) == 20


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ([3, 3], "sum to 6, but there are 10 samples.*parts"),
        ([30, 3], "sum to 33, but there are 10 samples"),
        ([11, -1], "size of client '1' is .*-1"),
        ([0.5, float("nan")], "size of client '1' is .*nan"),
        ([0.0, 0.0], "All sizes are 0"),
        ([[5, 5]], r"shape \(1, 2\) for 2 clients"),
        (["a", "b"], "size of client '0' is .*a"),
        ([True, False], "size of client '0' is .*True"),
    ],
)
def test_sizes_that_do_not_do(given: Any, message: str) -> None:
    with pytest.raises(UsageError, match=f"(?s){message}") as caught:
        sizes(10, given)
    assert caught.value.advice


@pytest.mark.parametrize("growth", [0, -1, float("inf"), float("nan"), "e"])
def test_growth_out_of_range(growth: Any) -> None:
    with pytest.raises(UsageError, match="growth is"):
        exponential(10, clients=2, growth=growth)


def test_no_samples() -> None:
    with pytest.raises(UsageError, match="There are 0 samples"):
        iid(0, clients=1)
    with pytest.raises(UsageError, match="labels are one bool"):
        iid(True, clients=1)
