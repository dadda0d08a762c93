"""The updates of one worker, as the main process sees them in the worker's memory."""

from __future__ import annotations

import time
import weakref
from typing import final

import numpy as np

from umbel.arrays import Array, Arrays
from umbel.rows import Rows
from umbel.simulation.arena import LINE
from umbel.simulation.messages import Answer, Lot, Stored
from umbel.simulation.outbox import FREE
from umbel.simulation.region import Loan, Region
from umbel.spec import Spec

_LONGEST = 20e-3  # seconds beyond that, however much memory the worker has
_PATIENCE = 2e-9  # seconds for a byte: more than it takes to touch memory that is new


@final
class Inbox:
    """Reads what one worker stored, and says what is free again.

    Args:
        region: the worker's memory.

    Attributes:
        specs: the specs that the worker numbered.
        starved: bytes that the worker waits for; 0: it does not.
    """

    def __init__(self, region: Region) -> None:
        self.region = region
        self.specs: list[Spec] = []
        self.starved = 0
        self._since = 0.0
        self._lent: list[tuple[int, weakref.ref[Loan]]] = []
        self._freed = False

    def arrays(self, stored: Stored) -> Arrays:
        """The arrays that the worker stored, where they lie."""
        spec = self.specs[stored.spec]
        return Arrays.over(spec, self._lend(stored.offset, spec.size))

    def rows(self, lot: Lot) -> Rows:
        """The updates of several tasks, where they lie."""
        spec, count = self.specs[lot.spec], len(lot.tasks)
        if isinstance(lot.values, int):
            values = self._lend(lot.values, count * spec.nbytes)
        else:
            values = np.frombuffer(lot.values, np.uint8)
        return Rows(lot.kind, spec, values.reshape(count, spec.nbytes), lot.weights, lot.metrics)

    def _lend(self, offset: int, size: int) -> Array:
        piece, loan = self.region.lend(offset + LINE, size, writable=False)
        self._lent.append((offset, loan))
        return piece

    def drop(self, answer: Answer) -> None:
        """Nobody wants these arrays."""
        for stored in (*([answer.arrays] if answer.arrays else []), *answer.extra.values()):
            self._free(stored.offset)

    def release(self) -> bool:
        """Give pieces back that nobody looks at any more. Was there one since the worker last got room?"""
        held = []
        for offset, loan in self._lent:
            if loan() is None:
                self._free(offset)
            else:
                held.append((offset, loan))
        self._lent = held
        return self._freed

    def starve(self, size: int) -> None:
        """The worker waits for so many bytes from now on; 0: for none."""
        self.starved, self._since = size, time.monotonic()

    @property
    def patience(self) -> float:
        """Seconds that the worker had better wait for room: more memory takes its time, too, and is not given back.

        The more it has, the longer: else what happens once in a hundred rounds makes it grow for ever.
        """
        longer = min(_PATIENCE * self.region.size, _LONGEST)
        return self._since + _PATIENCE * self.starved + longer - time.monotonic()

    @property
    def size(self) -> int:
        """Bytes of the worker's memory."""
        return self.region.size

    def grow(self) -> None:
        """Make room for what the worker waits for."""
        self.region.resize(self.region.size + self.starved + LINE)

    def serve(self) -> int:
        """The worker is told that there is room; how large its memory is."""
        self.starved, self._freed = 0, False
        return self.region.size

    def _free(self, offset: int) -> None:
        self.region.words[offset >> 3] = FREE
        self._freed = True


__all__ = ["Inbox"]
