"""Shares work on large arrays out: among processes where they can see them, else among threads."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import final

from umbel.simulation.threads import Threads
from umbel.spread import Elementwise, Work, do_part, one_by_one

if sys.platform == "linux":
    import logging
    import os
    import threading

    import numpy as np

    from umbel.errors import StoreError
    from umbel.simulation.claims import Claims
    from umbel.simulation.helper import Helper, Packed, packed
    from umbel.simulation.spawn import unforked, uninterrupted

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
            self._path = [os.path.abspath(place) for place in sys.path if isinstance(place, str)]  # it may change

        def __call__(self, work: Work, parts: Sequence[slice]) -> bool:
            """Do all parts. Did each return True?"""
            if not _computes_as_usual():
                return one_by_one(work, parts)
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
                    with unforked():
                        self._helpers.append(Helper(number, self._count, self._claims, self._path))
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
            number, good = self._claims.publish(len(parts)), True
            try:
                for helper in helpers:
                    helper.ask(number, said, parts)
                while (part := self._claims.take(number)) is not None:
                    good = do_part(work, parts[part]) and good
                for helper in helpers:
                    good = self._finish(helper, work, parts) and good
            except BaseException:  # Ctrl-C: nobody may write to these arrays any more
                self._end()
                raise
            return good

        def _finish(self, helper: Helper, work: Elementwise, parts: Sequence[slice]) -> bool:
            try:
                return helper.finish()
            except ConnectionError:
                self._lost(helper)
                return helper.take_over(work, parts)

        def _lost(self, helper: Helper) -> None:
            status = helper.died()
            self._helpers.remove(helper)
            logger.warning(
                "helper-died: a process that adds up large updates ended with status %d: the run goes on without it",
                status,
            )

        def forget_closed(self) -> None:
            """Give back the memory of workers that are no more."""
            for helper in self._helpers:
                helper.forget_closed()

        def _end(self) -> None:
            """End all helpers; again, if Ctrl-C came in between."""
            with uninterrupted():
                for helper in self._helpers:  # first, that nobody writes anywhere
                    helper.kill()
                while self._helpers:
                    self._helpers[-1].end()
                    self._helpers.pop()

        def close(self) -> None:
            """End the processes and threads."""
            if self._pid != os.getpid():  # they are not a fork's
                return
            self._end()
            claims, self._claims = self._claims, None
            if claims is not None:
                claims.close()
            self._threads.close()

    _TINY = np.ones(1, np.uint32).view(np.float32)  # a number that is not 0, but near it

    def _computes_as_usual() -> bool:
        """Else, as by `torch.set_flush_denormal`, other processes and threads make other bits than this thread."""
        return bool((_TINY * np.float32(1))[0])

else:

    @final
    class Sharing:
        """The same as on Linux, see above: among threads."""

        def __init__(self, count: int) -> None:
            self._threads = Threads(count)

        def __call__(self, work: Work, parts: Sequence[slice]) -> bool:
            """Do all parts. Did each return True?"""
            return self._threads(work, parts)

        def forget_closed(self) -> None:
            """Nobody else sees memory of workers."""

        def close(self) -> None:
            """End the threads."""
            self._threads.close()


__all__ = ["Sharing"]
