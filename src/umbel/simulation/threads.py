"""Threads that work on large arrays: NumPy lets go of the interpreter while it computes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from threading import Lock
from typing import final

from umbel.buffers import allocating
from umbel.simulation.recycler import Recycler
from umbel.spread import Work, do_part, one_by_one, spreading


@final
class Threads:
    """Do parts of one work, several at a time; see `umbel.spread.spreading`.

    Args:
        count: how many threads; they are started when they are needed.
    """

    def __init__(self, count: int) -> None:
        self._executor = ThreadPoolExecutor(count, thread_name_prefix="umbel-fold")
        self._lock, self._closed = Lock(), False

    def __call__(self, work: Work, parts: Sequence[slice]) -> bool:
        """Do all parts. Did each return True? Who comes when the threads have ended does it alone."""
        with self._lock:
            doing = None if self._closed else [self._executor.submit(do_part, work, part) for part in parts]
        if doing is None:
            return one_by_one(work, parts)
        said = [part.result() for part in doing]
        return all(said)

    def close(self) -> None:
        """End the threads, when they have done what they were given."""
        with self._lock:
            self._closed = True
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
