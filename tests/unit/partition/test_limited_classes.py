from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from umbel.errors import UsageError
from umbel.partition import class_counts, pathological, shards

LABELS = np.repeat(np.arange(10), 600)


def test_shards_as_in_the_paper() -> None:
    """100 clients, 200 shards: 60 samples each, of at most 2 classes when shards do not cross classes."""
    parts = shards(LABELS, clients=100)
    assert set(parts.sizes.tolist()) == {60}
    seen = (class_counts(parts, LABELS) > 0).sum(axis=1)
    assert set(seen.tolist()) == {1, 2}


def test_no_sample_is_left_out_when_shards_do_not_divide() -> None:
    labels = np.arange(103) % 4
    parts = shards(labels, clients=10, per_client=3)
    assert parts.samples == 103
    assert parts.sizes.min() >= 9
    assert parts.sizes.max() <= 12


def test_pathological_pairs_vary() -> None:
    counts = class_counts(pathological(LABELS, clients=100, classes=2), LABELS)
    assert len({tuple(np.flatnonzero(row)) for row in counts}) > 25  # of 45 possible pairs
    assert set(counts[counts > 0].tolist()) == {30}
    one = class_counts(pathological(LABELS, clients=10, classes=1), LABELS)
    assert set(one.sum(axis=1).tolist()) == {600}
    everyone = class_counts(pathological(LABELS, clients=3, classes=10), LABELS)
    assert set(everyone.ravel().tolist()) == {200}


def test_a_rare_class_has_fewer_holders() -> None:
    labels = np.repeat([0, 1, 2], [2, 50, 50])
    holds = class_counts(pathological(labels, clients=10, classes=2), labels) > 0
    assert holds.sum(axis=0).tolist() == [2, 9, 9]


def test_seeds_differ() -> None:
    for scheme in (shards, pathological):
        assert len({scheme(LABELS, clients=10, seed=seed) for seed in range(20)}) == 20


@pytest.mark.parametrize(
    ("labels", "more", "message"),
    [
        ([0, 1, 2], {"clients": 2, "classes": 4}, "see 4 classes, but the labels have 3: 0, 1, 2"),
        (range(10), {"clients": 2, "classes": 2}, "2 clients x 2 classes cannot hold 10 classes.*at least 5 clients"),
        ([0, 0, 0, 1], {"clients": 3, "classes": 2}, "samples for 4: '1' have fewer samples"),
        ([0, 1], {"clients": 2, "classes": 0}, "classes=0"),
    ],
)
def test_an_impossible_pathological_request_is_refused(labels: Any, more: dict[str, int], message: str) -> None:
    with pytest.raises(UsageError, match=f"(?s){message}") as caught:
        pathological(labels, **more)
    assert caught.value.advice


def test_more_shards_than_samples_are_refused() -> None:
    with pytest.raises(UsageError, match=r"(?s)100 clients x 2 shards are 200 shards of 150 samples.*at most 75"):
        shards(np.arange(150) % 2, clients=100)
    with pytest.raises(UsageError, match="per_client=0"):
        shards(LABELS, clients=2, per_client=0)
