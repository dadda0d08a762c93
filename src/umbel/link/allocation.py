"""How the C library hands out memory in a process that is there to move messages."""

from __future__ import annotations

import ctypes
from contextlib import suppress

# What mallopt(3) calls them, of glibc; other C libraries have no such function, or take no notice.
_TRIM_THRESHOLD, _MMAP_THRESHOLD, _ARENA_MAX = -1, -3, -8
_HELD = 16 << 20  # bytes that are free at the end of an arena before they are given back
_ARENAS = 2  # threads share them, so that what one has freed serves another
_MESSAGE = 4 << 20  # the largest message: memory for what is larger is the system's, and goes back to it at once


def hold_message_memory() -> None:
    """Use the memory of messages again, rather than giving it back to the system after each.

    By default glibc does so with each message of a chunk, and each next one meets fresh pages, which the system clears:
    a quarter of what moving a large model cost the processors. For a program's own process: it holds for all of it.
    """
    with suppress(OSError, AttributeError):
        allocator = ctypes.CDLL(None).mallopt
        for name, value in ((_MMAP_THRESHOLD, _MESSAGE), (_TRIM_THRESHOLD, _HELD), (_ARENA_MAX, _ARENAS)):
            allocator(name, value)


__all__ = ["hold_message_memory"]
