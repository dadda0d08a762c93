"""Which CPUs workers wake on, where the system would choose badly.

An exchange begins with a message to each worker, all within microseconds. If there are no more CPUs than workers, Linux
finds none idle, since we still run, and may wake two workers on one CPU. The other CPU is idle then until the system
looks for work to move, some milliseconds later: of two workers that trained for 3 ms each the second began when the
first had ended. And a worker that wakes on our own CPU may take it from us before the next one has its message.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress


def let_others_first() -> None:
    """From now on this process takes no CPU from another one when it wakes; it is none that anybody waits for."""
    if sys.platform == "linux":
        with suppress(OSError):  # a system may forbid it
            os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))


def cores() -> int:
    """How many cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


@contextmanager
def woken_apart(processes: Sequence[int]) -> Iterator[None]:
    """Whoever of these is woken meanwhile wakes on a CPU of its own; afterwards the system may move it.

    Args:
        processes: their numbers. If there are fewer of them than CPUs, nothing is done: then the system finds one.
    """
    before: dict[int, set[int]] = {}
    if sys.platform == "linux":
        cpus = sorted(os.sched_getaffinity(0))
        for i, process in enumerate(processes if len(processes) >= len(cpus) > 1 else ()):
            with suppress(OSError):  # it has died, or is no longer ours
                allowed = os.sched_getaffinity(process)
                if cpus[i % len(cpus)] in allowed:  # user code may have bound it
                    os.sched_setaffinity(process, {cpus[i % len(cpus)]})
                    before[process] = allowed
    try:
        yield
    finally:
        for process, allowed in before.items():
            _bind(process, allowed)


def _bind(process: int, cpus: set[int]) -> None:
    if sys.platform == "linux":
        with suppress(OSError):
            os.sched_setaffinity(process, cpus)


__all__ = ["cores", "let_others_first", "woken_apart"]
