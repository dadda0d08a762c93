"""How much memory the processes of a group take: without files that they map, which the system can take back."""

from __future__ import annotations

import os
import sys
from contextlib import suppress

_KINDS = (b"RssAnon:", b"RssShmem:")
watched = sys.platform == "linux"
"""Can it be known here?"""


def group_memory(group: int) -> int:
    """Bytes of memory, anonymous and shared, that the processes of a group take; 0 where that cannot be known."""
    if not watched:
        return 0
    return sum(_memory(pid) for pid in os.listdir("/proc") if pid.isdigit() and _group(pid) == group)


def _group(pid: str) -> int:
    with suppress(OSError, ValueError, IndexError):  # it may end any moment
        fields = _read(f"/proc/{pid}/stat").rpartition(b")")[2].split()  # its name may hold anything
        return int(fields[2])
    return 0


def _memory(pid: str) -> int:
    with suppress(OSError, ValueError, IndexError):
        lines = _read(f"/proc/{pid}/status").splitlines()
        return sum(int(line.split()[1]) << 10 for line in lines if line.startswith(_KINDS))
    return 0


def _read(path: str) -> bytes:
    with open(path, "rb") as file:
        return file.read()


__all__ = ["group_memory", "watched"]
