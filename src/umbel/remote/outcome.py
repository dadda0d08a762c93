"""What a run on a server has come to, as the values that a simulation gives."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, final

from umbel import errors
from umbel.arrays import Arrays
from umbel.codec import Fetch, Json, decode, loaded_classes
from umbel.engine.federation import model_of
from umbel.engine.history import COUNTS, History, Row
from umbel.errors import EmptyPopulation, Failure, FormatError, QuorumMissed, RunError, UmbelError
from umbel.result import ClientRecords, Result

ENDED = ("finished", "stopped", "failed")
_ADVICE = "\n  What to do: "
_WHOLE = re.compile(r"round (?P<round>\d+), client '[^']*', (?P<kind>[^:]*): (?P<message>.*)", re.DOTALL)
"""A failure as text, with what events may leave out."""
_KINDS = {kind.code: kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, UmbelError)}


@final
@dataclass(frozen=True, slots=True)
class Outcome:
    """What a run holds so far.

    Attributes:
        rows: of its history.
        failures: who failed, and why.
        counted: how often each client was counted.
        clients: each client's metrics in the last evaluation.
        state: what the last commit held.
        best: the best model, if the run keeps one.
        timing: seconds by what they went to.
    """

    rows: Sequence[Row] = ()
    failures: Sequence[Failure] = ()
    counted: Mapping[str, int] = field(default_factory=dict)
    clients: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    state: Any = None
    best: Arrays | None = None
    timing: Mapping[str, float] = field(default_factory=dict)

    @classmethod
    def read(cls, data: Json, fetch: Fetch) -> Outcome:
        """The outcome in what the server gives.

        Args:
            data: tagged JSON.
            fetch: gives the arrays of a digest.

        Raises:
            FormatError: it is not what this version of Umbel understands.
        """
        names = [name for name in cls.__slots__ if name != "state"]
        found = decode({name: data.get(name) for name in names}, fetch, allow=loaded_classes)
        found["state"] = _state_in(data.get("state"), fetch)
        return cls(**{name: value for name, value in found.items() if value is not None})

    def result(
        self,
        *,
        status: str,
        seed: int,
        name: str,
        seconds: float,
        initial: Arrays | None = None,
        dir: Path | None = None,
        also: Sequence[Failure] = (),
    ) -> Result:
        """The same as `umbel.run` gives it.

        Args:
            status: "finished", "running", or why the run ended early.
            seed: of the run.
            name: of the run.
            seconds: that it took in all.
            initial: the model that it began with, which is its model before the first commit.
            dir: the directory that it was asked to be written to.
            also: failures that the server does not know of: those of callbacks.
        """
        failures = (*self.failures, *also)
        return Result(
            model=model_of(self.state) if self.state is not None else initial,
            best=self.best,
            history=History(self.rows),
            clients=ClientRecords({f.client for f in self.failures} - {"server"}, self.counted, failures, self.clients),
            failures=failures,
            privacy=None,
            timing={"total": seconds, "round": seconds / max(1, len(self.rows)), **self.timing},
            dir=dir,
            status=status,
            state=self.state,
            seed=seed,
            name=name,
        )


def row_of(content: Mapping[str, Any]) -> Row:
    """A row of the history from its flat form, in which each metric has a column."""
    counts = {name: int(content.get(name, 0)) for name in COUNTS}
    return Row(**counts, stages={"": {name: value for name, value in content.items() if name not in COUNTS}})


def failure_of(content: Mapping[str, Any], round: int) -> Failure:
    """A failure from an event, which may leave things out.

    Args:
        content: of the event.
        round: that it is of, if the event does not say.
    """
    message = str(content.get("message", ""))
    whole = _WHOLE.fullmatch(message)
    return Failure(
        client=str(content.get("client", "")),
        round=int(content.get("round", whole["round"] if whole else round)),
        kind=str(content.get("kind", whole["kind"] if whole else "train")),
        code=str(content.get("code", "client-failed")),
        message=whole["message"] if whole else message,
        traceback=str(content.get("traceback", "")),
    )


def error_of(reason: str, code: str, failures: Sequence[Failure]) -> UmbelError:
    """The error that a run ended with, of the class that a simulation raises.

    Args:
        reason: what happened, and what to do.
        code: of the error; "" if the server does not say.
        failures: who failed in the round that could not be closed.
    """
    what, marked, advice = reason.rpartition(_ADVICE)  # what happened may quote failures, with advice of their own
    what, advice = (what, advice) if marked else (reason, "")
    kind = _KINDS.get(code) or _guessed(what)
    if issubclass(kind, RunError):
        return kind(what, failures=failures, advice=advice)
    return kind(what, advice=advice)


def _guessed(what: str) -> type[UmbelError]:
    if "clients answered" in what:
        return QuorumMissed
    if "there is no client to ask" in what or "needs min_nodes=" in what:
        return EmptyPopulation
    return RunError


def _state_in(data: Json, fetch: Fetch) -> Any:
    """What the last commit held; of classes that this program has not imported only the model."""
    try:
        return decode(data, fetch, allow=loaded_classes)
    except FormatError:
        match data:
            case {"$class": str(), "fields": {"model": {"$arrays": str(digest)}}} | {"model": {"$arrays": str(digest)}}:
                return {"model": fetch(digest)}
        return None


__all__ = ["ENDED", "Outcome", "error_of", "failure_of", "row_of"]
