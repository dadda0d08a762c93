"""One question to one cohort, answered once per client: a deterministic state machine without I/O.

Every client of the cohort has a place: the cohort in order of names, then the spares in the order they were
drawn. A place is in one of these states:

    idle ──lease──> leased ──arrived──> waiting ──fold──> folded
                      │ ^                  │                │
                lost  │ │ leased again     │ refused        │ refused
                      v │                  v                v
                     (attempts left?) ──> failed  <─────────┘
    at the close, what is still leased or idle is revoked

The rules:
- Whatever the order of duplicates, losses and late answers, a client is folded at most once, and the
  exchange closes exactly once.
- Only the unbroken prefix of places is folded before the close, so that the order of folding is the order of
  places; the rest waits.
- A failed client is passed over. In a *repeatable* exchange a lost one is asked again and a spare takes the
  place of a failed one; in a *bound* one neither happens.
- Shards of 64 are counted in places, so they do not depend on who failed.

The machine owns its lists and changes them in place; `snapshot` is immutable.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from enum import IntEnum
from itertools import compress, count, repeat
from operator import is_
from typing import final

from umbel.engine.columns import Columns
from umbel.errors import Failure, UsageError


@final
@dataclass(frozen=True, slots=True)
class Arrived:
    """Answers are here, checked and acknowledged.

    Attributes:
        tasks: whose, each (client, attempt), as they were leased.
    """

    tasks: Sequence[tuple[str, int]]


@final
@dataclass(frozen=True, slots=True)
class Failed:
    """A client failed for good, or its answer was refused."""

    client: str
    attempt: int
    failure: Failure


@final
@dataclass(frozen=True, slots=True)
class Lost:
    """Whoever worked on a task is gone; the client itself is not to blame."""

    client: str
    attempt: int
    failure: Failure


@final
@dataclass(frozen=True, slots=True)
class DeadlinePassed:
    """No more waiting."""


@final
@dataclass(frozen=True, slots=True)
class Lease:
    """Ask these clients; each with the number of the attempt."""

    tasks: Sequence[tuple[str, int]]


@final
@dataclass(frozen=True, slots=True)
class Fold:
    """Fold the waiting answers of these clients, in this order; each with its attempt and its place."""

    clients: Sequence[tuple[str, int, int]]


@final
@dataclass(frozen=True, slots=True)
class Drop:
    """Throw this answer away: a duplicate, or too late."""

    client: str
    attempt: int


@final
@dataclass(frozen=True, slots=True)
class Revoke:
    """Tell these clients to stop: their answers no longer count."""

    clients: tuple[str, ...]


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Close:
    """The end of an exchange; what it says is recorded, so that the exchange can be replayed.

    Attributes:
        folded: who counts, in order of places.
        failures: who does not, and why.
        revoked: who had not answered.
        met: was the quorum reached?
    """

    folded: tuple[str, ...]
    failures: tuple[Failure, ...]
    revoked: tuple[str, ...]
    met: bool

    @property
    def asked(self) -> int:
        """How many were asked."""
        return len(self.folded) + len(self.failures) + len(self.revoked)


Event = Arrived | Failed | Lost | DeadlinePassed
Instruction = Lease | Fold | Drop | Revoke | Close


class State(IntEnum):
    """Where a client stands."""

    IDLE = 0
    LEASED = 1
    WAITING = 2
    FOLDED = 3
    FAILED = 4
    REVOKED = 5


# by these names they are found ten times as quickly, and that happens several times per answer
_IDLE, _LEASED, _WAITING, _FOLDED, _FAILED, _REVOKED = State
_WINDOW = 256  # places that are looked at together


@final
@dataclass(frozen=True, slots=True)
class Snapshot:
    """How many clients stand where."""

    leased: int
    waiting: int
    folded: int
    failed: int
    closed: bool


@final
class Exchange:
    """The machine; see the head of this file.

    Args:
        cohort: who is asked.
        spares: who takes over when one of them fails, in this order.
        quorum: the share of the cohort that must be folded, 0 to 1.
        attempts: how often a client that was lost is asked in all.
        bound: no spare, no second answer: a phase of a protocol whose roster is fixed.
        race: spares are asked at once and the first ``len(cohort)`` answers count (a network);
            otherwise only as replacements, in order (a simulation, where nothing is late).

    Attributes:
        places: all who may be asked: the cohort, and the spares.
        overtaken: did the deadline end it, while the quorum could still be reached?

    Raises:
        UsageError: a client twice, or an impossible quorum.
    """

    def __init__(
        self,
        cohort: Iterable[str],
        spares: Sequence[str] = (),
        *,
        quorum: float = 1.0,
        attempts: int = 3,
        bound: bool = False,
        race: bool = False,
    ) -> None:
        primary = sorted(cohort)
        self.places: tuple[str, ...] = (*primary, *(() if bound else spares))
        self._place = {name: i for i, name in enumerate(self.places)}
        if len(self._place) != len(self.places):
            raise UsageError("a client is twice in one cohort")
        if not 0 <= quorum <= 1:
            raise UsageError(f"quorum is {quorum}", advice="give the share of the cohort that must answer, 0 to 1")
        self._size = len(primary)
        self._need = math.ceil(quorum * self._size - 1e-9)
        self._attempts = 1 if bound else attempts
        self._race = race
        self._states = [_IDLE] * len(self.places)
        self._attempt = [0] * len(self.places)
        self._failures: dict[int, Failure] = {}
        self._called = 0  # places that were asked; they are called in order
        self._prefix = 0  # places below are folded or failed
        self._count = [len(self.places), 0, 0, 0, 0, 0]  # by state
        self.overtaken = False
        self._ending = False  # nobody is asked any more
        self._closed = False

    def step(self, events: Iterable[Event] = ()) -> list[Instruction]:
        """Take in what happened, and say what to do now. The first call opens the exchange."""
        out: list[Instruction] = []
        again: list[int] = []
        deadline = False
        for event in events:
            if isinstance(event, DeadlinePassed):
                deadline = True
            elif isinstance(event, Arrived):
                self._arrive(event.tasks, out)
            elif (place := self._current(event)) is None:
                continue
            elif isinstance(event, Lost) and self._attempt[place] < self._attempts:
                again.append(place)
            else:
                self._move(place, _FAILED)
                self._failures[place] = event.failure
        if not self._closed:
            self._advance(out, again, deadline=deadline)
        return out

    def may_meet(self, *, without: Collection[str]) -> bool:
        """Could the quorum be reached without these, before anybody is asked?"""
        return len(self.places) - sum(name in self._place for name in without) >= self._need

    def snapshot(self) -> Snapshot:
        """Where the exchange stands."""
        c = self._count
        return Snapshot(c[_LEASED], c[_WAITING], c[_FOLDED], c[_FAILED], self._closed)

    def _arrive(self, tasks: Sequence[tuple[str, int]], out: list[Instruction]) -> None:
        if (places := self._neighbours(tasks)) is not None:
            self._states[places] = [_WAITING] * len(tasks)
            self._count[_LEASED] -= len(tasks)
            self._count[_WAITING] += len(tasks)
            return
        arrived = 0
        for client, attempt in tasks:
            place = self._place.get(client, -1)
            if place < 0 or self._attempt[place] != attempt or self._states[place] is not _LEASED or self._closed:
                out.append(Drop(client, attempt))
            elif self._race and self._arrived() + arrived >= self._size:
                self._move(place, _REVOKED)
                out.append(Drop(client, attempt))
            else:
                self._states[place] = _WAITING
                arrived += 1
        self._count[_LEASED] -= arrived
        self._count[_WAITING] += arrived

    def _neighbours(self, tasks: Sequence[tuple[str, int]]) -> slice | None:
        """The places of these tasks, if they stand side by side and all are awaited: then it takes no look at each."""
        first = self._place.get(tasks[0][0]) if tasks and not self._race and not self._closed else None
        if first is None:
            return None
        places = slice(first, first + len(tasks))
        clients, attempts = Columns.of(tasks, 2).columns
        same = self.places[places] == (*clients,) and self._attempt[places] == [*attempts]
        return places if same and self._states[places].count(_LEASED) == len(tasks) else None

    def _current(self, event: Failed | Lost) -> int | None:
        """The event's place, if it is about the attempt that is under way and still counts."""
        place = self._place.get(event.client)
        if self._closed or place is None or self._attempt[place] != event.attempt:
            return None
        if self._states[place] is _LEASED:
            return place
        # an answer may still turn out bad while it waits, or when it is folded
        refused = isinstance(event, Failed) and self._states[place] in (_WAITING, _FOLDED)
        return place if refused else None

    def _move(self, place: int, state: State) -> None:
        self._count[self._states[place]] -= 1
        self._count[state] += 1
        self._states[place] = state

    def _advance(self, out: list[Instruction], again: list[int], *, deadline: bool) -> None:
        possible = len(self.places) - self._count[_FAILED]
        enough = self._race and self._arrived() >= self._size
        self.overtaken = self.overtaken or (deadline and not self._ending and possible >= self._need)
        self._ending = self._ending or deadline or possible < self._need or enough
        if self._ending:
            for place in range(self._called):
                if self._states[place] is _LEASED:
                    self._move(place, _REVOKED)
        else:
            self._lease(out, again)
        if not self._fold(out) and self._count[_LEASED] == 0:
            self._close(out)

    def _arrived(self) -> int:
        return self._count[_WAITING] + self._count[_FOLDED]

    def _lease(self, out: list[Instruction], again: list[int]) -> None:
        wanted = (
            len(self.places) if self._race else self._size + min(self._count[_FAILED], len(self.places) - self._size)
        )
        fresh = range(self._called, max(wanted, self._called))
        self._states[fresh.start : fresh.stop] = [_LEASED] * len(fresh)
        self._count[_IDLE] -= len(fresh)
        self._count[_LEASED] += len(fresh)
        self._called = fresh.stop
        asked = slice(fresh.start, fresh.stop)
        self._attempt[asked] = [1] * len(fresh)
        for place in again:
            self._attempt[place] += 1
        if again or fresh:
            repeated = [self.places[place] for place in again], [self._attempt[place] for place in again]
            out.append(Lease(Columns([*repeated[0], *self.places[asked]], [*repeated[1], *self._attempt[asked]])))

    def _fold(self, out: list[Instruction]) -> bool:
        """Fold the unbroken prefix. Was there something to fold?"""
        begin, end = self._prefix, self._first_leased()
        self._prefix = end
        states = self._states[begin:end]
        ready: Columns[tuple[str, int, int]] = Columns(
            self.places[begin:end], self._attempt[begin:end], range(begin, end)
        )
        after = [_FOLDED] * len(states)
        if states.count(_WAITING) < len(states):
            waiting = [state is _WAITING for state in states]
            ready = Columns(*[[*compress(column, waiting)] for column in ready.columns])
            after = [_FOLDED if state is _WAITING else state for state in states]
        if ready:
            self._states[begin:end] = after
            self._count[_WAITING] -= len(ready)
            self._count[_FOLDED] += len(ready)
            out.append(Fold(ready))
        return bool(ready)

    def _first_leased(self) -> int:
        """The first place that is still awaited; the end of those that were called, if there is none."""
        end = self._prefix
        while end < self._called:
            window = self._states[end : min(end + _WINDOW, self._called)]
            reached = next(compress(count(), map(is_, window, repeat(_LEASED))), len(window))
            end += reached
            if reached < len(window):
                break
        return end

    def _close(self, out: list[Instruction]) -> None:
        self._closed = True
        if revoked := self._who_are(_REVOKED):
            out.append(Revoke(revoked))
        folded = self._who_are(_FOLDED)
        failures = tuple(self._failures[i] for i in sorted(self._failures))
        out.append(Close(folded=folded, failures=failures, revoked=revoked, met=len(folded) >= self._need))

    def _who_are(self, state: State) -> tuple[str, ...]:
        return tuple(compress(self.places, map(is_, self._states, repeat(state))))


__all__ = [
    "Arrived",
    "Close",
    "DeadlinePassed",
    "Drop",
    "Event",
    "Exchange",
    "Failed",
    "Fold",
    "Instruction",
    "Lease",
    "Lost",
    "Revoke",
    "Snapshot",
    "State",
]
