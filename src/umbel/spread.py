"""Work on large arrays, shared out among threads: NumPy lets go of the interpreter while it computes.

Who does what does not show in the result: each element is computed from the same others, in the same order.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

import numpy as np

PART = 1 << 21  # elements that one thread works on at a time
Spread = Callable[[Callable[[int], None], Iterable[int]], None]


def one_by_one(call: Callable[[int], None], arguments: Iterable[int]) -> None:
    """Share nothing out: the calling thread does it all."""
    for argument in arguments:
        call(argument)


_spread: list[Spread] = [one_by_one]


@contextmanager
def spreading(spread: Spread) -> Iterator[None]:
    """Work on large arrays is shared out.

    Args:
        spread: calls a function with each of some arguments, and returns when all calls have.
    """
    before, _spread[0] = _spread[0], spread
    try:
        yield
    finally:
        _spread[0] = before


def in_parts(size: int, work: Callable[[slice], object]) -> bool:
    """Do something with elements that do not depend on each other; with many of them in several threads.

    Args:
        size: how many there are.
        work: called with slices that make up all of them, without warnings of NumPy.

    Returns:
        Did each call return True?
    """
    if size <= PART:
        with np.errstate(all="ignore"):
            return work(slice(0, size)) is True
    said: list[bool] = []

    def do(begin: int) -> None:
        with np.errstate(all="ignore"):  # each thread has its own
            said.append(work(slice(begin, min(begin + PART, size))) is True)

    _spread[0](do, range(0, size, PART))
    return all(said)


__all__ = ["PART", "Spread", "in_parts", "one_by_one", "spreading"]
