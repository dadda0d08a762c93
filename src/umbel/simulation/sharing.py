"""Shares work on large arrays out: among processes where they can see them, else among threads."""

from __future__ import annotations

import sys

if sys.platform == "linux":
    import logging
    import os
    import threading
    from collections.abc import Sequence
    from contextlib import suppress
    from typing import final

    from umbel.errors import StoreError
    from umbel.simulation.claims import Claims
    from umbel.simulation.helper import Helper, Packed, packed
    from umbel.simulation.threads import Threads
    from umbel.spread import Elementwise, Work, do_part

    logger = logging.getLogger("umbel")

    @final
    class Sharing:
        """Do parts of one work, several at a time; see `umbel.spread.spreading`.

        Args:
            count: of those who work at the same time, with the main process; they are started when they are needed.
        """

        def __init__(self, count: int) -> None:
            self._pid = os.getpid()
            self._count = count - 1 if hasattr(os, "memfd_create") else 0  # else nothing large is in shared memory
            self._threads = Threads(count)
            self._claims: Claims | None = None
            self._helpers: list[Helper] = []
            self._lock = threading.Lock()

        def __call__(self, work: Work, parts: Sequence[slice]) -> bool:
            """Do all parts. Did each return True?"""
            if self._count and isinstance(work, Elementwise):
                with self._lock:
                    self._start()
                    if (said := packed(work)) is not None and (helpers := self._ready()):
                        return self._together(work, said, parts, helpers)
            return self._threads(work, parts)

        def _start(self) -> None:
            """Start them, before they are needed if the first work is one that they cannot see."""
            if self._claims is not None:
                return
            try:
                self._claims = Claims(self._count)
                for number in range(self._count):
                    self._helpers.append(Helper(number, self._count, self._claims))
            except (OSError, StoreError):  # it goes without
                self._count = len(self._helpers)

        def _ready(self) -> list[Helper]:
            """Those who have started."""
            ready = []
            for helper in [*self._helpers]:
                try:
                    if helper.is_ready:
                        ready.append(helper)
                except ConnectionError:
                    self._lost(helper)
            return ready

        def _together(self, work: Elementwise, said: Packed, parts: Sequence[slice], helpers: Sequence[Helper]) -> bool:
            assert self._claims is not None
            number, mine, good = self._claims.publish(len(parts)), set[int](), True
            try:
                for helper in helpers:
                    with suppress(ConnectionError):  # that is seen below
                        helper.ask(number, said, parts)
                while (part := self._claims.take(number)) is not None:
                    mine.add(part)
                    good = do_part(work, parts[part]) and good
                for helper in helpers:
                    good = self._finish(helper, work, parts, mine) and good
            except BaseException:  # Ctrl-C: nobody may write to these arrays any more
                self._end()
                raise
            return good

        def _finish(self, helper: Helper, work: Elementwise, parts: Sequence[slice], mine: set[int]) -> bool:
            try:
                return helper.finish(mine)
            except ConnectionError:
                self._lost(helper)
                return helper.take_over(work, parts, mine)

        def _lost(self, helper: Helper) -> None:
            self._helpers.remove(helper)
            status = helper.end()
            logger.warning(
                "helper-died: a process that adds up large updates ended with status %d: the run goes on without it",
                status,
            )

        def _end(self) -> None:
            while self._helpers:
                self._helpers.pop().end()

        def close(self) -> None:
            """End the processes and threads."""
            if self._pid != os.getpid():  # they are not a fork's
                return
            self._end()
            if self._claims is not None:
                self._claims.close()
            self._threads.close()

else:
    from umbel.simulation.threads import Threads as Sharing

__all__ = ["Sharing"]
