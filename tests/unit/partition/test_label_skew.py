from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy import stats

from umbel.errors import UsageError
from umbel.partition import class_counts, dirichlet, distribution, earth_movers, inner_dirichlet

LABELS = np.repeat(np.arange(10), 600)


@pytest.mark.parametrize("alpha", [0.1, 1.0, 10.0])
def test_dirichlet_shares_follow_the_dirichlet_distribution(alpha: float) -> None:
    """A client's share of a class is Beta(alpha, (N - 1) alpha): SciPy's distribution against 500 classes."""
    classes, each, clients = 500, 1000, 5
    labels = np.repeat(np.arange(classes), each)
    counts = class_counts(dirichlet(labels, clients=clients, alpha=alpha, seed=11, min_size=0), labels)
    shares = counts[2] / each
    for bound in (0.0105, 0.0505, 0.1505, 0.2505, 0.5005, 0.9005):  # between two whole numbers of samples
        expected = stats.beta(alpha, (clients - 1) * alpha).cdf(bound)
        error = 4 * np.sqrt(expected * (1 - expected) / classes) + 0.01
        assert abs((shares < bound).mean() - expected) < error
    assert abs(np.cov(counts[0] / each, counts[1] / each)[0, 1] + 1 / (clients**2 * (clients * alpha + 1))) < 0.01


def test_one_alpha_per_client() -> None:
    counts = class_counts(dirichlet(LABELS, clients=3, alpha=[0.001, 1e5, 3e5], seed=2), LABELS)
    assert counts[0].sum() < 50
    np.testing.assert_allclose(counts[1], 150, atol=5)
    np.testing.assert_allclose(counts[2], 450, atol=5)


def test_alpha_moves_from_one_client_per_class_to_all_alike() -> None:
    movers = [
        earth_movers(dirichlet(LABELS, clients=20, alpha=alpha, seed=4), LABELS).mean
        for alpha in (1e-300, 0.1, 1.0, 100.0, 1e300)
    ]
    assert movers == sorted(movers, reverse=True)
    assert movers[-1] == pytest.approx(0, abs=0.02)
    lone = class_counts(dirichlet(LABELS, clients=20, alpha=1e-300, seed=4, min_size=0), LABELS)
    assert ((lone > 0).sum(axis=0) == 1).all()


def test_balanced_keeps_the_skew_and_evens_the_sizes() -> None:
    parts = dirichlet(LABELS, clients=7, alpha=0.1, balanced=True, seed=1)
    assert set(parts.sizes.tolist()) == {857, 858}
    assert earth_movers(parts, LABELS).mean > 0.8


def test_another_class_does_not_change_a_class() -> None:
    rest = LABELS[LABELS != 4]
    with_all = class_counts(dirichlet(LABELS, clients=9, alpha=0.3, seed=1, min_size=0), LABELS)
    without = class_counts(dirichlet(rest, clients=9, alpha=0.3, seed=1, min_size=0), rest)
    np.testing.assert_array_equal(np.delete(with_all, 4, axis=1), without)


def test_seeds_differ() -> None:
    assert len({dirichlet(LABELS, clients=10, alpha=0.3, seed=seed) for seed in range(20)}) == 20
    assert len({inner_dirichlet(LABELS, clients=10, alpha=0.3, seed=seed) for seed in range(20)}) == 20


def test_inner_dirichlet_mixes_follow_the_distribution_while_classes_last() -> None:
    """One client of a tenth of the samples: its share of a class is Beta(alpha, (K - 1) alpha)."""
    shares = []
    for seed in range(300):
        parts = inner_dirichlet(LABELS, clients=2, alpha=0.5, sizes=[400, 5600], seed=seed)
        shares.append(class_counts(parts, LABELS)[0, 3] / 400)
    for bound in (0.01125, 0.05125, 0.10125, 0.30125):
        expected = stats.beta(0.5, 4.5).cdf(bound)
        assert abs(np.mean(np.array(shares) < bound) - expected) < 4 * np.sqrt(expected * (1 - expected) / 300) + 0.02


def test_inner_dirichlet_takes_sizes_and_one_alpha_per_class() -> None:
    sizes = np.random.default_rng(0).lognormal(0, 1, 12)
    parts = inner_dirichlet(LABELS, clients=12, alpha=0.3, sizes=sizes, seed=1)
    np.testing.assert_allclose(parts.sizes, sizes / sizes.sum() * 6000, atol=1)
    hsu = inner_dirichlet(LABELS, clients=12, alpha=1e9 * np.full(10, 0.1), seed=1)
    assert earth_movers(hsu, LABELS).mean < 0.05


def test_inner_dirichlet_gives_each_class_its_own_alpha() -> None:
    labels = np.repeat([0, 1, 2], [2100, 600, 300])
    parts = inner_dirichlet(labels, clients=2, alpha=1e9 * np.array([0.7, 0.2, 0.1]), sizes=[100, 2900], seed=1)
    assert class_counts(parts, labels)[0].tolist() == [70, 20, 10]


def test_inner_dirichlet_goes_on_when_classes_are_used_up() -> None:
    """Two clients that want one class each; sampling would divide 0 by 0."""
    labels = np.repeat([0, 1], [1, 99])
    parts = inner_dirichlet(labels, clients=2, alpha=[1e300, 1e-300])
    assert parts.sizes.tolist() == [50, 50]


TABLE = [[1, 1, 2], [0, 0, 4]]


def test_distribution_of_counts_is_exact() -> None:
    labels = ["cat"] * 4 + ["dog"] * 4
    parts = distribution(labels, TABLE, seed=3)
    np.testing.assert_array_equal(class_counts(parts, labels), np.transpose(TABLE))
    assert parts == distribution(labels, {"dog": TABLE[1], "cat": TABLE[0]}, clients=3, seed=3)
    assert distribution(labels, TABLE, clients=["a", "b", "c"]).names == ("a", "b", "c")


def test_distribution_of_shares_uses_every_sample() -> None:
    labels = [0] * 7 + [1] * 5
    counts = class_counts(distribution(labels, [[0.2, 0.2, 0.4], [1e-9, 0.0, 1e308]]), labels)
    assert counts.sum(axis=0).tolist() == [7, 5]
    assert counts[2].tolist() == [4, 5] or counts[2].tolist() == [3, 5]
    assert distribution(labels, [[1.0, 0], [1.0, 0]], min_size=3).sizes.tolist() == [9, 3]


@pytest.mark.parametrize(
    ("table", "more", "message"),
    [
        ([[1, 1, 2], [0, 0, 3]], {}, "class 'dog' sums to 3 .* has 4 samples"),
        ([[1, 1, 2], [5, -1, 0]], {}, "class 'dog' sums to 4 and goes from -1 to 5"),
        ([[0.0, 0.0], [1, 1]], {}, "class 'cat' sums to 0 "),
        ([[1.0, np.nan], [1, 1]], {}, "class 'cat' sums to nan"),
        ([[1.0, -0.5], [1, 1]], {}, "class 'cat' sums to 0.5 and goes from -0.5"),
        ([1, 2], {}, r"shape \(2,\), and the labels have 2 classes: cat, dog"),
        ([[1, 1]], {}, r"shape \(1, 2\)"),
        ([[], []], {}, r"shape \(2, 0\)"),
        ([["a"], ["b"]], {}, "The table is <U1"),
        ({"cat": [4]}, {}, "no row for class dog"),
        ({"cat": [4], "dog": [4], "cow": [4]}, {}, "a row for cow, of which there are no samples"),
        (TABLE, {"clients": 2}, "3 columns for 2 clients"),
        (TABLE, {"min_size": 3}, "8 samples cannot give 3 clients at least 3 each"),
    ],
)
def test_a_table_that_does_not_fit_is_refused(table: Any, more: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        distribution(["cat"] * 4 + ["dog"] * 4, table, **more)
    assert caught.value.advice


@pytest.mark.parametrize(
    ("alpha", "message"),
    [
        (0, "alpha is 0"),
        (-1.0, "alpha is -1"),
        (1e-301, "alpha is 1e-301"),
        (float("inf"), "alpha is inf"),
        (float("nan"), "alpha is nan"),
        ([0.1, 0.0, 1], "alpha is 0 for client '1'"),
        ([0.1, 0.2], r"shape \(2,\) for 3 of them, one per client"),
        ("0.3", "alpha is <U3"),
    ],
)
def test_an_alpha_out_of_range_is_refused(alpha: Any, message: str) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        dirichlet(LABELS, clients=3, alpha=alpha)
    assert caught.value.advice


def test_an_impossible_request_says_what_to_do() -> None:
    with pytest.raises(UsageError) as caught:
        dirichlet(np.arange(10) % 3, clients=20, alpha=0.3)
    assert caught.value.what == "10 samples cannot give 20 clients at least 1 each: that takes 20."
    assert caught.value.advice == "Ask for at most 10 clients, or set min_size=0, which allows empty clients."
    with pytest.raises(UsageError, match="Ask for at most 2 clients, or set min_size=3 or less"):
        dirichlet(np.arange(10) % 3, clients=3, alpha=0.3, min_size=4)
    with pytest.raises(UsageError, match="Set min_size=3 or less"):
        dirichlet(np.arange(10) % 3, clients=3, alpha=0.3, min_size=40)
    with pytest.raises(UsageError, match="min_size=-1"):
        dirichlet(LABELS, clients=3, alpha=0.3, min_size=-1)
    assert dirichlet(np.arange(10) % 3, clients=20, alpha=0.3, min_size=0).samples == 10
