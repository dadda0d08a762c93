"""A run kept in memory: for runs without a directory, and for tests."""

from __future__ import annotations

import weakref
from collections import Counter, OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, final

from umbel.arrays import Arrays
from umbel.engine.ports import Commit, Record
from umbel.engine.totals import added

if TYPE_CHECKING:
    from umbel.store.client_states import FileClientStates

State = Mapping[str, Any]
_EMPTY: Mapping[str, Any] = MappingProxyType({})  # one for all commits
_ADDED_LATER = 32  # commits; adding costs as much as there are clients, and not as were asked
_OVERHEAD = 200  # bytes of one entry: name, object, place in a dictionary; about


@final
class MemoryStore:
    """What a `Store` of the engine does, without the disk; keeps the last commit's state."""

    def __init__(self) -> None:
        self._commits: list[Commit] = []
        self._records: list[Record] = []
        self._counted = 0, Counter[str](), list[Mapping[str, int]]()  # up to which round; a sum, and what comes to it
        self._evaluated = 0  # the last commit with metrics of single clients

    def commits(self) -> Sequence[Commit]:
        """All commits; all but the last without their state and without who was counted, which the last one sums up."""
        if not self._commits:
            return ()
        return (
            *self._commits[:-1],
            replace(self._commits[-1], counted=dict(added(self._counted[1], *self._counted[2]))),
        )

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
            self._counted = self._with(commit)
        before.append(replace(commit, counted=_EMPTY))
        self._records.clear()

    def _with(self, commit: Commit) -> tuple[int, Counter[str], list[Mapping[str, int]]]:
        _, total, more = self._counted
        more = [*more, commit.counted]
        if len(more) == _ADDED_LATER:
            total, more = added(total, *more), []
        return commit.rows[-1].round, total, more


@final
class MemoryClientStates:
    """Clients' states of a run without a directory: the latest in memory, the others in a file that has no name.

    Args:
        room: bytes of arrays and text that may stay in memory.
    """

    def __init__(self, room: int = 1 << 26) -> None:
        self._room, self._used, self._spills = room, 0, 0
        self._states: OrderedDict[str, tuple[State, int]] = OrderedDict()
        self._others: FileClientStates | None = None

    def stateful(self, clients: Sequence[str]) -> frozenset[str]:
        """Who of these keeps a state."""
        there = self._states.keys() & clients
        return frozenset(there if self._others is None else there | self._others.stateful(clients))

    def read(self, client: str) -> State:
        """The client's state as of the last exchange it was counted in."""
        if client in self._states:
            return self._states[client][0]
        return self._others.read(client) if self._others is not None else {}

    def write(self, sequence: int, states: Mapping[str, State]) -> None:
        """The exchange with this number is over: the new states of clients that were counted."""
        del sequence
        for client, state in states.items():
            self._take(client)
            self._states[client] = state, _size(state)
            self._used += self._states[client][1]
        if self._used > self._room:
            self._spill()

    def _take(self, client: str) -> State:
        state, size = self._states.pop(client, ({}, 0))
        self._used -= size
        return state

    def _spill(self) -> None:
        """Write those that were written longest ago to the disk, until a half of the room is free."""
        if self._others is None:
            from umbel.store.client_states import FileClientStates

            self._others = FileClientStates(None)
            weakref.finalize(self, self._others.close)
        self._spills += 1
        gone: dict[str, State] = {}
        for client in list(self._states):
            if self._used <= self._room // 2:
                break
            gone[client] = self._take(client)
        self._others.write(self._spills, gone)


def _size(state: State) -> int:
    """About how many bytes a state takes."""
    return sum(_OVERHEAD + (v.to_bytes().nbytes if isinstance(v, Arrays) else _plain(v)) for v in state.values())


def _plain(value: Any) -> int:
    return int(getattr(value, "nbytes", 0)) or (len(value) if isinstance(value, str | bytes) else 0)


__all__ = ["MemoryClientStates", "MemoryStore"]
