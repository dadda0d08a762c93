from __future__ import annotations

import numpy as np
import pytest
from scipy import stats
from scipy.spatial import distance

from umbel.errors import UsageError
from umbel.partition import Partition, class_counts, dirichlet, earth_movers, jensen_shannon, pathological

LABELS = np.repeat(np.arange(10), 600)


@pytest.mark.parametrize(("classes", "published"), [(1, 1.8), (2, 1.6)])
def test_earth_movers_of_the_paper(classes: int, published: float) -> None:
    """Zhao et al. 2018 (arXiv:1806.00582), 10 clients with 1 or 2 of 10 equal classes: EMD 1.8 and 1.6."""
    found = earth_movers(pathological(LABELS, clients=10, classes=classes), LABELS)
    np.testing.assert_allclose(found.clients, published, rtol=1e-12)
    assert found.mean == pytest.approx(published)


def test_divergences_agree_with_scipy() -> None:
    labels = np.random.default_rng(0).integers(0, 7, 5000) ** 2
    parts = dirichlet(labels, clients=12, alpha=0.2, seed=3)
    counts = class_counts(parts, labels)
    mixes, population = counts / counts.sum(axis=1, keepdims=True), counts.sum(axis=0) / counts.sum()
    shannon = [distance.jensenshannon(mix, population, base=2) ** 2 for mix in mixes]
    np.testing.assert_allclose(jensen_shannon(parts, labels).clients, shannon, atol=1e-12)
    # With a distance of 1 between any two classes the transport cost is the total variation: half of Zhao's sum.
    corners = np.eye(7) / np.sqrt(2)  # seven points, each at a distance of 1 from all others
    movers = [2 * stats.wasserstein_distance_nd(corners, corners, mix, population) for mix in mixes]
    np.testing.assert_allclose(earth_movers(parts, labels).clients, movers, atol=1e-7)
    for found in (earth_movers(parts, labels), jensen_shannon(parts, labels)):
        assert found.mean == pytest.approx(np.average(found.clients, weights=parts.sizes))


def test_class_counts() -> None:
    parts = Partition([[0, 3], [1], []])
    np.testing.assert_array_equal(class_counts(parts, ["b", "a", "c", "b"]), [[0, 2, 0], [1, 0, 0], [0, 0, 0]])


def test_a_client_without_samples_has_no_distribution() -> None:
    parts = Partition([[0, 3], [1], []])
    for measure in (earth_movers, jensen_shannon):
        found = measure(parts, [0, 1, 2, 0])
        assert np.isnan(found.clients).tolist() == [False, False, True]
        assert 0 < found.mean < 2
        assert np.isnan(measure(Partition([[]]), [0]).mean)


def test_labels_of_other_samples_are_refused() -> None:
    with pytest.raises(UsageError, match="Client 'b' has index 7, but there are 5 labels") as caught:
        class_counts(Partition([[1], [2, 7]], ["a", "b"]), [0, 1, 0, 1, 0])
    assert caught.value.advice
