"""How long a client's code may run before its process is ended."""

from __future__ import annotations

import faulthandler
from collections.abc import Iterator
from typing import Any


def next_within(seconds: float | None, results: Iterator[Any], crash: int) -> Any:
    """The next result. If it takes longer, this process ends, also while C code holds the interpreter.

    Args:
        seconds: how long it may take; None: as long as it likes.
        results: what makes it.
        crash: a file descriptor for the traceback of what ran.
    """
    if seconds is None:
        return next(results)
    faulthandler.dump_traceback_later(seconds, exit=True, file=crash)
    try:
        return next(results)
    finally:
        faulthandler.cancel_dump_traceback_later()


__all__ = ["next_within"]
