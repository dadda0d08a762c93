"""The engine's `Runner` whose clients are nodes: what the desk gives, folded. Lives in the run's own thread."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any, final

from umbel.arrays import Arrays
from umbel.engine.exchange import Close, Event, Failed
from umbel.engine.folding import Answered, Folding
from umbel.engine.question import Question
from umbel.engine.reduction import Reduced
from umbel.errors import Failure
from umbel.link.tasks import task_of
from umbel.sample import Population
from umbel.server.counted import Counted
from umbel.server.desk import Desk
from umbel.store.sql import Kept, ServerStore
from umbel.wire import Blob


@final
class NetworkRunner:
    """A `Runner` of the engine whose clients are nodes.

    Args:
        desk: has nodes do the tasks.
        store: of the server.
    """

    punctual = False

    def __init__(self, desk: Desk, store: ServerStore) -> None:
        self._desk, self._store = desk, store
        self._folding: Folding
        self._states = Counted()
        self._folded = 0.0

    @property
    def spent(self) -> Mapping[str, float]:
        """Seconds by what they went to."""
        return {"training": 0.0, "waiting": self._desk.waited, "folding": self._folded}

    def population(self, at_least: int, wait: float) -> Population:
        """Who is there."""
        return self._desk.population(at_least, wait)

    def open(self, question: Question, cohort: int) -> float | None:
        """Begin an exchange, or go on with one."""
        blobs: list[Kept] = []

        def place(arrays: Arrays) -> Blob:
            kept = self._store.blobs.keep(arrays, sync=False)
            blobs.append(kept)
            return blob_of(kept)

        template = task_of(question, place)
        self._states = Counted()
        self._folding = Folding(question, self._states)
        return self._desk.open(question, template, blobs, cohort)

    def lease(self, tasks: Sequence[tuple[str, int]]) -> None:
        """Ask these clients."""
        self._desk.lease(tasks)

    def wait(self, until: float) -> Sequence[Event]:
        """Wait for what happens."""
        return self._desk.wait(until)

    def fold(self, clients: Sequence[tuple[str, int, int]]) -> Sequence[Failed]:
        """Fold the answers of these clients."""
        begin = time.perf_counter()
        answered = []
        for client, attempt, place in clients:
            answer = self._desk.take(client)
            assert not isinstance(answer.done, Failure)
            answered.append(Answered(client, attempt, place, answer.done, {} if answer.state else None))
        refused = self._folding.fold(answered)
        self._folded += time.perf_counter() - begin
        return refused

    def drop(self, client: str, attempt: int) -> None:
        """Throw an answer away."""
        del attempt
        self._desk.drop(client)

    def revoke(self, clients: Sequence[str]) -> None:
        """Tell these clients to stop."""
        self._desk.revoke(clients)

    def close(self, close: Close) -> Reduced:
        """The exchange is over."""
        self._desk.close()
        reduced = self._folding.close(close)
        self._desk.count(self._states.clients)
        return reduced


def blob_of(kept: Kept) -> Blob:
    """A blob that was kept, as a task names it; a small one with its bytes."""
    content: dict[str, Any] = {} if kept.content is None else {"content": kept.content}
    return Blob(digest=bytes.fromhex(kept.digest), size=kept.size, **content)


__all__ = ["NetworkRunner", "blob_of"]
