"""Memory for large arrays that is used again: a page that is touched for the first time costs more than its copy."""

from __future__ import annotations

import mmap
import os
import sys
import threading
import weakref
from typing import final

import numpy as np

from umbel.arrays import Array
from umbel.simulation.arena import LINE
from umbel.simulation.region import Loan

LARGE = 1 << 20  # bytes; below that the allocator of the C library recycles on its own
_IDLE = 2  # pieces that may lie unused: a round makes a sum, where the mean will lie, and a new model


_lock = threading.Lock()  # a user's threads, too, make arrays
if hasattr(os, "register_at_fork"):  # a fork may not begin with a lock that nobody will open
    os.register_at_fork(before=_lock.acquire, after_in_parent=_lock.release, after_in_child=_lock.release)


@final
class Recycler:
    """Lends memory for arrays, and lends it again when nobody looks at them any more: `umbel.buffers.allocating`."""

    def __init__(self) -> None:
        self._pieces: list[tuple[Array, weakref.ref[Loan]]] = []

    def lend(self, size: int) -> Array | None:
        """So many bytes, aligned; None for little ones."""
        if size < LARGE:
            return None
        with _lock:
            return self._lend(size)

    def _lend(self, size: int) -> Array:
        free = [i for i, (_, loan) in enumerate(self._pieces) if loan() is None]
        fit = next((i for i in free if len(self._pieces[i][0]) == size + LINE), None)
        memory = self._pieces.pop(fit)[0] if fit is not None else _new(size + LINE)
        if fit is None and len(free) >= _IDLE:
            self._pieces.pop(free[0])
        loan = Loan(memory, memory.ctypes.data + (-memory.ctypes.data % LINE), size, writable=True)
        self._pieces.append((memory, weakref.ref(loan)))
        return np.asarray(loan)


def _new(size: int) -> Array:
    """So many bytes, in pages of the usual size.

    NumPy asks for huge pages. They make sums quicker, by a twentieth of a round that does nothing else; but on a
    virtual machine to touch 100 MB of them for the first time took 0.2 s, five times as long as usual pages.
    """
    if sys.platform == "win32":
        return np.empty(size, np.uint8)
    try:
        return np.frombuffer(mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS), np.uint8)
    except OSError as error:
        raise MemoryError(f"{size:,} bytes of memory cannot be had: {error.strerror}") from error


__all__ = ["LARGE", "Recycler"]
