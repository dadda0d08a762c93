"""The engine "auto": begins in the calling thread, and goes on with worker processes when a run lasts."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, final

from umbel.engine.exchange import Close, Event, Failed
from umbel.engine.ports import Runner
from umbel.engine.question import Question
from umbel.engine.reduction import Reduced
from umbel.errors import RunError, StoreError, UsageError
from umbel.sample import Population
from umbel.simulation.inline import Inline

if TYPE_CHECKING:
    from umbel.simulation.processes import Processes

logger = logging.getLogger("umbel")
# Seconds of work after which workers are worth their start: about what that costs, an import of torch included. So a
# run takes at most twice as long as if one had known beforehand.
patience = 1.0


@final
class Auto:
    """A `Runner` of the engine that hands over to another one.

    Args:
        inline: what begins.
        processes: makes what goes on.
        patience: seconds of work after which the other one is made; it takes over when it is ready.
    """

    punctual = True

    def __init__(self, inline: Inline, processes: Callable[[], Processes], *, patience: float) -> None:
        self._inline, self._make, self._patience = inline, processes, patience
        self._active: Runner = inline
        self._coming: Processes | None = None
        self._worked = 0.0

    @property
    def spent(self) -> Mapping[str, float]:
        """Seconds by what they went to."""
        mine, its = self._inline.spent, self._active.spent if self._active is not self._inline else {}
        return {name: mine.get(name, 0.0) + its.get(name, 0.0) for name in {**mine, **its}}

    def population(self, at_least: int, wait: float) -> Population:
        """All clients."""
        return self._active.population(at_least, wait)

    def open(self, question: Question, cohort: int) -> None:
        """Begin an exchange."""
        self._active.open(question, cohort)

    def lease(self, tasks: Sequence[tuple[str, int]]) -> None:
        """Put tasks in the queue."""
        self._active.lease(tasks)

    def wait(self, until: float) -> Sequence[Event]:
        """Do the next task, or wait for the workers."""
        if self._active is self._inline and self._worked > self._patience:
            self._look()
        begin = time.monotonic()
        events = self._active.wait(until)
        self._worked += time.monotonic() - begin
        return events

    def _look(self) -> None:
        """Start workers; hand over to them once one of them is ready, and there is something to hand over."""
        try:
            if self._coming is None:
                self._coming = self._make()
            if self._inline.between and len(self._inline.queue) > 1 and self._coming.ready():
                self._coming.resume(*self._inline.rest())
                self._inline.queue.clear()
                self._active = self._coming
        except (RunError, UsageError, StoreError) as error:  # the app cannot be sent or loaded, or there is no memory
            logger.warning("no-workers: the run goes on in this process alone: %s", error)
            self._patience = math.inf

    def fold(self, clients: Sequence[tuple[str, int, int]]) -> Sequence[Failed]:
        """Fold the updates of these clients."""
        return self._active.fold(clients)

    def drop(self, client: str, attempt: int) -> None:
        """Throw an answer away."""
        self._active.drop(client, attempt)

    def revoke(self, clients: Sequence[str]) -> None:
        """Take these clients' tasks out of the queue."""
        self._active.revoke(clients)

    def close(self, close: Close) -> Reduced:
        """End the exchange."""
        return self._active.close(close)


__all__ = ["Auto", "patience"]
