"""What clients answered, on its way into one whole: the same for all who run an exchange."""

from __future__ import annotations

import traceback
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Protocol, final

from umbel.engine.exchange import Close, Failed
from umbel.engine.question import Question
from umbel.engine.reduction import Part, Reduced, Reduction
from umbel.errors import BadUpdate, Failure, UmbelError
from umbel.rows import Rows
from umbel.update import Metrics, Update


class ClientStates(Protocol):
    """Where clients' states are kept."""

    def stateful(self, clients: Sequence[str]) -> frozenset[str]:
        """Who of these keeps a state."""

    def read(self, client: str) -> Mapping[str, Any]:
        """The client's state as of the last exchange it was counted in."""

    def write(self, sequence: int, states: Mapping[str, Mapping[str, Any]]) -> None:
        """The exchange with this number is over: the new states of clients that were counted."""


@final
class Answered(NamedTuple):
    """One client's answer.

    Attributes:
        client, attempt, place: whose it is.
        done: what it said.
        state: its next state; None: unchanged.
    """

    client: str
    attempt: int
    place: int
    done: Update | Metrics
    state: Mapping[str, Any] | None


@final
class AnsweredRows(NamedTuple):
    """The answers of several clients, none of whom has a new state; the same as `Answered`, side by side."""

    clients: Sequence[str]
    attempts: Sequence[int]
    places: Sequence[int]
    rows: Rows


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

    def fold(self, answers: Sequence[Answered]) -> list[Failed]:
        """Fold some clients' answers, in rising order of places; what does not fit the others is given back."""
        updates = [(a.client, a.place, a.done) for a in answers if isinstance(a.done, Update)]
        reasons: dict[str, Exception] = {}
        if self._question.chain.steps:
            updates = [u for u in (self._ingested(*u, reasons) for u in updates) if u is not None]
        reasons |= self._reduction.fold_all(updates)
        for a in answers:
            if isinstance(a.done, Metrics):
                self._note(a.client, a.done, reasons)
            if a.state is not None and a.client not in reasons:
                self._after[a.client] = a.state
        return self._refused([(a.client, a.attempt) for a in answers], reasons) if reasons else []

    def fold_rows(self, answers: AnsweredRows) -> list[Failed]:
        """Fold answers that came side by side."""
        clients, attempts, places, rows = answers
        if self._question.chain.steps:
            states = [None] * len(clients)
            updates = [rows.update(i) for i in range(len(clients))]
            return self.fold([*map(Answered, clients, attempts, places, updates, states)])
        reasons = dict(self._reduction.fold_rows(clients, places, rows))
        return self._refused([*zip(clients, attempts, strict=True)], reasons) if reasons else []

    def _refused(self, tasks: Sequence[tuple[str, int]], reasons: Mapping[str, Exception]) -> list[Failed]:
        return [
            Failed(client, attempt, self._refusal(client, reasons[client]))
            for client, attempt in tasks
            if client in reasons
        ]

    def _ingested(
        self, client: str, place: int, update: Update, reasons: dict[str, Exception]
    ) -> tuple[str, int, Update] | None:
        try:
            return client, place, self._question.chain.ingest(update, self._question.plans)
        except Exception as error:  # noqa: BLE001  # a task ends here: one update never ends a run
            reasons[client] = error
            return None

    def _note(self, client: str, metrics: Metrics, reasons: dict[str, Exception]) -> None:
        try:
            self._reduction.note(client, metrics.weight, metrics.values)
        except BadUpdate as error:
            reasons[client] = error

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

    def part(self) -> tuple[Part, Mapping[str, Mapping[str, Any]]]:
        """What was folded, all of it in one shard, and the new states; for who folds a shard for another."""
        return self._reduction.part(), self._after

    def join(self, place: int, part: Part, after: Mapping[str, Mapping[str, Any]]) -> None:
        """Take in a shard that was folded elsewhere.

        Raises:
            BadUpdate: it does not fit the shards before it; nothing of it was taken in.
        """
        self._reduction.join(place, part)
        self._after |= after

    def close(self, close: Close) -> Reduced:
        """The folded whole; states are kept only if the quorum was reached."""
        if close.met and self._after:
            self._states.write(self._question.sequence, self._after)
        return self._reduction.finish()


__all__ = ["Answered", "AnsweredRows", "ClientStates", "Folding"]
