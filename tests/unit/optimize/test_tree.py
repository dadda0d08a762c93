"""Taking a state apart and putting it together."""

from __future__ import annotations

from collections import namedtuple
from dataclasses import dataclass, field
from typing import Any, NamedTuple, final

import pytest

from umbel import Arrays
from umbel.optimize.tree import leaves, remade

ARRAYS = Arrays({"w": [1.0, 2.0]})


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class State:
    m: Any
    steps: int = 0
    derived: int = field(default=7, init=False)


@final
class Pair(NamedTuple):
    first: Any
    second: Any


@pytest.mark.parametrize(
    ("tree", "expected"),
    [
        (None, [None]),
        ((), []),
        (ARRAYS, [ARRAYS]),
        (3, [3]),
        (State(m=ARRAYS), [ARRAYS, 0]),
        ({"a": 1, "b": [2, (3, State(m=4, steps=5))]}, [1, 2, 3, 4, 5]),
        (Pair(1, Pair(2, None)), [1, 2, None]),
    ],
    ids=repr,
)
def test_leaves_from_left_to_right_and_back(tree: Any, expected: list[Any]) -> None:
    assert leaves(tree) == expected
    again = remade(tree, iter(expected))
    assert again == tree
    assert type(again) is type(tree)
    numbered = remade(tree, iter(range(100)))
    assert leaves(numbered) == list(range(len(expected)))


def test_a_class_is_a_leaf() -> None:
    assert leaves([State, namedtuple]) == [State, namedtuple]
