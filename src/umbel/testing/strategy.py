"""What a `Strategy` must do: run, resume to the same bits, bear an empty cohort, and travel."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from umbel.api import run
from umbel.arrays import Arrays
from umbel.client.app import ClientApp
from umbel.engine.app import ServerApp
from umbel.errors import BadUpdate
from umbel.policy import rounds as policy
from umbel.result import Result
from umbel.sample import everyone, poisson
from umbel.simulation.simulation import Simulation
from umbel.strategies import Strategy
from umbel.testing import samples
from umbel.testing.promise import Promise
from umbel.update import Update

_A_STRATEGY = Promise("a strategy")
_require, _doing = _A_STRATEGY.require, _A_STRATEGY.doing
_CLIENTS = 5


def check_strategy(strategy: Strategy, *, model: Arrays | None = None, client: ClientApp | None = None) -> None:
    """Check a strategy of one's own, in small runs of three rounds with five clients.

    - it is a value: it can be written down and read back, and then does the same;
    - the same seed gives the same bits, run at once or in two pieces with a directory;
    - the model stays finite, and what is not trained stays as it was;
    - a round in which nobody was drawn is lawful;
    - one client that fails does not end a run that can do without it.

    Args:
        strategy: the one to check.
        model: what is trained; by default a small one with every dtype and role (no buffers where transforms
            protect the sum).
        client: who trains it; by default clients that go a step towards a place of their own, apply the strategy's
            correction and report the metric "loss".

    Raises:
        AssertionError: says what the strategy must do.
    """
    _require(isinstance(strategy, Strategy), f"be an umbel.Strategy, not {strategy!r}")
    read = _A_STRATEGY.written_down(strategy.with_(cohort=everyone()), "be a value")
    start = model if model is not None else _model_for(strategy)
    app = client if client is not None else _make_client()
    whole = _run(strategy, start, app, "run")
    _check_model(start, whole.model)
    _same(whole, _run(strategy, start, app, "run twice"), "give the same bits for the same seed")
    unread = _run(strategy.with_(cohort=everyone()), start, app, "run with every client")
    _same(unread, _run(read, start, app, "run as it was read back"), "do the same when it was read back")
    with tempfile.TemporaryDirectory(prefix="umbel-") as folder:
        for number in (1, 3):
            resumed = _run(strategy, start, app, "run in two pieces", rounds=number, dir=Path(folder) / "run")
    _same(whole, resumed, "give the same bits in two pieces as in one")
    _check_nobody(strategy, start, app)
    if client is None:
        tolerant = strategy.with_(rounds=policy(quorum=0.5))
        with _silent():  # it fails as it should
            ill = _run(tolerant, start, _make_client(failing="3"), "run without one client")
        _check_model(start, ill.model)


def _model_for(strategy: Strategy) -> Arrays:
    full = samples.model()
    return full.select(lambda e: e.role != "buffer") if strategy.transforms.guard else full


@contextmanager
def _silent() -> Iterator[None]:
    logger = logging.getLogger("umbel")
    before = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(before)


def _run(strategy: Strategy, model: Arrays, client: ClientApp, words: str, **arguments: Any) -> Result:
    with _doing(words):
        server = ServerApp(model=model, strategy=strategy, rounds=3)
        return run(server, client, on=Simulation(clients=_CLIENTS), seed=5, **arguments)


def _same(one: Result, other: Result, words: str) -> None:
    _A_STRATEGY.same(one.model, other.model, words)
    _require(one.history == other.history, f"{words}: the histories differ")


def _check_model(start: Arrays, end: Arrays | None) -> None:
    _require(end is not None, "leave a model behind")
    assert end is not None
    text = start.spec.difference(end.spec, roles=False)
    _require(not text, f"leave a model with the entries that it was given: {text}")
    for e in start.spec.entries:
        if e.role in ("trained", "buffer"):
            _require(bool(np.isfinite(end[e.name]).all()), f"keep the model finite; {e.name!r} is not")
        else:
            _require(start.raw(e.name).tobytes() == end.raw(e.name).tobytes(), f"leave the {e.role} {e.name!r} alone")


def _check_nobody(strategy: Strategy, start: Arrays, client: ClientApp) -> None:
    alone = strategy.with_(cohort=poisson(1e-12))
    result = _run(alone, start, client, "bear rounds in which nobody was drawn")
    _require(len(result.history) == 3, "commit rounds in which nobody was drawn")
    _check_model(start, result.model)
    if not strategy.transforms.releases:
        _A_STRATEGY.same(result.model, start.canonical(), "leave the model alone when nobody trained it")


def _make_client(failing: str = "") -> ClientApp:
    client = ClientApp()

    @client.train
    def train(model: Any, ctx: Any) -> Update:
        if ctx.client.name == failing:
            raise BadUpdate("it fails")
        correction = ctx.correction
        moved = {}
        for e in model.spec.entries:
            if e.role not in ("trained", "buffer"):
                continue
            place = np.random.default_rng(int(ctx.client.name)).normal(size=e.shape)
            gradient = model[e.name] - place
            if correction is not None and correction.offset is not None and e.name in correction.offset:
                gradient = gradient + correction.offset[e.name]
            moved[e.name] = (model[e.name] - 0.1 * gradient).astype(model[e.name].dtype)
        loss = float(np.mean([np.mean(np.square(x)) for x in moved.values() if x.size]))
        return Update(model=moved, weight=1 + int(ctx.client.name), metrics={"loss": loss})

    return client


__all__ = ["check_strategy"]
