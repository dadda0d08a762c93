"""Waits for several sockets at once, and on Windows for Ctrl-C as well, which does not wake `select` there."""

from __future__ import annotations

import selectors
import sys
from typing import final

if sys.platform == "win32":
    import contextlib
    import functools
    import signal
    import socket
    import threading

    from umbel.simulation.spawn import pair

    @final
    class Selector(selectors.SelectSelector):
        """One that Ctrl-C wakes."""

        def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
            """What is ready; see `selectors.BaseSelector`."""
            if threading.current_thread() is not threading.main_thread():  # it does not hear signals
                return super().select(timeout)
            heard, hears = _alarm()
            before = signal.set_wakeup_fd(hears.fileno(), warn_on_full_buffer=False)
            self.register(heard, selectors.EVENT_READ)
            try:
                ready = super().select(timeout)
            finally:
                self.unregister(heard)
                signal.set_wakeup_fd(before)
            with contextlib.suppress(BlockingIOError):
                while heard.recv(64):
                    pass
            return [(key, events) for key, events in ready if key.fileobj is not heard]

    @functools.cache
    def _alarm() -> tuple[socket.socket, socket.socket]:
        heard, hears = pair()
        heard.setblocking(False)
        hears.setblocking(False)
        return heard, hears

else:
    import select

    Selector = selectors.PollSelector if hasattr(select, "poll") else selectors.SelectSelector


__all__ = ["Selector"]
