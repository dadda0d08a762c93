"""How long a client's code may run before its process is ended."""

from __future__ import annotations

import faulthandler
from collections.abc import Iterator
from threading import TIMEOUT_MAX
from typing import Any

from umbel.arguments import finite
from umbel.errors import UsageError

_MOST = 100_000_000  # seconds, three years; the timer of `faulthandler` ends at some number that the system has


def time_limit(value: object) -> float | None:
    """The seconds that a task may take, as given by a user; None: any.

    Raises:
        UsageError: it is neither.
    """
    if value is None:
        return None
    seconds = finite(value)
    if seconds is None or not 0 < seconds <= _MOST:
        advice = f"give the seconds that a task may take, at most {_MOST:,}, or None for any"
        raise UsageError(f"limit is {value!r}", advice=advice)
    return seconds


def next_within(seconds: float | None, results: Iterator[Any], crash: int) -> Any:
    """The next result. If it takes longer, this process ends, also while C code holds the interpreter.

    Args:
        seconds: how long it may take; None: as long as it likes.
        results: what makes it.
        crash: a file descriptor for the traceback of what ran.
    """
    if seconds is None:
        return next(results)
    faulthandler.dump_traceback_later(min(seconds, TIMEOUT_MAX), exit=True, file=crash)
    try:
        return next(results)
    finally:
        faulthandler.cancel_dump_traceback_later()


__all__ = ["next_within", "time_limit"]
