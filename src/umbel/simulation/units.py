"""What a worker takes from the board at once."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from typing import final


def in_short(numbers: Sequence[int]) -> Sequence[int]:
    """These numbers; as a range if they count up, which takes next to nothing to send."""
    if isinstance(numbers, range) or not numbers:
        return numbers
    up = range(numbers[0], numbers[0] + len(numbers))
    return up if [*up] == numbers else numbers


@final
class Units:
    """Tasks that are done together, from where to where, by number.

    Args:
        begins: of each, its first task.
        ends: of each, the task behind its last one.
    """

    def __init__(self, begins: Sequence[int] = (), ends: Sequence[int] = ()) -> None:
        self._begins, self._ends = in_short(begins), in_short(ends)

    @classmethod
    def of(cls, sizes: Sequence[int], first: int) -> Units:
        """So many tasks at a time, from this one on."""
        if sizes.count(1) == len(sizes):
            return cls(range(first, first + len(sizes)), range(first + 1, first + 1 + len(sizes)))
        bounds = [*accumulate(sizes, initial=first)]
        return cls(bounds[:-1], bounds[1:])

    def __len__(self) -> int:
        return len(self._begins)

    def __getitem__(self, number: int) -> range:
        return range(self._begins[number], self._ends[number])

    def __reduce__(self) -> tuple[type[Units], tuple[Sequence[int], Sequence[int]]]:
        return Units, (self._begins, self._ends)

    @property
    def begins(self) -> Sequence[int]:
        """Of each, its first task."""
        return self._begins

    def since(self, number: int) -> Units:
        """Those from this number on."""
        return Units(self._begins[number:], self._ends[number:])

    def extend(self, others: Units) -> None:
        """There are more."""
        self._begins = in_short([*self._begins, *others._begins]) if self._begins else others._begins
        self._ends = in_short([*self._ends, *others._ends]) if self._ends else others._ends

    def singles(self, numbers: Sequence[int]) -> Sequence[int] | None:
        """The tasks of these units, if each has but one."""
        tasks = [self._begins[number] for number in numbers]
        return in_short(tasks) if [task + 1 for task in tasks] == [self._ends[number] for number in numbers] else None


__all__ = ["Units", "in_short"]
