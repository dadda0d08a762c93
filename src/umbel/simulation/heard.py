"""What a worker has heard: of the exchange that is under way, and what was broadcast."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Sequence
from typing import final

from umbel.arrays import Array
from umbel.client.context import ClientInfo
from umbel.engine.question import Question
from umbel.simulation.messages import Cohort, More, Open
from umbel.simulation.region import Loan, Region
from umbel.simulation.shipping import unpack

BROADCAST = 1 << 20  # bytes that there are at first for what is broadcast
ROOM = 8 << 20  # bytes that a worker has at first for its updates
_AHEAD = 4  # units that a worker may be ahead of the first that is open, however large their updates


@final
class Exchange:
    """What a worker knows of the exchange that is under way.

    Attributes:
        number: of the exchange.
        units: what stands on the board.
        stateful: which clients have a state.
        heard: how often it was told that there is more.
        fits: so far ahead of the first that is open the worker may be: its updates wait in its memory until those
            before them are there.
    """

    def __init__(self, message: Open, get: Callable[[int, int], Array]) -> None:
        self.number = message.number
        self._packed, self._get = message.question, get
        self._question: Question | None = None
        self._cohorts = [(0, message.cohort)]
        self._count = len(message.cohort.names)
        self.stateful = message.cohort.stateful
        self.units = message.units
        self.heard = 0
        sent = self.question.sent
        self.fits = max(_AHEAD, ROOM // max(1, sent.nbytes if sent is not None else 1))

    @property
    def question(self) -> Question:
        """What is asked."""
        if self._question is None:
            self._question = unpack(self._packed, self._get)
        return self._question

    def rest(self) -> None:
        """Let go of the question until somebody asks for it."""
        self._question = None

    def extend(self, message: More) -> None:
        """More clients, and units."""
        self.heard += 1
        self.units.extend(message.units)
        if message.cohort is not None:
            self._cohorts.append((self._count, message.cohort))
            self._count += len(message.cohort.names)
            self.stateful |= message.cohort.stateful

    def clients(self, tasks: Sequence[int]) -> list[ClientInfo]:
        """Whose these tasks are."""
        if len(self._cohorts) == 1:
            return self._cohorts[0][1].clients(tasks)
        return [cohort.client(task - begin) for task in tasks for begin, cohort in [self._cohort(task)]]

    def _cohort(self, task: int) -> tuple[int, Cohort]:
        """In which list of clients a task's client stands, and with which task it begins."""
        return next(pair for pair in reversed(self._cohorts) if pair[0] <= task)


@final
class Heard:
    """What was broadcast, as this worker sees it."""

    def __init__(self, region: Region) -> None:
        self._region = region
        self._loans: list[tuple[tuple[int, int], weakref.ref[Loan]]] = []  # of all exchanges

    def grow(self, size: int) -> None:
        """The region has so many bytes now."""
        self._region.resize(size)

    def get(self, offset: int, size: int) -> Array:
        """Some of it."""
        piece, loan = self._region.lend(offset, size, writable=False)
        self._loans.append(((offset, offset + size), loan))
        return piece

    def held(self) -> list[tuple[int, int]]:
        """What is still looked at, from where to where."""
        self._loans = [(piece, loan) for piece, loan in self._loans if loan() is not None]
        return sorted({piece for piece, _ in self._loans})


__all__ = ["BROADCAST", "ROOM", "Exchange", "Heard"]
