"""Whether to wait for more large updates before those that are there are folded."""

from __future__ import annotations

from typing import final

_LARGE = 1 << 20  # bytes; smaller updates are folded quicker than one can wait
_WORTH = 0.2e-9  # seconds for a byte: half of what it takes to fold it


@final
class Linger:
    """Several large updates are folded quicker together than each alone: the sum, and what was sent, are read once.

    To wait pays if the next one is about to come, as it is where clients take equally long. Where it did not come in
    time, nobody waits again before several come at once by themselves.
    """

    def __init__(self) -> None:
        self._pays = True

    def seconds(self, size: int, there: int) -> float:
        """How long to wait for one more.

        Args:
            size: bytes of an update.
            there: how many updates have come.
        """
        self._pays = self._pays or there > 1
        return _WORTH * size if self._pays and size >= _LARGE else 0.0

    def note(self, *, came: bool) -> None:
        """Did one more come while we waited?"""
        self._pays = came


__all__ = ["Linger"]
