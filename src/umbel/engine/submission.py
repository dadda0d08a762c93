"""A run as data: what whoever submits it sends to a server."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, cast, final

from umbel.arrays import Arrays
from umbel.engine.app import ServerApp
from umbel.engine.checkpoint import Checkpoint, EarlyStopping
from umbel.engine.federation import Federation
from umbel.engine.history import History
from umbel.engine.loop import strategy_main
from umbel.errors import UsageError
from umbel.policy import RoundPolicy
from umbel.sample import Sampler, everyone
from umbel.strategies.base import Strategy


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluationOnly:
    """One evaluation by clients, and nothing else.

    Attributes:
        cohort: who evaluates.
        config: settings, as ``ctx.config``.
        metrics: how the metrics combine, by name.
    """

    cohort: Sampler = field(default_factory=everyone)
    config: Mapping[str, Any] = field(default_factory=dict)
    metrics: Mapping[str, Any] = field(default_factory=dict)


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Submission:
    """A run as data.

    Attributes:
        seed: of the run.
        rounds: how many; None where main decides.
        initial: the model at the start.
        handlers: what the clients can be asked.
        strategy: what is done; None where the two below say it. Beside a server app it takes the place of that's own.
        evaluation: evaluate ``initial`` once instead.
        main: the server app, as "module:object", whose own code runs at the server; "" where there is none.
        threads: how many a client computes with.
        checkpoint: what to keep.
        stopping: when the run ends early.
        recipe: what the run is made from, for people.
    """

    seed: int
    rounds: int | None = None
    initial: Arrays | None = None
    handlers: tuple[str, ...] = ()
    strategy: Strategy | None = None
    evaluation: EvaluationOnly | None = None
    main: str = ""
    threads: int = 1
    checkpoint: Checkpoint = field(default_factory=Checkpoint)
    stopping: tuple[EarlyStopping, ...] = ()
    recipe: Mapping[str, Any] = field(default_factory=dict)

    def loop(self, app: ServerApp | None = None) -> Callable[[Federation], object]:
        """What conducts the run.

        Args:
            app: the server app that ``main`` names, where its code may run; else None.

        Raises:
            UsageError: it needs code of the user's, and that may not run here; or there is nothing to do.
        """
        if self.main and app is None:
            raise UsageError(f"{self.main} has code that runs at the server", advice="install the app there: --app")
        if app is not None and self.main:
            strategy = self.strategy or app.strategy
            if app.loop is None and strategy is None:
                raise UsageError(f"{self.main} has neither a main nor a strategy", advice="write @server.main")
            return app.loop or strategy_main(cast(Strategy, strategy))
        if self.evaluation is not None:
            return _evaluate_once(self.evaluation)
        if self.strategy is None:
            raise UsageError("nothing is to be done: there is neither a strategy nor an evaluation")
        return strategy_main(self.strategy)

    def stopped(self, history: History) -> str:
        """A reason to end the run where it stands, or ""."""
        seen = _Seen(history)
        return next((reason for rule in self.stopping if (reason := rule.on_round(seen))), "") if len(history) else ""


@final
@dataclass(frozen=True, slots=True)
class _Seen:
    """What a rule for early stopping looks at."""

    history: History


def _evaluate_once(what: EvaluationOnly) -> Callable[[Federation], None]:
    def main(fed: Federation) -> None:
        for _ in fed.rounds(1):
            model = fed.initial
            if model is None:
                raise UsageError("there is no model to evaluate", advice="give one to umbel.evaluate")
            got = fed.evaluate(
                model,
                cohort=what.cohort,
                config=what.config,
                metrics=what.metrics,
                policy=RoundPolicy(quorum=0.0),
            )
            fed.commit({"model": model}, evaluate=got.metrics)

    return main


__all__ = ["EvaluationOnly", "Submission"]
