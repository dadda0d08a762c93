"""What the C library keeps of memory that was freed."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import final

from umbel.client.memory import private

_WARM = 5  # times that it is looked at before it counts what a worker takes: by then it has done everything once
_MORE = 1 / 128  # by so much may it grow
_SHARE = 1 / 50  # of the time may go into giving memory back, and having it anew; what grows then is needed
_ANEW = 0.2e-9  # seconds for a byte: 0.8 microseconds for a page, which took 0.3 to 1.3


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
        self._cost = self._begin = 0.0

    def settle(self) -> None:
        """See whether this process takes more than it did; if so, give back all that is free.

        To be called when nobody waits, and what can be freed is: what is given back has to be had anew.
        """
        if self._trim is None:
            return
        taken = private()
        self._begin = self._begin or time.monotonic()
        self._looks += 1
        if self._looks > _WARM and taken > self._most * (1 + _MORE):
            taken = self._give_back(taken)
        self._most = max(self._most, taken)

    def _give_back(self, taken: int) -> int:
        """Give back what is free, if there was not too much of that yet; what is taken then."""
        assert self._trim is not None
        begin = time.monotonic()
        if self._cost > _SHARE * (begin - self._begin):
            return taken
        self._trim(0)
        left = private()
        self._cost += time.monotonic() - begin + _ANEW * max(0, taken - left)
        return left


def _trim_of_the_c_library() -> Callable[[int], object] | None:
    if sys.platform != "linux":
        return None
    try:
        import ctypes
    except ImportError:  # a Python that was built without
        return None
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc has it
    if trim is not None:
        trim.argtypes = (ctypes.c_size_t,)
    return trim


__all__ = ["Heap"]
