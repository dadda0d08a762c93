"""Where a worker's updates lie until the main process has folded them."""

from __future__ import annotations

import weakref
from typing import final

import numpy as np

from umbel.arrays import SMALL, Array, Arrays
from umbel.simulation.arena import LINE, Arena
from umbel.simulation.messages import Stored
from umbel.simulation.region import Loan, Region
from umbel.spec import Spec

IN_USE, FREE = 1, 0


@final
class Outbox:
    """Where this worker's updates lie until the main process has folded them.

    Attributes:
        fresh: specs that the main process was not told of yet.
        unsaid: bytes of updates that it was not told of yet.
        lends: may memory be had for updates that are being made?
    """

    def __init__(self, region: Region) -> None:
        self._region = region
        self._arena = Arena(region.size, self._is_free)
        self._loans: dict[int, weakref.ref[Loan]] = {}  # who looks at a piece, by its offset
        self._lent: dict[int, int] = {}  # pieces made for updates of the task, by their address
        self._reserved: dict[int, int] = {}  # pieces for updates side by side, by their address
        self._put: list[int] = []  # pieces with arrays of the task
        self._pinned: set[int] = set()  # what forks of this process may look at
        self.lends = True
        self._specs: dict[Spec, int] = {}
        self.fresh: list[Spec] = []
        self.unsaid = 0

    def grow(self, size: int) -> None:
        """The region has so many bytes now."""
        self._region.resize(size)
        self._arena.grow(self._region.size)

    def lend(self, size: int) -> Array | None:
        """Memory for an update that is being made; None where there is none."""
        if size <= SMALL or not self.lends or (offset := self._arena.take(LINE + size)) is None:
            return None
        self._region.words[offset >> 3] = FREE
        piece, self._loans[offset] = self._region.lend(offset + LINE, size, writable=True)
        self._lent[piece.ctypes.data] = offset
        return piece

    def pin(self) -> None:
        """This process was forked: the fork sees what this one writes, so what user code holds stays as it is.

        From now on nothing more is lent: code that loads data with forks may make one for each task.
        """
        self.lends = False
        self._pinned |= {offset for offset, loan in [*self._loans.items()] if loan() is not None}

    def reserve(self, size: int) -> Array | None:
        """Memory for updates side by side; None where there is none. What is not claimed is free after the task."""
        offset = self._arena.take(LINE + size)
        if offset is None:
            return None
        self._region.words[offset >> 3] = IN_USE
        piece = self._region.piece(offset + LINE, size)
        self._reserved[piece.ctypes.data] = offset
        return piece

    def claim(self, piece: Array) -> int:
        """Where a piece lies that was reserved, and now has updates in it."""
        offset = self._reserved.pop(piece.ctypes.data)
        self._put.append(offset)
        self.unsaid += piece.nbytes
        return offset

    def put(self, arrays: Arrays) -> Stored | int:
        """Put arrays where the main process sees them; the bytes that are needed where there is no room."""
        size = arrays.spec.size
        offset = self._lent.get(np.frombuffer(arrays.to_bytes(), np.uint8).ctypes.data) if self._lent else None
        if offset is None:
            offset = self._arena.take(LINE + size)
            if offset is None:
                return LINE + size
            self._region.piece(offset + LINE, size)[:] = arrays.to_bytes()
        self._region.words[offset >> 3] = IN_USE
        self._put.append(offset)
        self.unsaid += size
        return Stored(self.number(arrays.spec), offset)

    def task_done(self) -> None:
        """What was lent and not used is free as soon as nobody looks at it."""
        for offset in self._reserved.values():
            self._region.words[offset >> 3] = FREE
        self._reserved.clear()
        self._lent.clear()
        self._put.clear()

    def task_given_up(self) -> None:
        """Nobody will hear of the task."""
        for offset in self._put:
            self._region.words[offset >> 3] = FREE
        self.task_done()

    def number(self, spec: Spec) -> int:
        """What the main process knows this spec by; it is told of a `fresh` one with the next message."""
        number = self._specs.get(spec)
        if number is None:
            number = self._specs[spec] = len(self._specs)
            self.fresh.append(spec)
        return number

    def _is_free(self, offset: int) -> bool:
        if self._region.words[offset >> 3] != FREE or offset in self._pinned:
            return False
        loan = self._loans.get(offset)
        if loan is not None and loan() is not None:
            return False
        self._loans.pop(offset, None)
        return True


__all__ = ["FREE", "IN_USE", "Outbox"]
