"""A run kept in memory: for runs without a directory, and for tests."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, final

from umbel.engine.ports import Commit, Record

State = Mapping[str, Any]


@final
class MemoryStore:
    """Keeps the last commit's state; what a `Store` of the engine does, without the disk."""

    def __init__(self) -> None:
        self._commits: list[Commit] = []
        self._records: list[Record] = []

    def commits(self) -> Sequence[Commit]:
        """All commits."""
        return tuple(self._commits)

    def records(self) -> Sequence[Record]:
        """The exchanges finished since the last commit."""
        return tuple(self._records)

    def record(self, record: Record) -> None:
        """Keep a finished exchange."""
        self._records.append(record)

    def commit(self, commit: Commit) -> None:
        """Keep the end of a round; of the commits before it only what the history needs."""
        self._commits[-1:] = [_without_state(c) for c in self._commits[-1:]]
        self._commits.append(commit)
        self._records.clear()


def _without_state(commit: Commit) -> Commit:
    return Commit(
        rows=commit.rows,
        state=None,
        sequence=commit.sequence,
        failures=commit.failures,
        counted=commit.counted,
        best=None,
    )


@final
class MemoryClientStates:
    """Clients' states by the number of the exchange that gave them."""

    def __init__(self) -> None:
        self._states: dict[str, State] = {}

    def read(self, client: str) -> State:
        """The client's state as of the last exchange it was counted in."""
        return self._states.get(client, {})

    def write(self, sequence: int, states: Mapping[str, State]) -> None:
        """The exchange with this number is over: the new states of clients that were counted."""
        del sequence
        self._states.update(states)


__all__ = ["MemoryClientStates", "MemoryStore"]
