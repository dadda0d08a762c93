"""Who does which part of a work on large arrays, and how far each helper is; in shared memory.

A helper may be killed between any two instructions, and the work may add to what is there. So before it touches a block
it keeps what that was, and says so: from that the main process goes on where it ended.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import final

import numpy as np

from umbel.arrays import Array
from umbel.simulation.lock import ProcessLock
from umbel.simulation.region import Handle, Region
from umbel.spread import Elementwise, do_part

BLOCK = 1 << 15  # elements that are kept before they are touched; they stay in the cache for what is done to them
_KEPT = 8 * BLOCK  # bytes
_NOTHING = -1


@final
class Claims:
    """The parts of one work.

    Args:
        helpers: how many there are, numbered from 0.
        handles: what `handles` says in the process that made it; None makes new ones.
    """

    def __init__(self, helpers: int, handles: tuple[Handle, Handle] | None = None) -> None:
        region, lock = handles or (None, None)
        self._lock = ProcessLock(lock)
        try:
            self._region = Region(helpers * _KEPT + 8 * (3 + 3 * helpers), region)
        except BaseException:
            self._lock.close()
            raise
        words = self._region.array(helpers * _KEPT, 3 + 3 * helpers, np.int64)
        self._head = words[:3]  # the number of the work, the next part, how many there are
        self._part, self._at, self._refused = words[3:].reshape(3, helpers)
        if handles is None:
            self._part[:] = _NOTHING

    @property
    def handles(self) -> tuple[Handle, Handle]:
        """What another process needs to see the same."""
        return self._region.handle, self._lock.handle

    def publish(self, count: int) -> int:
        """Parts 0, 1, 2, ... of a new work, of which nobody does anything yet; its number."""
        with self._lock:
            number = int(self._head[0]) + 1
            self._head[:] = number, 0, count
            self._refused[:] = 0
        return number

    def take(self, number: int, helper: int | None = None) -> int | None:
        """The part to do next; None: there is none, or that work is over.

        Args:
            number: of the work.
            helper: who asks; None: the main process.
        """
        with self._lock:
            if self._head[0] != number or self._head[1] >= self._head[2]:
                return None
            part = int(self._head[1])
            self._part[self._part == part] = _NOTHING  # of one that was killed in the lines below
            if helper is not None:
                self._at[helper] = 0
                self._part[helper] = part
            self._head[1] = part + 1  # last: who dies before leaves it to another
            return part

    def do(self, helper: int, work: Elementwise, part: slice) -> None:
        """What a helper does, who took this part."""
        at, kept = (
            self._at[helper : helper + 1].data,
            self._kept(helper, work.out),
        )  # quicker for a number than the array
        with np.errstate(all="ignore"):
            for i, begin in enumerate(range(part.start, part.stop, BLOCK)):
                block = slice(begin, min(begin + BLOCK, part.stop))
                kept[: block.stop - begin] = work.out[block]
                at[0] = 2 * i + 1
                if work(block) is not True:
                    self._refused[helper] = 1
                at[0] = 2 * i + 2
        self._part[helper] = _NOTHING

    def _kept(self, helper: int, out: Array) -> Array:
        return self._region.array(helper * _KEPT, BLOCK, out.dtype)

    def does(self, helper: int) -> bool:
        """Has it taken a part that it has not done?"""
        with self._lock:  # so that what it wrote before is seen as well
            return bool(self._part[helper] != _NOTHING)

    def all_true(self, helper: int) -> bool:
        """Did all that it did return True?"""
        return not self._refused[helper]

    def take_over(self, helper: int, work: Elementwise, parts: Sequence[slice]) -> bool:
        """Do what a helper that died has left. Did it return True?"""
        if not self.does(helper):
            return True
        part = parts[self._part[helper]]
        self._part[helper] = _NOTHING
        done, begun = divmod(int(self._at[helper]), 2)
        left = slice(part.start + done * BLOCK, part.stop)
        if begun:
            block = work.out[left][:BLOCK]
            block[:] = self._kept(helper, block)[: block.size]
        return do_part(work, left)

    def close(self) -> None:
        """Let go of it."""
        del self._head, self._part, self._at, self._refused
        self._region.close()
        self._region.forget()
        self._lock.close()


__all__ = ["BLOCK", "Claims"]
