from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from umbel.errors import UsageError
from umbel.partition import vertical

COLUMNS = ["id", "age", "income", "rent", "calls", "data"]


def test_columns_in_order() -> None:
    parts = vertical(COLUMNS, clients=["bank", "telco"], shared=["id"], sizes=[3, 2], shuffle=False)
    own = [[COLUMNS[at] for at in part] for part in parts]
    assert own == [
        ["id", "age", "income", "rent"],
        ["id", "calls", "data"],
    ]
    assert parts.shared.tolist() == [0]
    assert vertical(6, clients=["bank", "telco"], shared=[0], sizes=[3, 2], shuffle=False) == parts
    table = np.arange(12).reshape(2, 6)
    assert table[:, parts["telco"]].tolist() == [[0, 4, 5], [6, 10, 11]]


def test_columns_at_random_and_shares() -> None:
    assert len({vertical(12, clients=3, seed=seed) for seed in range(20)}) == 20
    assert vertical(12, clients=2, sizes=[0.75, 0.25]).sizes.tolist() == [9, 3]
    assert vertical(2, clients=3, shared=[1]).sizes.tolist() == [2, 1, 1]


@pytest.mark.parametrize(
    ("columns", "more", "message"),
    [
        (2, {}, "2 columns cannot give 3 clients one each"),
        (COLUMNS, {"shared": ["name"]}, "no column 'name' to share; the columns are id, age, income and 3 more"),
        (COLUMNS, {"shared": "name"}, "no column 'name' to share"),
        (5, {"shared": [5]}, "no column 5 to share"),
        (["a", "b", "a"], {}, "Two columns are called 'a'"),
        (0, {}, "columns=0 is neither"),
        ("abc", {}, "columns='abc' is neither"),
        ([], {}, r"columns=\[\] is neither"),
        (2.5, {}, "columns=2.5 is neither"),
        ({"a", "b"}, {}, "columns={.*} is neither"),
        (5, {"sizes": [1, 1, 1]}, "sizes sum to 3, but there are 5 columns"),
    ],
)
def test_errors(columns: Any, more: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        vertical(columns, clients=3, **more)
    assert caught.value.advice
