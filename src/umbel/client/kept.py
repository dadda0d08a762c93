"""The data of clients that a process keeps, so that a client that is asked again need not load them again."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any, final


@final
class Kept:
    """Of the clients that were asked last, as many as there is room for; one at least.

    Args:
        most: how many clients.
        room: how many bytes their data may take together.

    How much memory data take is known from how much the process grew while they were loaded. What is loaded into memory
    that others have left shows no growth, so none counts for less than the mean of those that came before any left.
    """

    def __init__(self, most: int, room: int) -> None:
        self._most, self._room = most, room
        self._values: OrderedDict[str, tuple[Any, int]] = OrderedDict()
        self._used = self._usual = 0
        self._full = False

    def __contains__(self, client: str) -> bool:
        return client in self._values

    def __getitem__(self, client: str) -> Any:
        """A client's data; it was asked just now."""
        self._values.move_to_end(client)
        return self._values[client][0]

    def keep(self, client: str, value: Any, grown: int) -> None:
        """Keep a client's data.

        Args:
            client: whose.
            value: the data.
            grown: bytes that the process grew by while they were loaded.
        """
        size = max(grown, self._usual if self._full else 0)
        self._values[client] = value, size
        self._used += size
        while len(self._values) > 1 and (len(self._values) > self._most or self._used > self._room):
            if not self._full:
                self._full, self._usual = True, self._used // len(self._values)
            _, (_, gone) = self._values.popitem(last=False)
            self._used -= gone


__all__ = ["Kept"]
