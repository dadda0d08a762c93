"""`Result`: what a run gives."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, final

import numpy as np

from umbel.arrays import Array, Arrays
from umbel.engine.history import COUNTS, History
from umbel.errors import Failure, StoreError, UsageError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PANELS = 4  # side by side in a figure; more begin a new line


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class ClientRecord:
    """What a run knows of one client.

    Attributes:
        counted: how many of its answers were counted.
        failed: how often it failed.
        metrics: its own metrics in the run's last evaluation that clients answered; empty if it took no part.
    """

    counted: int = 0
    failed: int = 0
    metrics: Mapping[str, Any] = field(default_factory=dict)


@final
class ClientRecords(Mapping[str, ClientRecord]):
    """What a run knows of its clients, by name; a record is made when it is looked at.

    Args:
        known: who there is.
        counted: how many answers of each were counted.
        failures: who failed.
        metrics: each one's own in the last evaluation.
    """

    __slots__ = ("_counted", "_failed", "_metrics")

    def __init__(
        self,
        known: Container[str],
        counted: Mapping[str, int],
        failures: Iterable[Failure],
        metrics: Mapping[str, Mapping[str, Any]],
    ) -> None:
        self._counted, self._metrics = dict(counted), metrics  # copies, for a run goes on
        self._failed = Counter(f.client for f in failures if f.client in known)

    def __getitem__(self, name: str) -> ClientRecord:
        if name not in self._counted and name not in self._failed and name not in self._metrics:
            raise KeyError(name)
        return ClientRecord(
            counted=self._counted.get(name, 0), failed=self._failed[name], metrics=self._metrics.get(name, {})
        )

    def __iter__(self) -> Iterator[str]:
        return iter(dict.fromkeys((*self._counted, *self._failed, *self._metrics)))

    def __len__(self) -> int:
        return len(self._counted.keys() | self._failed.keys() | self._metrics.keys())

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Mapping) and dict(self) == dict(other)

    __hash__ = None  # type: ignore[assignment]  # values that compare by content are not keys

    def __repr__(self) -> str:
        return repr(dict(self))


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What a run gives, and what callbacks see of it so far.

    Attributes:
        model: the model after the last committed round; None if the run has none.
        best: the model of the best round, by ``Checkpoint(best_on=...)``; else None.
        history: one row a round.
        clients: by name, who was counted or failed how often, and its last metrics.
        failures: every client that did not answer, and why.
        privacy: what privacy was spent; None when nothing in the run spends any.
        timing: seconds: "total", and "round", the mean.
        dir: the run's directory, or None.
        status: "finished"; "running"; or why the run ended early.
        state: what the last commit held.
        seed: of the run; give it again for the same bits.
        name: of the run.
    """

    model: Arrays | None
    best: Arrays | None
    history: History
    clients: Mapping[str, ClientRecord]
    failures: Sequence[Failure]
    privacy: Any
    timing: Mapping[str, float]
    dir: Path | None
    status: str
    state: Any
    seed: int
    name: str

    def plot(self, *metrics: str) -> Figure:
        """Metrics over rounds, one panel each.

        Args:
            metrics: columns of the history; by default all metrics that are single numbers. Of one that is an array,
                each element is a line.

        Raises:
            UsageError: matplotlib is not installed, there is no such column, or nothing in it can be drawn.
        """
        if nameless := next((m for m in metrics if not isinstance(m, str)), None):
            raise UsageError(f"a column is called {nameless!r}", advice='give names: plot("loss", "accuracy")')
        columns = metrics or tuple(c for c in self.history.columns if c not in COUNTS and _is_line(self.history[c]))
        if not columns or not len(self.history):
            raise UsageError("the history has no metrics to draw", advice="return metrics= from train or evaluate")
        wrong = next((c for c in columns if self.history[c].dtype.kind not in "biuf"), None)
        if wrong is not None:
            raise UsageError(f"column {wrong!r} is not made of numbers, or of arrays of one shape: it cannot be drawn")
        figure = _figure(min(len(columns), PANELS), -(-len(columns) // PANELS))
        rounds = self.history["round"]
        for panel, column in enumerate(columns):
            axes = figure.add_subplot(-(-len(columns) // PANELS), min(len(columns), PANELS), panel + 1)
            for values in self.history[column].reshape(len(rounds), -1).T:
                there = ~np.isnan(values)
                axes.plot(rounds[there], values[there], marker="o" if len(rounds) <= 50 else "", markersize=3)
            axes.set_xlim(min(rounds, default=1) - 0.5, max(rounds, default=1) + 0.5)
            axes.locator_params(axis="x", integer=True, min_n_ticks=1)
            axes.set_xlabel("round")
            axes.set_title(column)
            axes.grid(alpha=0.3)
        return figure

    def __repr__(self) -> str:
        failed = f", {len(self.failures)} failures" if self.failures else ""
        return f"Result({self.status} after {len(self.history)} rounds{failed}, seed={self.seed}; {self.history!r})"


def _is_line(column: Array) -> bool:
    return column.ndim == 1 and column.dtype.kind in "biuf"


def _figure(across: int, down: int) -> Figure:
    """A figure that a notebook shows though nobody imported pyplot there."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise UsageError("a plot needs matplotlib", advice="pip install 'umbel[plot]'") from None

    @final
    class Shown(Figure):
        def _repr_png_(self) -> bytes:
            picture = BytesIO()
            self.savefig(picture, format="png")
            return picture.getvalue()

    return Shown(figsize=(4 * across, 3.2 * down), layout="constrained")


def as_model(model: Any) -> Arrays:
    """A model from arrays, a mapping of names to arrays, or the path of a ``.safetensors`` file."""
    if isinstance(model, Arrays):
        return model
    if isinstance(model, str | os.PathLike):
        try:
            return Arrays.load(model)
        except OSError as error:
            raise StoreError(
                f"the model {os.fspath(model)!r} cannot be read: {error.strerror or error}", advice="check the path"
            ) from error
    if isinstance(model, Mapping):
        return Arrays(model)
    raise UsageError(
        f"a model is umbel.Arrays, a mapping, or the path of a .safetensors file, not a {type(model).__name__}"
    )


__all__ = ["ClientRecord", "ClientRecords", "Result", "as_model"]
