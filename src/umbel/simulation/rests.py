"""Who of the workers has let go of an exchange, and what of the broadcast memory is still looked at."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import final

from umbel.simulation.messages import Rest

Piece = tuple[int, int]


@final
class Rests:
    """What the workers of a pool hold of its exchanges, which follow each other.

    A worker says that it rests, and may have been told of more before it was heard; so what it says counts only if it
    had heard of all that it was told.
    """

    def __init__(self) -> None:
        self._exchange = self._told = 0
        self._resting: set[int] = set()
        self._ending: dict[int, tuple[int, int]] = {}  # what those have to say who have not let go of the last one
        self._held: dict[int, Sequence[Piece]] = {}

    @property
    def pending(self) -> bool:
        """Does a worker still hold the exchange that ended, so that nothing may be written over it?"""
        return bool(self._ending)

    @property
    def held(self) -> list[Piece]:
        """Pieces of the broadcast memory that are looked at, from where to where; any thread may ask."""
        return sorted({piece for pieces in list(self._held.values()) for piece in pieces})

    def is_resting(self, worker: int) -> bool:
        """Has it said that it has nothing to do any more in the exchange that is under way?"""
        return worker in self._resting

    def begin(self, exchange: int) -> None:
        """This exchange begins."""
        self._exchange, self._told = exchange, 0
        self._resting.clear()

    def more(self) -> None:
        """All workers are told that there is more to do in it."""
        self._told += 1
        self._resting.clear()

    def note(self, worker: int, exchange: int, rest: Rest) -> None:
        """A worker says that it rests."""
        if self._ending.get(worker) == (exchange, rest.heard):
            del self._ending[worker]
        elif not self._ending and (exchange, rest.heard) == (self._exchange, self._told):
            self._resting.add(worker)
        else:
            return
        self._held[worker] = rest.held

    def end(self, workers: Iterable[int], placed: Sequence[Piece]) -> list[int]:
        """The exchange is over.

        Args:
            workers: all there are.
            placed: where its arrays lie.

        Returns:
            Those who have not let go of it.
        """
        late = [worker for worker in workers if worker not in self._resting]
        for worker in late:
            self._ending[worker] = self._exchange, self._told
            self._held[worker] = [*self._held.get(worker, ()), *placed]
        return late

    def forget(self, worker: int) -> None:
        """A worker is gone."""
        self._resting.discard(worker)
        self._ending.pop(worker, None)
        self._held.pop(worker, None)


__all__ = ["Rests"]
