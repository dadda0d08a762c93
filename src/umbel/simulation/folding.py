"""What all engines of a simulation do with what the clients answered."""

from __future__ import annotations

import traceback
from collections.abc import Mapping
from typing import Any, Protocol, final

from umbel.client.context import ClientInfo
from umbel.engine.exchange import Close, Failed
from umbel.engine.question import Question
from umbel.engine.reduction import Reduced, Reduction
from umbel.errors import BadUpdate, Failure, UmbelError
from umbel.sample import Population
from umbel.update import Metrics, Update


class ClientStates(Protocol):
    """Where clients' states are kept."""

    def has(self, client: str) -> bool:
        """Does the client keep a state?"""

    def read(self, client: str) -> Mapping[str, Any]:
        """The client's state as of the last exchange it was counted in."""

    def write(self, sequence: int, states: Mapping[str, Mapping[str, Any]]) -> None:
        """The exchange with this number is over: the new states of clients that were counted."""


class Clients(Protocol):
    """The clients of a simulation, by name."""

    @property
    def population(self) -> Population:
        """All names and labels."""

    def __getitem__(self, name: str) -> ClientInfo: ...


@final
class Folding:
    """The answers to one question, on their way into one whole.

    Args:
        question: what is asked.
        states: where the new states of who is counted go at the end.
    """

    def __init__(self, question: Question, states: ClientStates) -> None:
        self._question, self._states = question, states
        self._reduction = Reduction(question)
        self._after: dict[str, Mapping[str, Any]] = {}

    def fold(
        self, client: str, attempt: int, place: int, update: Update | Metrics, state: Mapping[str, Any] | None
    ) -> Failed | None:
        """Fold one answer; what does not fit the others is given back as a failure."""
        try:
            self._fold(client, place, update)
        except Exception as error:  # noqa: BLE001  # a task ends here: one update never ends a run
            return Failed(client, attempt, self._refusal(client, error))
        if state is not None:
            self._after[client] = state
        return None

    def _fold(self, client: str, place: int, update: Update | Metrics) -> None:
        if isinstance(update, Metrics):
            self._reduction.note(client, update.weight, update.values)
            return
        if self._question.chain.steps:
            update = self._question.chain.ingest(update, self._question.plans)
        self._reduction.fold(client, place, update)

    def _refusal(self, client: str, error: Exception) -> Failure:
        ours = isinstance(error, UmbelError)
        return Failure(
            client=client,
            round=self._question.round,
            kind=self._question.label,
            code=error.code if isinstance(error, UmbelError) else BadUpdate.code,
            message=str(error) if ours else f"its update could not be folded: {type(error).__name__}: {error}",
            traceback="" if ours else "".join(traceback.format_exception(error)),
        )

    def close(self, close: Close) -> Reduced:
        """The folded whole; states are kept only if the quorum was reached."""
        if close.met and self._after:
            self._states.write(self._question.sequence, self._after)
        return self._reduction.finish()


__all__ = ["ClientStates", "Clients", "Folding"]
