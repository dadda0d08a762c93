from __future__ import annotations

import numpy as np
import pytest

from umbel.errors import UsageError
from umbel.partition import natural, natural_groups

IDS = ["rome", "paris", "rome", "berlin", "rome"]


def test_natural_clients_are_named_and_ordered_by_their_ids() -> None:
    parts = natural(IDS)
    assert parts.names == ("berlin", "paris", "rome")
    assert parts["rome"].tolist() == [0, 2, 4]
    assert natural([10, 9, 10]).names == ("9", "10")
    assert natural(IDS[::-1]).names == parts.names


def test_groups_do_not_depend_on_the_order_of_samples() -> None:
    ids = np.random.default_rng(0).integers(0, 30, 200)
    first, second = natural_groups(ids, clients=4, seed=1), natural_groups(ids[::-1], clients=4, seed=1)
    assert [set(ids[part]) for part in first] == [set(ids[::-1][part]) for part in second]


def test_groups_balance_ids_or_samples() -> None:
    ids = np.repeat(np.arange(20), 2 ** (np.arange(20) % 5))
    by_ids = natural_groups(ids, clients=5, seed=2)
    assert [len(set(ids[part])) for part in by_ids] == [4] * 5
    by_samples = natural_groups(ids, clients=4, balance="samples", seed=2)
    assert by_samples.sizes.tolist() == [31] * 4
    largest_first = natural_groups([0, 1, 2, 3, 4, 4, 4, 4], clients=2, balance="samples", seed=2)
    assert largest_first.sizes.tolist() == [4, 4]


def test_seeds_differ() -> None:
    ids = np.arange(40)
    assert len({natural_groups(ids, clients=5, seed=seed) for seed in range(20)}) == 20
    assert len({natural_groups(ids, clients=5, balance="samples", seed=seed) for seed in range(20)}) == 20


def test_errors() -> None:
    with pytest.raises(UsageError, match=r"(?s)3 different ids cannot make 4 clients.*at most 3"):
        natural_groups(IDS, clients=4)
    with pytest.raises(UsageError, match=r"ids\[1\] is missing"):
        natural(["a", None])  # type: ignore[arg-type]  # the mistake
    with pytest.raises(UsageError, match="balance='size'"):
        natural_groups(IDS, clients=2, balance="size")  # type: ignore[arg-type]  # the mistake
    with pytest.raises(UsageError, match="'' is not a client's name"):
        natural(["a", ""])
