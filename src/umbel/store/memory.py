"""A run kept in memory: for runs without a directory, and for tests."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import Any, final

from umbel.engine.ports import Commit, Record

State = Mapping[str, Any]
_EMPTY: Mapping[str, Any] = MappingProxyType({})  # one for all commits


@final
class MemoryStore:
    """What a `Store` of the engine does, without the disk; keeps the last commit's state."""

    def __init__(self) -> None:
        self._commits: list[Commit] = []
        self._records: list[Record] = []
        self._counted = 0, Counter[str]()  # up to which round, in all commits
        self._evaluated = 0  # the last commit with metrics of single clients

    def commits(self) -> Sequence[Commit]:
        """All commits; all but the last without their state and without who was counted, which the last one sums up."""
        if not self._commits:
            return ()
        return (*self._commits[:-1], replace(self._commits[-1], counted=dict(self._counted[1])))

    def records(self) -> Sequence[Record]:
        """The exchanges finished since the last commit."""
        return tuple(self._records)

    def record(self, record: Record) -> None:
        """Keep a finished exchange."""
        self._records.append(record)

    def mark(self, sequence: int) -> None:
        """Nothing: clients' states do not outlive the process here."""

    def commit(self, commit: Commit) -> None:
        """Keep the end of a round; of the commits before it only what the history needs."""
        before = self._commits
        if before and commit.rows[-1].round <= before[-1].rows[-1].round:
            return
        if before:
            before[-1] = replace(before[-1], state=None, transforms=_EMPTY, best=None)
        if before and commit.clients:
            before[self._evaluated] = replace(before[self._evaluated], clients=_EMPTY)
        self._evaluated = len(before) if commit.clients else self._evaluated
        if commit.rows[-1].round > self._counted[0]:  # else Ctrl-C came before the commit was kept
            self._counted = commit.rows[-1].round, self._counted[1] + Counter(commit.counted)
        before.append(replace(commit, counted=_EMPTY))
        self._records.clear()


@final
class MemoryClientStates:
    """Clients' states by the number of the exchange that gave them."""

    def __init__(self) -> None:
        self._states: dict[str, State] = {}

    def has(self, client: str) -> bool:
        """Does the client keep a state?"""
        return client in self._states

    def read(self, client: str) -> State:
        """The client's state as of the last exchange it was counted in."""
        return self._states.get(client, {})

    def write(self, sequence: int, states: Mapping[str, State]) -> None:
        """The exchange with this number is over: the new states of clients that were counted."""
        del sequence
        self._states.update(states)


__all__ = ["MemoryClientStates", "MemoryStore"]
