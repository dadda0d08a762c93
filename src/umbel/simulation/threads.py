"""Threads that work on large arrays: NumPy lets go of the interpreter while it computes."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import final


@final
class Threads:
    """Calls a function with each of some arguments, several at a time; see `umbel.spread.spreading`.

    Args:
        count: how many threads; they are started when they are needed.
    """

    def __init__(self, count: int) -> None:
        self._count = count
        self._executor: ThreadPoolExecutor | None = None

    def __call__(self, call: Callable[[int], None], arguments: Iterable[int]) -> None:
        """Call it, and return when all calls have."""
        if self._executor is None:
            self._executor = ThreadPoolExecutor(self._count, thread_name_prefix="umbel-fold")
        for _ in self._executor.map(call, arguments):
            pass

    def close(self) -> None:
        """End the threads."""
        if self._executor is not None:
            self._executor.shutdown()


__all__ = ["Threads"]
