"""Threads that work on large arrays: NumPy lets go of the interpreter while it computes."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import final

from umbel.spread import Work, do_part


@final
class Threads:
    """Do parts of one work, several at a time; see `umbel.spread.spreading`.

    Args:
        count: how many threads; they are started when they are needed.
    """

    def __init__(self, count: int) -> None:
        self._count = count
        self._executor: ThreadPoolExecutor | None = None

    def __call__(self, work: Work, parts: Sequence[slice]) -> bool:
        """Do all parts. Did each return True?"""
        if self._executor is None:
            self._executor = ThreadPoolExecutor(self._count, thread_name_prefix="umbel-fold")
        said = [*self._executor.map(partial(do_part, work), parts)]
        return all(said)

    def close(self) -> None:
        """End the threads."""
        if self._executor is not None:
            self._executor.shutdown()


__all__ = ["Threads"]
