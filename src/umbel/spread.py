"""Work on large arrays, shared out among processes and threads: NumPy lets go of the interpreter while it computes.

Who does what does not show in the result: each element is computed from the same others, in the same order.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, final

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
LARGE = 1 << 21  # elements; with fewer the others would come too late
PART = 1 << 19  # elements that one thread or process works on at a time
Work = Callable[[slice], object]
Spread = Callable[[Work, Sequence[slice]], bool]


@final
@dataclass(frozen=True, slots=True, eq=False)
class Elementwise:
    """Something done to an array, element by element, in words that another process understands.

    Attributes:
        compute: called as ``compute(stretch of out, stretch of each input, **options)``; it goes to other processes by
            its name.
        out: the array, flat; what it was before may be read.
        inputs: flat arrays of its length that are read.
        options: whatever is the same for all elements.
    """

    compute: Callable[..., object]
    out: Array
    inputs: Sequence[Array] = ()
    options: Mapping[str, Any] = field(default_factory=dict)

    def __call__(self, part: slice) -> object:
        """Do it to these elements."""
        return self.compute(self.out[part], *[array[part] for array in self.inputs], **self.options)


def do_part(work: Work, part: slice) -> bool:
    """Do it to these elements, without warnings of NumPy. Was True returned?"""
    with np.errstate(all="ignore"):  # each thread has its own
        return work(part) is True


def one_by_one(work: Work, parts: Sequence[slice]) -> bool:
    """Share nothing out: the calling thread does it all."""
    said = [do_part(work, part) for part in parts]
    return all(said)


_spread: list[Spread] = [one_by_one]


@contextmanager
def spreading(spread: Spread) -> Iterator[None]:
    """Work on large arrays is shared out.

    Args:
        spread: does each of some parts with `do_part`, and returns when all are done: did each return True?
    """
    before, _spread[0] = _spread[0], spread
    try:
        yield
    finally:
        _spread[0] = before


def in_parts(size: int, work: Work) -> bool:
    """Do something with elements that do not depend on each other; with many of them in several places.

    Args:
        size: how many there are.
        work: called with slices that make up all of them, without warnings of NumPy; an `Elementwise` may be done in
            other processes, too.

    Returns:
        Did each call return True?
    """
    if size <= LARGE:
        return do_part(work, slice(0, size))
    return _spread[0](work, [slice(begin, min(begin + PART, size)) for begin in range(0, size, PART)])


__all__ = ["PART", "Elementwise", "Spread", "Work", "do_part", "in_parts", "one_by_one", "spreading"]
