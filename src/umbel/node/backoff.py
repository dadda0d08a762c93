"""How long to wait before connecting again: soon in the first minute, since servers restart; then more and more."""

from __future__ import annotations

from collections.abc import Callable
from typing import final

_SOON, _LONGEST = 1.0, 30.0  # seconds
_FIRST = 60.0  # seconds in which tries are at most _SOON apart
_LEAST = 0.05  # of a wait: nodes that lose the same server do not come back at once


@final
class Backoff:
    """Waits between tries, drawn so that nodes do not come all at once.

    Args:
        draw: a number from 0 to 1.
    """

    def __init__(self, draw: Callable[[], float]) -> None:
        self._draw = draw
        self._since: float | None = None
        self._later = _SOON

    def reset(self) -> None:
        """The server was reached, and has said something."""
        self._since, self._later = None, _SOON

    def moment(self) -> float:
        """A short wait."""
        return _LEAST + (_SOON - _LEAST) * self._draw()

    def next(self, now: float, asked: float = 0.0) -> float:
        """Seconds until the next try.

        Args:
            now: by a clock that never goes back, seconds.
            asked: what the server wants at least.
        """
        if self._since is None:
            self._since = now
        if now - self._since <= _FIRST:
            return asked + self.moment()
        self._later = min(_LONGEST, self._later * 2)
        return asked + max(_LEAST, self._later * (0.5 + 0.5 * self._draw()))


__all__ = ["Backoff"]
