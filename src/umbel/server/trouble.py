"""What callers learn of trouble that is the server's own: whose it is, and that it may pass. Its log has the rest."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import final

from umbel.errors import DiskFull, FormatError, StoreError, UmbelError, Unreachable

logger = logging.getLogger("umbel")
_FREE = "free some space; what was not taken is then sent again"
_TWICE = 60.0  # seconds in which the same is not logged again: many nodes may ask each second


@final
class Trouble:
    """Turns errors of the store into what callers are told; others stay as they are.

    Args:
        now: seconds, by a clock that never goes back.
    """

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._said: dict[str, float] = {}

    def __call__(self, error: UmbelError) -> UmbelError:
        """What the caller is told instead."""
        if not isinstance(error, StoreError) or isinstance(error, FormatError):  # that is about what was sent
            return error
        self._log(error)
        if isinstance(error, DiskFull):
            return DiskFull(
                "the server has no room left on its disk",
                advice="tell its operator; what was not taken is to be sent again",
            )
        return Unreachable(
            "the server cannot read or write what it keeps",
            advice="tell its operator, whose log says why; try again later",
        )

    def _log(self, error: StoreError) -> None:
        now = self._now()
        self._said = {text: at for text, at in self._said.items() if now - at < _TWICE}
        if error.what not in self._said:
            self._said[error.what] = now
            full = isinstance(error, DiskFull)  # who writes files thinks of runs that somebody starts
            logger.error("store-failed: %s", DiskFull(error.what, advice=_FREE) if full else error)


__all__ = ["Trouble"]
