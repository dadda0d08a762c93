"""The clock over the tasks of a Ray actor: one that takes too long ends its process, and its traceback is found again.

It runs in C and needs no interpreter, so it goes off in code that never lets go of it. A process that ends so can say
nothing more; it leaves a file on its machine, which a small Ray task reads there.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple, final

from umbel.simulation.limits import next_within

_HEAD = 48  # bytes before the traceback: whose task it was
_STDERR = Path("/proc/self/fd/2")


@final
class Words(NamedTuple):
    """The last words of an actor whose clock went off.

    Attributes:
        exchange, place: which task it was doing.
        traceback: where it was in the code.
    """

    exchange: int
    place: int
    traceback: str


@final
class Clock:
    """Ends this process when a task takes too long.

    Args:
        limit: seconds; None: any.

    Attributes:
        file: where the last words would stand; "": nowhere, since there is no limit.
    """

    def __init__(self, limit: float | None) -> None:
        self._limit, self._handle, self.file = limit, -1, ""
        if limit is not None:
            self._handle, self.file = tempfile.mkstemp(prefix="umbel-", suffix=".words", dir=_beside_the_log())

    def note(self, exchange: int, place: int) -> None:
        """This task begins."""
        if self._limit is not None:
            os.lseek(self._handle, 0, os.SEEK_SET)
            os.write(self._handle, f"{exchange} {place}".ljust(_HEAD).encode())  # a traceback would come behind it

    def next(self, results: Iterator[Any], many: int) -> Any:
        """The next result, within the limit for so many clients."""
        return next_within(self._limit and self._limit * many, results, self._handle)


def _beside_the_log() -> str | None:
    """Where Ray keeps what this process prints, for as long as it keeps that; None: where temporary files are."""
    try:
        log = Path(os.readlink(_STDERR))
    except OSError:  # no Linux
        return None
    return str(log.parent) if log.name.startswith("worker-") and os.access(log.parent, os.W_OK) else None


def last_words(file: str) -> Words | None:
    """What stands in an actor's file, which is then gone; None: its clock did not go off."""
    path = Path(file)
    data = path.read_bytes()
    path.unlink()
    head, traceback = data[:_HEAD].split(), data[_HEAD:].decode(errors="replace")
    return Words(int(head[0]), int(head[1]), traceback) if traceback else None


__all__ = ["Clock", "Words", "last_words"]
