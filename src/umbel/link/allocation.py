"""What a process needs of the system that is there to move messages: memory, and descriptors."""

from __future__ import annotations

import ctypes
from contextlib import suppress

try:
    import resource
except ImportError:  # Windows, where connections are no files
    resource = None  # type: ignore[assignment]

# What mallopt(3) calls them, of glibc; other C libraries have no such function, or take no notice.
_TRIM_THRESHOLD, _MMAP_THRESHOLD, _ARENA_MAX = -1, -3, -8
_HELD = 16 << 20  # bytes that are free at the end of an arena before they are given back
_ARENAS = 2  # threads share them, so that what one has freed serves another
_CONNECTIONS = 1 << 16  # where the system sets no limit
_FILES = 1024  # descriptors that are left for others than connections, or half of all if those are fewer
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


def connections() -> int:
    """How many connections a server may have at once. Descriptors are left for its files, whoever connects.

    Of descriptors the process takes as many as the system lets it have: by default that is often no more than 1024.
    """
    if resource is None:
        return _CONNECTIONS
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _CONNECTIONS if hard == resource.RLIM_INFINITY else hard
    if soft != resource.RLIM_INFINITY and soft < wanted:
        with suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
            soft = wanted
    most = _CONNECTIONS if soft == resource.RLIM_INFINITY else soft
    return max(most // 2, most - _FILES)


__all__ = ["connections", "hold_message_memory"]
