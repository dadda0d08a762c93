"""The strategies' own loop: a main like any user's, written with the same ``fed``."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, final

from umbel.aggregate.expected import FOLDED, LEARNED, check_finite
from umbel.arrays import Arrays
from umbel.engine.federation import Federation
from umbel.errors import BadUpdate, RunError, UsageError
from umbel.optimize import OptimizerState
from umbel.optimize.tree import leaves
from umbel.policy import ANYBODY
from umbel.spec import Entries
from umbel.strategies.base import Strategy


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class LoopState:
    """What a strategy's round leaves to the next one.

    Attributes:
        model: the model.
        optimizer: the server optimizer's state.
    """

    model: Arrays
    optimizer: Any


def strategy_main(strategy: Strategy) -> Callable[[Federation], None]:
    """The main that runs a strategy."""

    def main(fed: Federation) -> None:
        state = fed.state or _start(strategy, fed)
        for r in fed.rounds():
            state, trained = _train(strategy, fed, state)
            evaluated = _evaluate(strategy, fed, state.model, r)
            fed.commit(state, train=trained, evaluate=evaluated)

    return main


def _start(strategy: Strategy, fed: Federation) -> LoopState:
    if fed.initial is None:
        raise UsageError("a strategy needs an initial model", advice="give model= to umbel.ServerApp, or initial=")
    model = shared_only(fed.initial, strategy.share)
    if not any(e.role in FOLDED for e in model.spec.entries):
        shown = ", ".join(f"{e.name!r} is {e.describe()}" for e in model.spec.entries[:5])
        raise UsageError(
            f"nothing in the model is trained: {shown or 'it has no entries'}",
            advice="give floating-point arrays: 0.0 and not 0, np.zeros(3) and not np.zeros(3, int)",
        )
    return LoopState(model=model, optimizer=strategy.optimizer.init(model))


def shared_only(model: Arrays, share: Entries | None) -> Arrays:
    """The model in which entries that are not shared have the role "local"."""
    if share is None:
        return model
    chosen = [e.name for e in model.spec.entries if share.match(e.name)]
    if not chosen:
        raise UsageError(
            f"share={share.include} but={share.but} matches no entry of the model",
            advice=f"its entries are {', '.join(model.spec.names[:10])}",
        )
    for pattern in share.but:
        # a name that is misspelt here would quietly send what was meant to stay
        if not any(Entries((pattern,)).match(name) for name in model.spec.names):
            raise UsageError(
                f"share: but={pattern!r} matches no entry of the model",
                advice=f"its entries are {', '.join(model.spec.names[:10])}",
            )
    # choices are tried in order: what is shared keeps its role, since a choice without one changes nothing
    kept = set(chosen)
    local = tuple(e.name for e in model.spec.entries if e.name not in kept)
    return model.with_roles(Entries(tuple(_literal(n) for n in local), role="local")) if local else model


def _literal(name: str) -> str:
    """The pattern that matches this name only."""
    return "".join(f"[{c}]" if c in "*?[" else c for c in name)


def _train(strategy: Strategy, fed: Federation, state: LoopState) -> tuple[LoopState, Mapping[str, Any]]:
    got = fed.train(
        state.model,
        cohort=strategy.cohort,
        aggregator=strategy.aggregator,
        config=strategy.config,
        transforms=strategy.transforms,
        local=strategy.local,
        metrics=strategy.metrics,
        policy=strategy.rounds,
    )
    if not got.aggregated or got.value is None:
        return state, got.metrics
    model, optimizer = strategy.optimizer.step(state.model, got.value, state.optimizer)
    _check_step(model, optimizer, fed.round)
    return LoopState(model=model, optimizer=optimizer), got.metrics


def _check_step(model: Arrays, optimizer: OptimizerState, round: int) -> None:  # the field's word
    """Before it is committed: what is not finite could not be trained any more, nor step any more."""
    try:
        check_finite(model, roles=LEARNED)
        for leaf in leaves(optimizer.rule):
            if isinstance(leaf, Arrays):
                check_finite(leaf, bounded=False, roles=LEARNED)
    except BadUpdate as error:
        raise RunError(
            f"round {round}: the server's step went out of bounds, though the clients' mean was finite: {error.what}",
            advice="lower the server optimizer's learning rate, or clip the updates (umbel.transforms.clip); then run "
            "again: the last round is kept",
        ) from error


def _evaluate(strategy: Strategy, fed: Federation, model: Arrays, r: int) -> Mapping[str, Any]:
    every = strategy.evaluate.every
    if not every or r % every or "evaluate" not in fed.handlers:
        return {}
    got = fed.evaluate(
        model,
        cohort=strategy.evaluate.cohort or strategy.cohort,
        config=strategy.config,
        metrics=strategy.metrics,
        policy=replace(strategy.rounds, quorum=min(strategy.rounds.quorum, ANYBODY), spare=0),
    )
    return got.metrics


__all__ = ["LoopState", "shared_only", "strategy_main"]
