"""The memory that all workers see: where what they are sent lies, and large arrays that the main process makes.

A new model is made there, and workers are sent it without a copy.
"""

from __future__ import annotations

import contextlib
import os
import sys
import threading
import weakref
from collections.abc import Sequence
from typing import final

import numpy as np

from umbel.arrays import Array, Arrays
from umbel.errors import StoreError
from umbel.simulation.arena import LINE
from umbel.simulation.heard import BROADCAST
from umbel.simulation.recycler import LARGE
from umbel.simulation.region import Loan, Region
from umbel.simulation.rests import Piece, Rests
from umbel.simulation.shared import Handle
from umbel.spread import Elementwise, in_parts

_AHEAD = 4  # arrays for which there is room at once: a round has a model, a sum, and the new model; each map costs
_IS_MEMORY = sys.platform == "linux" and hasattr(
    os, "memfd_create"
)  # elsewhere it may be a file on the disk, where sums do not belong


@final
class Broadcast:
    """Places arrays over those that neither this process nor a worker looks at any more.

    Args:
        rests: what workers look at.
    """

    def __init__(self, rests: Rests) -> None:
        self._region, self._rests = Region(BROADCAST), rests
        self._lent: dict[int, tuple[Piece, weakref.ref[Loan]]] = {}  # by address
        self._sent: list[Piece] = []  # of the exchange that is under way
        self._pinned: set[Piece] = set()  # what forks of this process may look at
        self._lends = _IS_MEMORY
        self._lock = threading.Lock()  # a user's threads, too, make arrays
        _all.add(self)

    @property
    def handle(self) -> Handle:
        """What another process needs to see it."""
        return self._region.handle

    @property
    def size(self) -> int:
        """Bytes, most of them perhaps never touched."""
        return self._region.size

    def lend(self, size: int) -> Array | None:
        """Memory for an array that this process makes, see `umbel.buffers.allocating`; None: any other will do."""
        if size < LARGE or not self._lends:
            return None
        with self._lock, contextlib.suppress(StoreError):
            begin = self._room(size)
            array, loan = self._region.lend(begin, size, writable=True)
            self._lent[array.ctypes.data] = (begin, begin + size), loan
            return array
        return None

    def put(self, arrays: Arrays) -> int:
        """Let workers see arrays until the exchange ends; where they lie."""
        data = np.frombuffer(arrays.to_bytes(), np.uint8)
        with self._lock:
            piece, loan = self._lent.get(data.ctypes.data, ((0, 0), None))
            is_there = loan is not None and loan() is not None and not arrays.writable
            if not is_there:
                begin = self._room(data.size)
                piece = begin, begin + data.size
            self._sent.append(piece)
        if not is_there:
            there = self._region.piece(piece[0], data.size)
            in_parts(data.size, Elementwise(np.copyto, there, [data]))
        return piece[0]

    @property
    def sent(self) -> Sequence[Piece]:
        """Where the arrays of the exchange lie."""
        return self._sent

    def end(self) -> None:
        """The exchange is over, and those who still look at its arrays are known."""
        self._sent = []

    def pin(self) -> None:
        """This process was forked: the fork sees what this one writes, so what is there now stays as it is.

        Forks are not rare where a user's program loads data with them; so from now on nothing more is made here.
        """
        self._lends = False
        self._pinned |= {piece for piece, loan in [*self._lent.values()] if loan() is not None}

    def trim(self) -> None:
        """Give the memory back that nobody looks at."""
        with self._lock:
            self._trim()

    def _trim(self) -> None:
        at = 0
        for begin, end in [*self._taken(), (self.size, self.size)]:
            self._region.discard(at, begin)
            at = max(at, end)

    def forget(self) -> None:
        """Give all of it back, as soon as nobody looks at it."""
        with self._lock:
            self._lends = False
            self._trim()
            self._region.forget()

    def close(self) -> None:
        """Let go of it; what is mapped stays until `forget`."""
        self._region.close()

    def _room(self, size: int) -> int:
        begin = _gap(self._taken(), size)
        if begin + size > self.size and size >= LARGE and self._lends:
            with contextlib.suppress(StoreError):
                self._region.resize(begin + size * _AHEAD)
        self._region.resize(begin + size)
        return begin

    def _taken(self) -> list[Piece]:
        return sorted({*self._rests.held, *self._sent, *self._pinned, *self._alive()})

    def _alive(self) -> list[Piece]:
        self._lent = {address: (piece, loan) for address, (piece, loan) in self._lent.items() if loan() is not None}
        return [piece for piece, _ in self._lent.values()]


def _gap(taken: Sequence[Piece], size: int) -> int:
    """Where there is room between pieces, in order of their beginnings."""
    at = 0
    for begin, end in taken:
        if begin - at >= size:
            break
        at = max(at, -(-end // LINE) * LINE)
    return at


_all: weakref.WeakSet[Broadcast] = weakref.WeakSet()


def _pin_all() -> None:
    for broadcast in list(_all):
        broadcast.pin()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_parent=_pin_all)


__all__ = ["Broadcast"]
