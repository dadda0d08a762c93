"""What the C library keeps of memory that was freed."""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Callable
from typing import final

from umbel.client.memory import resident

_WARM = 5  # times that it is looked at before it counts what a worker takes: by then it has done everything once
_MORE = 1 / 128  # by so much may it grow


@final
class Heap:
    """Keeps what this process takes from growing though it does the same again and again.

    glibc has been told to keep what is freed, since a new page costs more than what is mostly done with it. But now and
    then something small lies where something large lay before, and the large one gets a new place: after 60 rounds of a
    CNN two workers had 26 to 75 MB more than after ten.
    """

    def __init__(self) -> None:
        self._trim = _trim_of_the_c_library()
        self._looks = self._most = 0

    def settle(self) -> None:
        """See whether this process takes more than it did; if so, give back all that is free.

        To be called when nobody waits, and what can be freed is: what is given back has to be had anew.
        """
        if self._trim is None:
            return
        taken = resident()
        self._looks += 1
        if self._looks > _WARM and taken > self._most * (1 + _MORE):
            self._trim(0)
            taken = resident()
        self._most = max(self._most, taken)


def _trim_of_the_c_library() -> Callable[[int], object] | None:
    if sys.platform != "linux":
        return None
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc has it
    if trim is not None:
        trim.argtypes = (ctypes.c_size_t,)
    return trim


__all__ = ["Heap"]
