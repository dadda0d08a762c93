"""The server's time."""

from __future__ import annotations

import time
from typing import final


@final
class ServerClock:
    """Seconds since 1970 that never go back, so that a deadline outlives this process.

    Args:
        offset: seconds between this clock and the system's monotonic one, which all processes share; None: as the time
            is now.

    Attributes:
        offset: the same.
    """

    def __init__(self, offset: float | None = None) -> None:
        self.offset = time.time() - time.monotonic() if offset is None else offset

    def now(self) -> float:
        """The time."""
        return time.monotonic() + self.offset


__all__ = ["ServerClock"]
