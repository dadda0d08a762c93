"""How much memory the processes of a group take: without files that they map, which the system can take back.

What several of them have in common counts once. A data loader's workers are forks, which have all of the data set in
common with the process that they come from; the sum of what each has would be several times what the machine gives.
"""

from __future__ import annotations

import os
import sys
from contextlib import suppress

_KINDS = (b"RssAnon:", b"RssShmem:")
_SHARES = (b"Pss_Anon:", b"Pss_Shmem:")  # Linux 5.9 and later; the system has to walk all pages for them
watched = sys.platform == "linux"
"""Can it be known here?"""


def group_memory(group: int, *, most: int = 0) -> int:
    """Bytes of memory, anonymous and shared, that the processes of a group take; 0 where that cannot be known.

    Args:
        group: its number.
        most: below it, it need not be known exactly: too much may be said, and nothing is said that is above it.
    """
    if not watched:
        return 0
    members = [pid for pid in os.listdir("/proc") if pid.isdigit() and _group(pid) == group]
    quick = sum(_memory(pid) for pid in members)
    return quick if len(members) < 2 or quick <= most else sum(map(_share, members))


def _group(pid: str) -> int:
    with suppress(OSError, ValueError, IndexError):  # it may end any moment
        fields = _read(f"/proc/{pid}/stat").rpartition(b")")[2].split()  # its name may hold anything
        return int(fields[2])
    return 0


def _memory(pid: str) -> int:
    return sum(_kinds(f"/proc/{pid}/status", _KINDS))


def _share(pid: str) -> int:
    """What a process has alone, and its share of what it has in common with others."""
    return sum(_kinds(f"/proc/{pid}/smaps_rollup", _SHARES) or [_memory(pid)])


def _kinds(path: str, kinds: tuple[bytes, ...]) -> list[int]:
    with suppress(OSError, ValueError, IndexError):
        return [int(line.split()[1]) << 10 for line in _read(path).splitlines() if line.startswith(kinds)]
    return []


def _read(path: str) -> bytes:
    with open(path, "rb") as file:
        return file.read()


__all__ = ["group_memory", "watched"]
