"""Memory that is lent again when nobody looks at it any more."""

from __future__ import annotations

import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

from umbel.arrays import Arrays
from umbel.buffers import allocating
from umbel.simulation.broadcast import Broadcast
from umbel.simulation.recycler import Recycler
from umbel.simulation.rests import Rests

LARGE = 1 << 20


def address(array: np.ndarray) -> int:
    return array.ctypes.data


def test_a_piece_is_lent_again_when_nobody_looks_at_it() -> None:
    recycler = Recycler()
    first, second = recycler.lend(LARGE), recycler.lend(LARGE)
    assert first is not None
    assert second is not None
    assert not np.shares_memory(first, second)
    where, view = address(first), first[5:9]
    del first
    third = recycler.lend(LARGE)
    assert third is not None
    assert address(third) != where, "a view of it is left"
    del view
    fourth = recycler.lend(LARGE)
    assert fourth is not None
    assert address(fourth) == where


def test_it_is_aligned_and_can_be_written() -> None:
    piece = Recycler().lend(LARGE + 5)
    assert piece is not None
    assert (piece.size, address(piece) % 64) == (LARGE + 5, 0)
    piece[:] = 7


def test_little_ones_are_not_its_business() -> None:
    assert Recycler().lend(LARGE - 1) is None


def test_few_pieces_lie_idle() -> None:
    recycler = Recycler()
    for size in range(LARGE, LARGE + 10):
        recycler.lend(size)
    assert len(recycler._pieces) <= 3


def test_arrays_stay_as_they_are_as_long_as_anyone_looks() -> None:
    with allocating(Recycler().lend):
        kept = [Arrays({"w": np.full(LARGE, n, "f4")}) for n in range(3)]
        views = [Arrays({"w": np.full(LARGE, n, "f4")})["w"][:3] for n in range(3)]
        for n in range(10, 13):
            Arrays({"w": np.full(LARGE, n, "f4")})
    assert [arrays["w"][-1] for arrays in kept] == [0, 1, 2]
    assert [view.tolist() for view in views] == [[n] * 3 for n in range(3)]


@pytest.mark.parametrize("make", [Recycler, lambda: Broadcast(Rests())])
def test_no_two_threads_are_lent_the_same_piece(make: Callable[[], Any]) -> None:
    lender, before = make(), sys.getswitchinterval()

    def work(number: int) -> bool:
        for _ in range(100):
            piece = lender.lend(LARGE)
            if piece is None:  # this system's shared memory is not lent
                return True
            piece[:] = number  # which lets other threads go on
            if (piece != number).any():
                return False
        return True

    sys.setswitchinterval(1e-6)
    try:
        with ThreadPoolExecutor(4) as threads:
            assert all(threads.map(work, range(4)))
    finally:
        sys.setswitchinterval(before)
