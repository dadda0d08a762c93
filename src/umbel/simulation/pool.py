"""The worker processes: fresh interpreters that stay, are told what to do, and are missed when they die.

Never forks of this process: after any use of OpenMP in it a forked child may hang. They die with it, however it dies.
"""

from __future__ import annotations

import os
import pickle
import secrets
import selectors
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from typing import Any, TypeVar, final

from umbel.simulation.board import Board
from umbel.simulation.broadcast import Broadcast
from umbel.simulation.descriptors import enough, take_standard
from umbel.simulation.heard import ROOM
from umbel.simulation.member import Died, Member
from umbel.simulation.messages import Hello, Load
from umbel.simulation.output import Output
from umbel.simulation.region import Region
from umbel.simulation.rests import Rests
from umbel.simulation.shipping import search
from umbel.simulation.spawn import unforked
from umbel.simulation.waiting import Selector

_Part = TypeVar("_Part", Board, Broadcast, Output)
_FAREWELL = 2.0  # seconds that workers have to end by themselves, with what they want to do at their end


@final
class Pool:
    """The workers of a simulation, and what they share.

    Args:
        workers: how many.
        threads: how many each computes with.
        limit: seconds that one task may take; None: any.

    Attributes:
        members: the workers, without those that were retired.
        rests: what they hold of exchanges.
        exchanges: how many there were.
    """

    def __init__(self, workers: int, *, threads: int, limit: float | None) -> None:
        self._count, self._threads, self.limit = workers, threads, limit
        take_standard()
        self._pid = os.getpid()
        self._loads: list[Load] = []
        self.members: list[Member] = []
        self.rests = Rests()
        self.exchanges = 0
        self._seen, self._search = ([*sys.path], len(sys.modules)), search()
        self._watched: list[tuple[Member, bool]] | None = None  # for whom we wait, and whether to write to them, too
        self._selector: selectors.BaseSelector = Selector()
        self._closing: list[Callable[[], None]] = []
        try:
            with enough():
                self._output = self._closed_last(Output())
                self.board = self._closed_last(Board(workers))
                self.broadcast = self._closed_last(Broadcast(self.rests))
                self._closing.append(self.broadcast.forget)
            for number in range(workers):
                self.members.append(self._start(number))
        except BaseException:
            self.close(now=True)
            raise

    def _closed_last(self, part: _Part) -> _Part:
        self._closing.append(part.close)
        return part

    @property
    def is_ours(self) -> bool:
        """Is this the process that the workers belong to, and not a fork of it?"""
        return self._pid == os.getpid()

    @property
    def workers(self) -> int:
        """How many there were at the start; they are numbered below that."""
        return self._count

    def _start(self, number: int) -> Member:
        with enough(), unforked():
            return self._started(number)

    def _started(self, number: int) -> Member:
        updates = Region(ROOM)
        hello = Hello(
            number=number,
            workers=self._count,
            board=self.board.handles,
            broadcast=self.broadcast.handle,
            updates=updates.handle,
            threads=self._threads,
            limit=self.limit,
            search=self._search,
            scratch=os.path.join(tempfile.gettempdir(), f"umbel-{secrets.token_hex(8)}"),
        )
        return Member(number, hello, updates, threads=self._threads, files=self._output.files)

    def search_anew(self) -> None:
        """Tell all workers where modules are found, if the path, or what is imported, is no longer what it was."""
        seen = [*sys.path], len(sys.modules)
        if seen == self._seen:
            return
        self._seen, now = seen, search()
        if now != self._search:
            self._search = now
            self.tell(now)

    def load(self, message: Load) -> None:
        """Give an app to all workers, and to those that come later."""
        self._loads = [*(load for load in self._loads if load.key != message.forget), message]
        self.tell(message)

    def restart(self, member: Member) -> Member:
        """A new worker in the place of one that died."""
        member.forget()
        self.rests.forget(member.number)
        fresh = self.members[self.members.index(member)] = self._start(member.number)
        for message in self._loads:
            fresh.send(message)
        return fresh

    def retire(self, member: Member) -> None:
        """End a worker for good."""
        member.kill()
        self.members.remove(member)
        self.rests.forget(member.number)

    def tell(self, message: Any) -> None:
        """Tell all workers something."""
        data = pickle.dumps(message, protocol=5)
        for member in self.members:
            member.channel.send(data)

    def wait(self, seconds: float | None = None) -> Sequence[tuple[Member, Any]]:
        """What workers say, or that they `Died`; waits until there is something, or for so many seconds."""
        until = None if seconds is None else time.monotonic() + seconds
        while True:
            ready = self._watch().select(None if until is None else max(0.0, until - time.monotonic()))
            said = self._hear(ready)
            if said or (until is not None and time.monotonic() >= until):
                return said

    def _watch(self) -> selectors.BaseSelector:
        """Waits for all workers, and for what they print; made anew only where there is something else to wait for."""
        watched = [(member, member.channel.pending) for member in self.members]
        if watched != self._watched:
            self._selector.close()  # it is part of a cycle, and holds the members of which one may have died
            self._watched, self._selector = watched, Selector()
            for member, pending in watched:
                writing = selectors.EVENT_WRITE if pending else 0
                self._selector.register(member.channel, selectors.EVENT_READ | writing, member)
                self._selector.register(member.ended, selectors.EVENT_READ, member)
            for source in self._output.sources:
                self._selector.register(source, selectors.EVENT_READ)
        return self._selector

    def _hear(self, ready: Sequence[tuple[selectors.SelectorKey, int]]) -> list[tuple[Member, Any]]:
        said: list[tuple[Member, Any]] = []
        dead: list[Member] = []
        for key, events in ready:
            member: Member | None = key.data
            if member is None:
                self._output.write_on()
            elif key.fileobj is not member.channel:
                dead.append(member)
            else:
                if events & selectors.EVENT_WRITE:
                    member.channel.flush()
                said += [(member, message) for message in member.receive()]
        for member in dead:  # what it said before it died is heard first
            said += [(member, message) for message in member.receive()]
            said.append((member, member.died()))
        return said

    def close(self, *, now: bool = False) -> None:
        """End all workers.

        Args:
            now: at once; else they may do what programs do at their end.
        """
        if not self.is_ours:
            return
        try:
            if not now:
                self._farewell()
        finally:
            for member in self.members:
                member.kill()
                member.inbox.region.forget()
            self._selector.close()
            self.members, self._watched, self._selector = [], None, Selector()
            for close in self._closing:  # what was made; it may have failed in between
                close()
            self._closing = []

    def _farewell(self) -> None:
        """Wait for workers to end by themselves, and write on what they print at their end."""
        for member in self.members:
            member.dismiss()
        until = time.monotonic() + _FAREWELL
        with Selector() as selector:
            for source in self._output.sources:
                selector.register(source, selectors.EVENT_READ)
            for member in self.members:
                selector.register(member.ended, selectors.EVENT_READ, member)
            there = len(self.members)
            while there and (ready := selector.select(max(0.0, until - time.monotonic()))):
                for key, _ in ready:
                    if key.data is None:
                        self._output.write_on()
                    else:
                        selector.unregister(key.fileobj)
                        there -= 1


__all__ = ["Died", "Member", "Pool"]
