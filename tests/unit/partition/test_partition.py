from __future__ import annotations

import copy
import pickle
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import pytest

from umbel.errors import UsageError
from umbel.partition import Partition, iid

PARTS = Partition([[4, 2], [], [7]], ["berlin", "paris", "rome"])


def test_it_is_a_sequence_of_sorted_int64_arrays() -> None:
    assert isinstance(PARTS, Sequence)
    assert [part.tolist() for part in PARTS] == [[2, 4], [], [7]]
    assert all(part.dtype == np.int64 for part in PARTS)
    assert PARTS.names == ("berlin", "paris", "rome")
    assert PARTS.sizes.tolist() == [2, 0, 1]
    assert PARTS.samples == 3


def test_clients_are_found_by_position_and_by_name() -> None:
    assert PARTS[0] is not None
    assert PARTS["berlin"].tolist() == PARTS[0].tolist() == PARTS[-3].tolist() == PARTS[np.int32(0)].tolist()
    assert "paris" in PARTS
    assert "london" not in PARTS
    assert [7] in PARTS
    assert PARTS.index("rome") == PARTS.index([7]) == PARTS.index("rome", 1) == 2
    assert PARTS.count([7]) == PARTS.count("rome") == 1
    with pytest.raises(ValueError, match="no client"):
        PARTS.index("rome", 0, 1)


def test_an_unknown_client_is_named() -> None:
    with pytest.raises(KeyError, match=r"no client is named 'london'.*'berlin', 'paris', 'rome'"):
        PARTS["london"]
    with pytest.raises(IndexError, match=r"no client at position 3.* 3 clients"):
        PARTS[3]
    with pytest.raises(IndexError, match="no client at position -4"):
        PARTS[-4]


def test_a_slice_is_a_partition_of_fewer_clients() -> None:
    assert PARTS[::2] == Partition([[2, 4], [7]], ["berlin", "rome"])
    assert len(PARTS[3:]) == 0


def test_it_is_frozen() -> None:
    for field in ("names", "shared", "_flat"):
        with pytest.raises(AttributeError):
            setattr(PARTS, field, None)
    with pytest.raises(ValueError, match="read-only"):
        PARTS[0][0] = 1


def pickled(parts: Partition) -> Any:
    return pickle.loads(pickle.dumps(parts))  # noqa: S301 - our own bytes


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy, pickled])
def test_a_copy_is_equal_and_frozen(copied: Any) -> None:
    parts = Partition([[1], [0]], shared=[5])
    other = copied(parts)
    assert other == parts
    assert hash(other) == hash(parts)
    assert not other[0].flags.writeable


def test_equality_sees_names_indexes_and_what_is_shared() -> None:
    assert Partition([[1], [2]]) == Partition([[1], [2]], ["0", "1"])
    assert Partition([[1], [2]]) != Partition([[1], [2]], ["a", "b"])
    assert Partition([[1], [2]]) != Partition([[1, 2], []])
    assert Partition([[1, 3], [2, 3]], shared=[3]) != Partition([[1], [2]])
    assert Partition([[1]]) != [[1]]


def test_repr_says_how_large_clients_are() -> None:
    assert repr(PARTS) == "Partition(3 clients, 3 samples; per client min 0, median 1, max 2)"
    assert repr(PARTS[:1]) == "Partition(1 client, 2 samples; per client min 2, median 2, max 2)"
    assert repr(Partition([])) == "Partition(0 clients)"


def test_shared_indexes_belong_to_all() -> None:
    parts = Partition([[5, 1], [2]], shared=[5, 0])
    assert [part.tolist() for part in parts] == [[0, 1, 5], [0, 2, 5]]
    assert parts.shared.tolist() == [0, 5]
    assert parts.samples == 4
    assert parts[:1].samples == 3


@pytest.mark.parametrize(
    ("indexes", "names", "message"),
    [
        ([[1, 2], [3], [2]], ["a", "b", "c"], r"Index 2 belongs to the clients 'a', 'c'\."),
        ([[1, 2], [2, 1]], ["a", "b"], r"Index 1 belongs to the clients 'a', 'b'; so do 1 more indexes\."),
        ([[1], [3, 3]], ["a", "b"], r"Client 'b' lists index 3 2 times\."),
        ([[1], [-3, 2]], ["a", "b"], "client 'b' contain -3"),
        ([[1], [0.5]], ["a", "b"], "client 'b' are not a flat list of integers but float64"),
        ([[1], [[2]]], ["a", "b"], r"client 'b' are not .* shape \(1, 1\)"),
        ([[True, False]], ["a"], "not a flat list of integers but bool"),
        ([[1], [2]], ["a"], "2 index arrays for 1 client names"),
        ([[1], [2]], ["a", "a"], "'a' occurs twice"),
        ([[1]], [""], "'' is not a client's name"),
        ([[1]], [1], "1 is not a client's name"),
    ],
)
def test_what_is_no_partition_is_refused(indexes: Any, names: Any, message: str) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        Partition(indexes, names)
    assert caught.value.advice


@pytest.mark.parametrize(
    ("clients", "message"),
    [
        (0, "clients=0"),
        (-3, "clients=-3"),
        (2.5, "clients=2.5 is neither"),
        (True, "clients=True is neither"),
        ("ten", "clients='ten' is neither"),
        ([], "no clients"),
        (["a", "b", "a"], "'a' occurs twice"),
        ({"a", "b"}, "clients={'.', '.'} is neither"),
        ([1, 2], "1 is not a client's name"),
    ],
)
def test_clients_that_are_none(clients: Any, message: str) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        iid(10, clients=clients)
    assert caught.value.advice


@pytest.mark.parametrize("seed", [-1, 1.0, "7", None, True])
def test_a_seed_that_is_none(seed: Any) -> None:
    with pytest.raises(UsageError, match="seed=") as caught:
        iid(10, clients=2, seed=seed)
    assert caught.value.advice


@pytest.mark.parametrize("names", [("a", "b"), np.array(["a", "b"]), pd.Index(["a", "b"]), pd.Series(["a", "b"])])
def test_names_in_other_containers(names: Any) -> None:
    parts = iid(4, clients=names)
    assert parts.names == ("a", "b")
    assert {type(name) for name in parts.names} == {str}


def test_a_numpy_seed_is_its_number() -> None:
    assert iid(10, clients=2, seed=3) == iid(10, clients=np.int64(2), seed=np.uint8(3))  # type: ignore[arg-type]  # as users write it
