"""Where a federation runs; what ``umbel.run(on=...)`` takes."""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from umbel.buffers import Array, Lend, allocating
from umbel.client.app import ClientApp
from umbel.client.determinism import isolated
from umbel.engine.folding import ClientStates
from umbel.engine.ports import Runner
from umbel.errors import UsageError
from umbel.simulation.loading import check_not_loading
from umbel.simulation.recycler import Recycler
from umbel.simulation.roster import Roster
from umbel.spread import Work, one_by_one, spreading

_ALONE = threading.RLock()


class Place(ABC):
    """Where a federation runs.

    Attributes:
        clients: who there is.
        threads: how many each handler may compute with.
        devices: "auto", or the name of a device.
    """

    clients: Roster
    threads: int
    devices: str
    _inside = 0  # runs that are under way, one within the other

    @contextmanager
    def running(self) -> Iterator[None]:
        """The conditions of a run: so many threads, and the caller's generators untouched.

        Raises:
            UsageError: another thread of this process is inside; runs within a run are lawful. Or a worker is loading.
        """
        check_not_loading()
        if not _ALONE.acquire(blocking=False):
            raise UsageError(
                "another thread of this process is running a simulation",
                advice="run one after the other, or each in a process of its own: handlers draw from random, "
                "numpy.random and torch, which all threads share",
            )
        clean, self._inside = False, self._inside + 1
        try:
            with isolated(self.threads), allocating(self._lender()), spreading(self.share_out):
                yield
            clean = True
        finally:
            self._inside -= 1
            try:
                self.rest(clean=clean, within=self._inside > 0)
            finally:
                _ALONE.release()

    def _lender(self) -> Lend:
        recycler = Recycler()

        def lend(size: int) -> Array | None:
            piece = self.lend(size)
            return recycler.lend(size) if piece is None else piece

        return lend

    def lend(self, size: int) -> Array | None:
        """Memory for a large array that this process makes, if it had better lie somewhere.

        Args:
            size: bytes.

        Returns:
            So many, to write to; or None: it may lie anywhere.
        """
        del size
        return None

    def share_out(self, work: Work, parts: Sequence[slice]) -> bool:
        """Work on large arrays that this process does itself; see `umbel.spread.spreading`."""
        return one_by_one(work, parts)

    @abstractmethod
    def runner(self, app: ClientApp, seed: int, states: ClientStates, *, debug: bool = False) -> Runner:
        """What does the tasks of one run."""

    def rest(self, *, clean: bool, within: bool) -> None:
        """A run is over: give back what is not kept for the next.

        Args:
            clean: did it come to its end?
            within: is another run here still under way, which this one was part of?
        """

    def recipe(self) -> Mapping[str, Any]:
        """What a run's result depends on here."""
        return {"clients": self.clients.recipe(), "threads": self.threads}


__all__ = ["Place"]
