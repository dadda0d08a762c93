"""Ending a long-running program: the first signal asks it to end, a second Ctrl-C ends it at once."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable

_KILLED = 130  # the status of a program that Ctrl-C has ended


def on_signal(stop: Callable[[], object]) -> None:
    """Call this on the first SIGTERM or SIGINT; at a SIGINT after that the process is gone. In a running event loop.

    SIGTERM may come twice by itself: `timeout`, for one, sends it to its child and to its group.

    Args:
        stop: asks the program to end.
    """
    loop = asyncio.get_running_loop()
    asked: list[int] = []

    def take(number: int) -> None:
        if asked:
            if number == signal.SIGINT:
                os._exit(_KILLED)
            return
        asked.append(number)
        stop()

    for number in (signal.SIGINT, signal.SIGTERM):
        try:
            loop.add_signal_handler(number, take, number)
        except NotImplementedError:  # Windows
            signal.signal(number, lambda n, _: loop.call_soon_threadsafe(take, n))


__all__ = ["on_signal"]
