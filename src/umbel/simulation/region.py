"""Memory that several processes share and nobody else can find: no name in /dev/shm, nothing to clean up.

A name in /dev/shm is bounded by its size (64 MB in a container; beyond it a process dies of SIGBUS) and stays behind
when a process is killed. An anonymous file has neither fault. It can grow, and who has it mapped maps it anew.
"""

from __future__ import annotations

import mmap
import os
import secrets
import sys
import weakref
from typing import Any, final

import numpy as np

from umbel.arrays import Array
from umbel.errors import StoreError
from umbel.simulation.nameless import nameless_file

Handle = int | str
PAGE = mmap.ALLOCATIONGRANULARITY


@final
class Loan:
    """Announces a piece of memory to NumPy, and lives as long as anyone looks at that piece."""

    __slots__ = ("__array_interface__", "__weakref__", "_owner")

    def __init__(self, owner: object, address: int, size: int, *, writable: bool) -> None:
        self._owner = owner
        self.__array_interface__ = {"version": 3, "typestr": "|u1", "shape": (size,), "data": (address, not writable)}


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
        self._mine, self._writable = handle is None, writable
        self.handle = _make() if handle is None else handle
        self.size = 0
        self._map: mmap.mmap
        self._bytes: Array
        self.words: Array
        self._address = 0
        self.resize(size)

    def resize(self, size: int) -> None:
        """Map it with at least so many bytes; who made it makes it larger. Views from before stay good."""
        if size <= self.size:
            return
        size = -(-size // PAGE) * PAGE
        self._map = _map(self.handle, size, grow=self._mine, writable=self._writable)
        self._bytes = np.frombuffer(self._map, np.uint8)
        self.words = self._bytes.view(np.int64)
        self._address = self._bytes.ctypes.data
        self.size = size

    def array(self, offset: int, count: int, dtype: Any) -> Array:
        """Elements from a byte on, to read and write."""
        made: Array = self._bytes[offset : offset + count * np.dtype(dtype).itemsize].view(dtype)
        return made

    def piece(self, offset: int, size: int) -> Array:
        """Bytes from an offset on, to read and write."""
        return self._bytes[offset : offset + size]

    def lend(self, offset: int, size: int, *, writable: bool) -> tuple[Array, weakref.ref[Loan]]:
        """Bytes from an offset on, and what tells whether anyone still holds them or a view of them."""
        loan = Loan(self._map, self._address + offset, size, writable=writable)
        return np.asarray(loan), weakref.ref(loan)

    def close(self) -> None:
        """Close the file; what is mapped of it stays until `forget`."""
        if isinstance(self.handle, int):
            os.close(self.handle)

    def forget(self) -> None:
        """Give the memory back, as soon as nobody looks at a piece of it."""
        del self._map, self._bytes, self.words


def _make() -> Handle:
    if sys.platform == "win32":
        return f"umbel-{secrets.token_hex(16)}"
    return nameless_file("region")


def _map(handle: Handle, size: int, *, grow: bool, writable: bool) -> mmap.mmap:
    access = mmap.ACCESS_WRITE if writable else mmap.ACCESS_READ
    if isinstance(handle, str):
        if sys.platform == "win32":  # a named mapping cannot grow; a larger one has another name
            return mmap.mmap(-1, size, tagname=f"{handle}-{size}", access=access)
        raise AssertionError("a name is a handle on Windows alone")
    try:
        if grow:
            os.ftruncate(handle, size)
        return mmap.mmap(handle, size, access=access)
    except OSError as error:
        raise StoreError(
            f"{size:,} bytes of shared memory cannot be had: {error.strerror}",
            advice="use fewer workers, or engine='inline', which needs none",
        ) from error


__all__ = ["Handle", "Loan", "Region"]
