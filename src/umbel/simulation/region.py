"""A piece of shared memory as arrays, and who still looks at which part of it."""

from __future__ import annotations

import itertools
import mmap
import weakref
from contextlib import suppress
from typing import Any, final

import numpy as np

from umbel.arrays import Array
from umbel.errors import StoreError
from umbel.simulation.descriptors import enough
from umbel.simulation.shared import PAGE, Handle, Shared


@final
class Origin:
    """Which region it is that memory belongs to.

    Attributes:
        number: no other region of this process has it.
        handle: what another process needs to see the region.
        is_open: does the handle still stand for it?
    """

    __slots__ = ("handle", "is_open", "number")

    def __init__(self, handle: Handle) -> None:
        self.number, self.handle, self.is_open = next(_numbers), handle, True


_numbers = itertools.count()


@final
class Loan:
    """Announces a piece of memory to NumPy, and lives as long as anyone looks at that piece.

    Args:
        owner: what holds the memory.
        address, size: of the piece.
        writable: may it be written to?
        place: the region that it is of, and where in it.
    """

    __slots__ = ("__array_interface__", "__weakref__", "_owner", "address", "place")

    def __init__(
        self, owner: object, address: int, size: int, *, writable: bool, place: tuple[Origin, int] | None = None
    ) -> None:
        self._owner, self.address, self.place = owner, address, place
        self.__array_interface__ = {"version": 3, "typestr": "|u1", "shape": (size,), "data": (address, not writable)}


def origin_of(array: Array) -> tuple[Origin, int] | None:
    """The region that an array lies in, and at which byte of it; None: in memory of this process's own."""
    owner: Any = array
    while not isinstance(owner, Loan):
        owner = owner.obj if isinstance(owner, memoryview) else getattr(owner, "base", None)
        if owner is None:
            return None
    if owner.place is None:
        return None
    origin, offset = owner.place
    return origin, offset + array.ctypes.data - owner.address


@final
class Region:
    """One piece of anonymous shared memory.

    Attributes:
        handle: what another process needs to see it.
        size: bytes.
        words: all of it as 64-bit numbers.

    Args:
        size: bytes.
        handle: what `handle` says in the process that made it; None makes a new one.
        writable: may this process write to it? If it does all the same, the system ends it.
    """

    def __init__(self, size: int, handle: Handle | None = None, *, writable: bool = True) -> None:
        self._shared, self._writable = Shared(handle, writable=writable), writable
        self.handle = self._shared.handle
        self._origin = Origin(self.handle)
        self.size = 0
        self._map: Any  # what holds the memory
        self._bytes: Array
        self.words: Array
        self._address = 0
        try:
            self.resize(size)
        except BaseException:
            self._shared.close()
            raise

    def resize(self, size: int) -> None:
        """Map it with at least so many bytes; who made it makes it larger. Views from before stay good."""
        if size <= self.size:
            return
        try:
            with enough():  # a map has the file open once more
                self._map, self._address, self.size = self._shared.map(-(-size // PAGE) * PAGE)
        except OSError as error:
            raise StoreError(
                f"{size:,} bytes of shared memory cannot be had: {error.strerror}",
                advice="use fewer workers, or engine='inline', which needs none",
            ) from error
        self._bytes = np.asarray(self._loan(0, self.size, writable=self._writable))
        self.words = self._bytes.view(np.int64)

    def array(self, offset: int, count: int, dtype: Any) -> Array:
        """Elements from a byte on, to read and write."""
        made: Array = self._bytes[offset : offset + count * np.dtype(dtype).itemsize].view(dtype)
        return made

    def piece(self, offset: int, size: int) -> Array:
        """Bytes from an offset on, to read and write."""
        return self._bytes[offset : offset + size]

    def lend(self, offset: int, size: int, *, writable: bool) -> tuple[Array, weakref.ref[Loan]]:
        """Bytes from an offset on, and what tells whether anyone still holds them or a view of them."""
        loan = self._loan(offset, size, writable=writable)
        return np.asarray(loan), weakref.ref(loan)

    def _loan(self, offset: int, size: int, *, writable: bool) -> Loan:
        return Loan(self._map, self._address + offset, size, writable=writable, place=(self._origin, offset))

    def discard(self, begin: int, end: int) -> None:
        """Give these bytes back to the system, where it can and will do so; whoever reads them next reads zeros."""
        begin, end = -(-begin // PAGE) * PAGE, end // PAGE * PAGE
        if begin < end and hasattr(mmap, "MADV_REMOVE"):
            with suppress(OSError):  # not where memory is locked, nor in every sandbox
                self._map.madvise(mmap.MADV_REMOVE, begin, end - begin)

    def close(self) -> None:
        """Let go of it; what is mapped stays until `forget`."""
        self._origin.is_open = False
        self._shared.close()

    def forget(self) -> None:
        """Give the memory back, as soon as nobody looks at a piece of it."""
        del self._map, self._bytes, self.words


__all__ = ["PAGE", "Handle", "Loan", "Origin", "Region", "origin_of"]
