"""What to keep of a run, and when to end it early. Both are functions of the history alone."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal, final

import numpy as np

from umbel.arguments import number, whole
from umbel.engine.history import History
from umbel.errors import UsageError

Mode = Literal["min", "max"]


def mode_of(metric: str, mode: Mode | None) -> Mode:
    """The given mode; else "min" for names that end in "loss" or "error", "max" for all others."""
    if mode is not None and mode not in ("min", "max"):
        raise UsageError(f"mode is {mode!r}", advice='take "min" or "max"')
    if not isinstance(metric, str):
        raise UsageError(f"the metric is {metric!r}", advice='give the name of a column of the history: "loss"')
    return mode or ("min" if metric.lower().endswith(("loss", "error")) else "max")


def has_number(history: History, metric: str) -> bool:
    """Is the metric a number in any round? Nothing else can be the best."""
    return any(isinstance(v, int | float | np.number) and not math.isnan(v) for v in history.values(metric))


def _scores(history: History, metric: str, mode: Mode | None) -> list[float]:
    """The metric over the rounds, the higher the better; NaN where a round has none."""
    sign = 1 if mode_of(metric, mode) == "max" else -1
    return [sign * float(v) if isinstance(v, int | float | np.number) else np.nan for v in history.values(metric)]


@final
@dataclass(frozen=True, slots=True)
class Checkpoint:
    """What a run keeps.

    Args:
        every: write the state down after each so many rounds; a killed run goes on from there.
        best_on: the metric that says which round's model is the best; None keeps no best model.
        mode: is the best "min" or "max"? By default "min" for names that end in "loss" or "error", else "max".
    """

    every: int = 1
    best_on: str | None = None
    mode: Mode | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "every", whole(self.every, "Checkpoint: every"))
        mode_of("" if self.best_on is None else self.best_on, self.mode)

    def due(self, round: int) -> bool:
        """Is the state written down after this round?"""
        return round % self.every == 0

    def is_best(self, history: History) -> bool:
        """Is the last round the best so far? The first of equals stays the best."""
        if self.best_on is None or not len(history):
            return False
        *before, last = _scores(history, self.best_on, self.mode)
        return not math.isnan(last) and all(math.isnan(b) or last > b for b in before)


@final
@dataclass(frozen=True, slots=True)
class EarlyStopping:
    """End a run when a metric no longer improves.

    Args:
        metric: a column of the history.
        patience: the run ends when this many rounds in a row that have the metric did not improve on the best.
        min_delta: what counts as an improvement.
        mode: is the best "min" or "max"? By default "min" for names that end in "loss" or "error", else "max".
    """

    metric: str
    patience: int = 5
    min_delta: float = 0.0
    mode: Mode | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "patience", whole(self.patience, "EarlyStopping: patience"))
        object.__setattr__(self, "min_delta", number(self.min_delta, "EarlyStopping: min_delta", least=0))
        mode_of(self.metric, self.mode)

    def on_round(self, result: Any) -> str:
        """The reason to end the run, or ""."""
        best, since = -np.inf, 0
        for score in _scores(result.history, self.metric, self.mode):
            if math.isnan(score):
                continue
            improved = score > best + self.min_delta
            best, since = (score, 0) if improved else (best, since + 1)
        return f"{self.metric} has not improved for {since} rounds" if since >= self.patience else ""


__all__ = ["Checkpoint", "EarlyStopping", "Mode"]
