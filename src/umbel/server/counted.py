"""Whose new state counts, where the states themselves lie at the nodes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, final


@final
class Counted:
    """Takes note of whose new state counts: a `umbel.engine.folding.ClientStates`.

    Attributes:
        clients: who.
    """

    def __init__(self) -> None:
        self.clients: list[str] = []

    def stateful(self, clients: Sequence[str]) -> frozenset[str]:
        """Nobody, as far as this server holds states."""
        del clients
        return frozenset()

    def read(self, client: str) -> Mapping[str, Any]:
        """None of it lies here."""
        del client
        return {}

    def write(self, sequence: int, states: Mapping[str, Mapping[str, Any]]) -> None:
        """Take note."""
        del sequence
        self.clients = sorted(states)


__all__ = ["Counted"]
