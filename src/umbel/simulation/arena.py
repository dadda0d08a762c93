"""Where a worker's finished updates lie in the memory that it shares with the main process."""

from __future__ import annotations

from collections.abc import Callable
from typing import final

LINE = 64  # bytes of a cache line; every record begins on one


@final
class Arena:
    """Hands out pieces of one region, one behind the other and round again.

    Updates are mostly done with in the order in which they were made, so that the free space is one stretch, and
    handing out a piece is an addition. Only when that stretch ends is the next one looked for.

    Args:
        size: bytes of the region.
        is_free: can a piece that begins there be had again?
    """

    def __init__(self, size: int, is_free: Callable[[int], bool]) -> None:
        self._size, self._is_free = size, is_free
        self._taken: dict[int, int] = {}  # offset -> end
        self._next, self._bound = 0, size

    def take(self, size: int) -> int | None:
        """The offset of a piece of so many bytes; None while there is none."""
        size = -(-size // LINE) * LINE
        if self._next + size > self._bound and not self._look(size):
            return None
        offset = self._next
        self._next += size
        self._taken[offset] = self._next
        return offset

    def grow(self, size: int) -> None:
        """The region is larger now."""
        if self._bound == self._size:
            self._bound = size
        self._size = size

    @property
    def taken(self) -> int:
        """How many pieces are not free."""
        self._reclaim()
        return len(self._taken)

    def _reclaim(self) -> None:
        for offset in [o for o in self._taken if self._is_free(o)]:
            del self._taken[offset]

    def _look(self, size: int) -> bool:
        """Find a free stretch that is long enough, from where we are on and round again."""
        self._reclaim()
        pieces = sorted(self._taken.items())
        gaps = zip([0, *(end for _, end in pieces)], [*(begin for begin, _ in pieces), self._size], strict=True)
        fit = [(begin, end) for begin, end in gaps if end - begin >= size]
        if not fit:
            return False
        self._next, self._bound = next((gap for gap in fit if gap[0] >= self._next), fit[0])
        return True


__all__ = ["LINE", "Arena"]
