"""`run` and `evaluate`: what a program calls."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, cast, final

from umbel import metrics as combiners
from umbel import rng, schedule
from umbel.arguments import whole
from umbel.arrays import Arrays
from umbel.client.app import ClientApp
from umbel.engine.app import ServerApp
from umbel.engine.arguments import check_drawn, check_type
from umbel.engine.driver import conduct, drive
from umbel.engine.exchange import Exchange
from umbel.engine.question import Question
from umbel.engine.submission import EvaluationOnly
from umbel.errors import EmptyPopulation, Failure, HandlerMissing, UsageError
from umbel.policy import RoundPolicy
from umbel.progress import MonotonicClock, Watch
from umbel.remote.remote import Remote
from umbel.result import Result, as_model
from umbel.sample import Sampler, everyone
from umbel.session import Callback, Session, opened
from umbel.simulation.place import Place
from umbel.store.memory import MemoryClientStates, MemoryStore

logger = logging.getLogger("umbel")


def run(
    server: ServerApp,
    client: ClientApp | str,
    *,
    on: Place | Remote | None = None,
    seed: int | None = None,
    dir: str | os.PathLike[str] | None = None,  # what it is called everywhere
    rounds: int | None = None,
    initial: Arrays | Mapping[str, Any] | str | os.PathLike[str] | None = None,
    callbacks: Sequence[Callback] = (),
    name: str | None = None,
    debug: bool = False,
) -> Result:
    """Run a federation.

    Args:
        server: the server's side.
        client: the clients' side, or its name: "myfed:client".
        on: where: ``umbel.Simulation(clients=...)`` or ``umbel.connect(...)``.
        seed: of all randomness; drawn and recorded if not given. The same seed gives the same bits.
        dir: a directory that makes the run durable. Killed at any moment, the same call goes on from the last
            committed round to the same bits. A finished run is returned as it is; with more ``rounds`` it goes on. On a
            server all runs are durable: there the directory makes the same call find the same run, and gets its model.
        rounds: how many in all; by default what the server app says.
        initial: the model to start from, or the path of a ``.safetensors`` file; by default the server app's.
        callbacks: objects with ``on_round(result)``, or functions of the result so far, called after each round; one
            that returns text ends the run with it as the reason. `Checkpoint` and `EarlyStopping` go here too.
        name: of the run, for people.
        debug: let exceptions of the clients' code through instead of recording them as failures.

    Returns:
        Model, history and everything else; see `Result`.

    Raises:
        RecipeChanged: ``dir`` holds a run made from something else; names the differences.
        QuorumMissed: too few clients answered; names them. What was committed is kept.
        UsageError: an argument that makes no sense.
    """
    _check_arguments(server, client, on, callbacks, dir)
    seed = None if seed is None else whole(seed, "seed", least=0)
    rounds = None if rounds is None else whole(rounds, "rounds", least=0)
    if isinstance(on, Remote):
        _check_travels(debug)
        more: dict[str, Any] = {"rounds": rounds, "initial": initial, "callbacks": callbacks, "name": name}
        return on.run(server, client, seed=seed, dir=dir, **more)
    client = _loaded(client)
    place = cast(Place, on)
    with place.running(), opened(dir) as store:  # who may not run makes no directory
        session = Session(
            server=server,
            client=client,
            place=place,
            store=store,
            seed=seed,
            rounds=rounds,
            given=initial,
            callbacks=callbacks,
            name=name,
        )
        return session.run(debug=debug)


def _check_arguments(server: Any, client: Any, on: Any, callbacks: Any, dir: Any) -> None:
    if not isinstance(server, ServerApp):
        raise UsageError(f"the first argument is a {type(server).__name__}", advice="give an umbel.ServerApp")
    if not isinstance(client, ClientApp | str):
        raise UsageError(f"the second argument is a {type(client).__name__}", advice="give an umbel.ClientApp")
    if server.strategy is None and server.loop is None:
        raise UsageError("the server app has neither a strategy nor a main", advice="give strategy=umbel.fed_avg(...)")
    if not isinstance(on, Place | Remote):
        what = "nobody says where to run" if on is None else f"on is a {type(on).__name__}"
        raise UsageError(what, advice="give on=umbel.Simulation(clients=10), or on=umbel.connect(...)")
    if isinstance(callbacks, str) or not isinstance(callbacks, Sequence):
        raise UsageError(f"callbacks is a {type(callbacks).__name__}", advice="give a list: callbacks=[...]")
    if dir == "" or not isinstance(dir, str | os.PathLike | None):
        raise UsageError(f"dir is {dir!r}", advice="give the path of a directory, or leave dir= out")
    if dir is not None and not _can_be_path(dir):
        raise UsageError(f"dir is {dir!r}", advice="give a path without NUL, in valid Unicode")


def _check_travels(debug: bool) -> None:
    if debug:
        raise UsageError("debug=True has no meaning on a server", advice="debug with on=umbel.Simulation(...)")


def _loaded(client: ClientApp | str) -> ClientApp:
    """The clients' side; imported, if its name was given."""
    if isinstance(client, ClientApp):
        return client
    from umbel.apps.load import load_client

    return load_client(client)


def _can_be_path(dir: str | os.PathLike[str]) -> bool:
    try:
        return b"\0" not in os.fsencode(dir)
    except UnicodeEncodeError:  # half of a surrogate pair
        return False


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """What `evaluate` gives.

    Attributes:
        metrics: the clients' metrics, combined.
        clients: each client's own metrics, by name.
        failures: who failed, and why.
    """

    metrics: Mapping[str, Any]
    clients: Mapping[str, Mapping[str, Any]]
    failures: Sequence[Failure] = field(default=())


def evaluate(
    model: Arrays | Mapping[str, Any] | str | os.PathLike[str],
    client: ClientApp | str,
    *,
    on: Place | Remote | None = None,
    cohort: Sampler | None = None,
    config: Mapping[str, Any] | None = None,
    metrics: Mapping[str, Any] | None = None,
    seed: int = 0,
) -> Evaluation:
    """Have clients evaluate a model.

    Args:
        model: the model, or the path of a ``.safetensors`` file.
        client: the clients' side, or its name; needs ``@client.evaluate``.
        on: where: ``umbel.Simulation(clients=...)`` or ``umbel.connect(...)``.
        cohort: who evaluates; by default everyone.
        config: settings, as ``ctx.config``.
        metrics: how the metrics combine, by name; by default the weighted mean.
        seed: of all randomness.

    Raises:
        HandlerMissing: the app cannot evaluate.
        UsageError: an argument that makes no sense.
    """
    _check_evaluation(client, on, cohort, metrics)
    seed = whole(seed, "seed", least=0)
    if isinstance(on, Remote):
        asked = EvaluationOnly(cohort=cohort or everyone(), config=config or {}, metrics=metrics or {})
        return _evaluation(on.evaluate(_sent(model), client, asked, seed=seed))
    on, client = cast(Place, on), _loaded(client)
    if "evaluate" not in client.names():
        raise HandlerMissing("the client app has no handler for 'evaluate'", advice="write @client.evaluate")
    rules = combiners.as_rules(metrics)
    population = on.clients.population
    if not len(population):
        raise EmptyPopulation("there is no client to evaluate on", advice="give umbel.Simulation at least one client")
    sampler = cohort or everyone()
    drawn = sampler.draw(population, round=1, rng=rng.stream(seed, "cohort", 1, 1, 0))
    check_drawn(sampler, drawn, population)
    question = Question(
        kind="evaluate",
        name="evaluate",
        seed=seed,
        round=1,
        call=1,
        model=_sent(model),
        config=schedule.resolve(config or {}, 1),
    )
    with on.running():
        runner = on.runner(client, seed, MemoryClientStates())
        loop = conduct(question, Exchange(drawn, quorum=0.0), RoundPolicy().deadline)
        close, reduced = drive(loop, runner, MemoryStore(), MonotonicClock(), Watch())
    return Evaluation(
        metrics=combiners.combine(rules, reduced.rows, warn=lambda text: logger.warning("metric-left-out: %s", text)),
        clients=dict(zip(reduced.names, reduced.metrics, strict=True)),
        failures=close.failures,
    )


def _check_evaluation(client: Any, on: Any, cohort: Any, metrics: Any) -> None:
    if not isinstance(on, Place | Remote):
        what = "nobody says where to evaluate" if on is None else f"on is a {type(on).__name__}"
        raise UsageError(what, advice="give on=umbel.Simulation(clients=10), or on=umbel.connect(...)")
    if not isinstance(client, ClientApp | str):
        raise UsageError(f"the second argument is a {type(client).__name__}", advice="give an umbel.ClientApp")
    check_type("cohort", cohort, Sampler)
    check_type("metrics", metrics, Mapping)


def _evaluation(
    found: tuple[Mapping[str, Any], Mapping[str, Mapping[str, Any]], Sequence[Failure]],
) -> Evaluation:
    combined, clients, failures = found
    return Evaluation(metrics=combined, clients=clients, failures=failures)


def _sent(model: Any) -> Arrays:
    """What the clients get; said aloud if that is not what they had in the run."""
    sent = as_model(model).canonical()
    if kept := [e.name for e in sent.spec.entries if e.role == "local"]:
        logger.warning(
            "local-entries: %s stayed at the clients of the run; here all clients have what the model holds there",
            ", ".join(kept[:5]),
        )
    return sent


__all__ = ["Evaluation", "evaluate", "run"]
