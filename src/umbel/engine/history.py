"""The history of a run: one row a round, seen as a table."""

from __future__ import annotations

import csv
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, final, overload

import numpy as np

from umbel.arrays import Array
from umbel.errors import UsageError

if TYPE_CHECKING:
    import pandas as pd

STAGES = ("", "train", "evaluate", "central")
COUNTS = ("round", "cohort", "folded", "failed")


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """What history keeps of one committed round.

    Attributes:
        round: the round.
        cohort, folded: how many were asked to train (or a query), and how many of them were counted.
        failed: how many failed, in evaluations too.
        stages: metrics by where they come from: "train", "evaluate", "central", or "" for the main's own.
    """

    round: int
    cohort: int = 0
    folded: int = 0
    failed: int = 0
    stages: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)


@final
class History(Sequence[Mapping[str, Any]]):
    """One row per committed round: ``round, cohort, folded, failed``, then the metrics.

    A metric is called as its author called it. Where two stages of a round use one name, the first of
    (main's own, train, evaluate, central) keeps it and the others get their stage in front: "evaluate.loss".

    Example:
        ``history["loss"]`` is an array over rounds (NaN where a round has no such metric; of a metric that is an
        array itself, with the rounds along the first axis), ``history[-1]["loss"]`` one number,
        ``history.dataframe()`` a pandas DataFrame.
    """

    def __init__(self, rows: Sequence[Row] = ()) -> None:
        self._rows: list[Row] = []
        self._found: dict[str, dict[str, None]] = {stage: {} for stage in STAGES}  # the metrics of each
        self._known: dict[tuple[str, str], str] | None = None  # what _names gave, until there is a new metric
        for row in rows:
            self.append(row)

    def __copy__(self) -> History:
        made = History()
        made._rows = list(self._rows)
        made._found = {stage: dict(metrics) for stage, metrics in self._found.items()}
        return made

    def append(self, row: Row) -> None:
        """Add a round."""
        self._rows.append(row)
        for stage, metrics in row.stages.items():
            if metrics.keys() - self._found[stage].keys():
                self._found[stage].update(dict.fromkeys(metrics))
                self._known = None

    @property
    def columns(self) -> tuple[str, ...]:
        """The names of the columns."""
        return (*COUNTS, *self._names().values())

    def _names(self) -> dict[tuple[str, str], str]:
        """(stage, metric) -> column, over the whole history."""
        if self._known is None:
            taken: set[str] = set(COUNTS)
            self._known = {}
            for stage, metrics in self._found.items():
                for metric in metrics:
                    name = metric
                    while name in taken:
                        name = f"{stage or 'main'}.{name}"
                    self._known[stage, metric] = name
                    taken.add(name)
        return self._known

    @overload
    def __getitem__(self, key: str) -> Array: ...
    @overload
    def __getitem__(self, key: int) -> Mapping[str, Any]: ...
    @overload
    def __getitem__(self, key: slice) -> Sequence[Mapping[str, Any]]: ...
    def __getitem__(self, key: str | int | slice) -> Any:
        """A column by its name, or rows by their place."""
        if isinstance(key, str):
            return self._column(key)
        names = self._names()
        if isinstance(key, slice):
            return [_flat(row, names) for row in self._rows[key]]
        return _flat(self._rows[key], names)

    def _column(self, name: str) -> Array:
        if name not in self.columns:
            raise UsageError(f"history has no column {name!r}", advice=f"it has {', '.join(self.columns)}")
        return _stacked(self.values(name))

    def values(self, name: str) -> list[Any]:
        """A column's values as they are, one a round; NaN where a round has none. Nothing is copied."""
        if name in COUNTS:
            return [getattr(row, name) for row in self._rows]
        place = next((place for place, column in self._names().items() if column == name), None)
        if place is None:
            return [math.nan] * len(self)
        stage, metric = place
        return [row.stages[stage].get(metric, math.nan) if stage in row.stages else math.nan for row in self._rows]

    def __iter__(self) -> Iterator[Mapping[str, Any]]:
        names = self._names()
        return (_flat(row, names) for row in self._rows)

    def __len__(self) -> int:
        return len(self._rows)

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, History)
            and self.columns == other.columns
            and all(_same(mine, its) for mine, its in zip(self, other, strict=False))
            and len(self) == len(other)
        )

    __hash__ = None  # type: ignore[assignment]  # grows with the run

    @property
    def rows(self) -> list[Mapping[str, Any]]:
        """All rows as mappings."""
        return list(self)

    def dataframe(self) -> pd.DataFrame:
        """The history as a pandas DataFrame, one row a round.

        Raises:
            UsageError: pandas is not installed.
        """
        try:
            import pandas as pd
        except ImportError:
            raise UsageError("a DataFrame needs pandas", advice="pip install pandas, or use history.rows") from None
        return pd.DataFrame(self.rows, columns=list(self.columns))

    def _repr_html_(self) -> str | None:
        """The table, for a notebook."""
        try:
            return self.dataframe().to_html()
        except UsageError:
            return None

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the history as a CSV file."""
        with open(path, "w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, self.columns)
            writer.writeheader()
            writer.writerows(
                {k: v.tolist() if isinstance(v, np.ndarray) else v for k, v in row.items()} for row in self
            )

    def __repr__(self) -> str:
        if not self._rows:
            return "History(no rounds yet)"
        last = ", ".join(f"{k}={_short(v)}" for k, v in self[-1].items())
        return f"History({len(self)} rounds; last: {last})"


def _flat(row: Row, names: Mapping[tuple[str, str], str]) -> dict[str, Any]:
    counts = {name: getattr(row, name) for name in COUNTS}
    return counts | {names[stage, m]: v for stage, ms in row.stages.items() for m, v in ms.items()}


def _stacked(values: Sequence[Any]) -> Array:
    """One value a round: numbers, or arrays of one shape along a first axis; else as objects."""
    shapes = {np.shape(v) for v in values if not _missing(v)} or {()}
    if len(shapes) == 1 and all(np.asarray(v).dtype.kind in "biuf" for v in values):
        (shape,) = shapes
        return np.array([np.full(shape, v) if _missing(v) else v for v in values])
    column = np.empty(len(values), object)
    for i, value in enumerate(values):
        column[i] = value
    return column


def _missing(value: Any) -> bool:
    return isinstance(value, float) and math.isnan(value)


def _same(mine: Mapping[str, Any], its: Mapping[str, Any]) -> bool:
    return mine.keys() == its.keys() and all(
        np.array_equal(mine[k], its[k]) or (_missing(mine[k]) and _missing(its[k])) for k in mine
    )


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value).replace("\n", " ")


__all__ = ["History", "Row"]
