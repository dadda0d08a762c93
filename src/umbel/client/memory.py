"""How much memory there is, and how much this process takes, 0 where the system does not say; garbage."""

from __future__ import annotations

import gc
import mmap
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

_STATM, _MEMINFO = "/proc/self/statm", Path("/proc/meminfo")
_GROUP = Path("/sys/fs/cgroup")


def resident() -> int:
    """Bytes of memory that this process takes."""
    return _resident()[0]


def private() -> int:
    """Bytes of memory that this process takes, without files and what it shares with others."""
    every, shared = _resident()
    return every - shared


def _resident() -> tuple[int, int]:
    """Bytes that this process takes, and how many of these are of files or shared memory."""
    if sys.platform != "linux":
        return 0, 0
    try:
        file = os.open(_STATM, os.O_RDONLY)  # not a file object: it is asked twice for each client's data
        try:
            pages = os.read(file, 256).split()
        finally:
            os.close(file)
        return int(pages[1]) * mmap.PAGESIZE, int(pages[2]) * mmap.PAGESIZE
    except (OSError, ValueError, IndexError):
        return 0, 0


def available() -> int:
    """Bytes of memory that programs can still have here, a container's limit included."""
    found = [size for size in (_of_machine(), _of_group()) if size is not None]
    return max(0, min(found)) if found else 0


def _of_machine() -> int | None:
    try:
        lines = _MEMINFO.read_text().splitlines()
        return next(int(line.split()[1]) << 10 for line in lines if line.startswith("MemAvailable:"))
    except (OSError, ValueError, IndexError, StopIteration):
        return None


def _of_group() -> int | None:
    """What the limit of this container leaves; of a group that has no limit, or an older kind, nothing is known."""
    try:
        most, used = (int((_GROUP / name).read_text()) for name in ("memory.max", "memory.current"))
        cached = next(
            int(line.split()[1])
            for line in (_GROUP / "memory.stat").read_text().splitlines()
            if line.startswith("inactive_file ")
        )
    except (OSError, ValueError, IndexError, StopIteration):
        return None
    return most - used + cached


@contextmanager
def uncollected() -> Iterator[Callable[[], None]]:
    """No garbage collection meanwhile: for a moment in which many objects are made that all go by themselves.

    It would look at each several times, which takes a tenth of the time of tasks that do next to nothing. What is
    yielded ends it at once. By the threshold and not by ``gc.disable``, so that user code finds it on, and what that
    makes of it stays.
    """
    before = gc.get_threshold()
    gc.set_threshold(0)

    def collect() -> None:
        if gc.get_threshold()[0] == 0:
            gc.set_threshold(*before)

    try:
        yield collect
    finally:
        collect()


__all__ = ["available", "private", "resident", "uncollected"]
