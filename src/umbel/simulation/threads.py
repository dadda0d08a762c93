"""Threads that work on large arrays: NumPy lets go of the interpreter while it computes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from functools import partial
from typing import final

from umbel.buffers import allocating
from umbel.simulation.recycler import Recycler
from umbel.spread import Work, do_part, spreading


@final
class Threads:
    """Do parts of one work, several at a time; see `umbel.spread.spreading`.

    Args:
        count: how many threads; they are started when they are needed.
    """

    def __init__(self, count: int) -> None:
        self._executor = ThreadPoolExecutor(count, thread_name_prefix="umbel-fold")

    def __call__(self, work: Work, parts: Sequence[slice]) -> bool:
        """Do all parts. Did each return True?"""
        said = [*self._executor.map(partial(do_part, work), parts)]
        return all(said)

    def close(self) -> None:
        """End the threads."""
        self._executor.shutdown()


@contextmanager
def large_arrays(count: int) -> Iterator[None]:
    """In a process that does nothing but federations: memory for models is used again, and work on them is shared out.

    Args:
        count: of threads.
    """
    with closing(Threads(count)) as threads, allocating(Recycler().lend), spreading(threads):
        yield


__all__ = ["Threads", "large_arrays"]
