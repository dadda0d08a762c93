"""One client of a simulation in the calling process, as a debugger wants it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, final

from umbel.arguments import whole
from umbel.arrays import Arrays
from umbel.client.app import ClientApp
from umbel.client.context import ClientInfo
from umbel.client.work import Bench
from umbel.engine.arguments import as_arrays
from umbel.engine.question import Kind, Question
from umbel.errors import HandlerMissing
from umbel.simulation.place import Place
from umbel.update import Metrics, Update


@final
class OneClient:
    """Asks one client; what its code raises is let through.

    Args:
        app: the clients' side.
        client: which client.
        seed: of the run whose random numbers it is to draw.
        place: where it belongs to.
    """

    def __init__(self, app: ClientApp, client: ClientInfo, *, seed: int, place: Place) -> None:
        self._app, self._client, self._seed, self._place = app, client, seed, place
        self._bench = Bench(app, seed, threads=place.threads, devices=place.devices)

    def train(
        self,
        model: Arrays | Mapping[str, Any],
        *,
        round: int = 1,
        config: Mapping[str, Any] | None = None,
        extra: Mapping[str, Arrays] | None = None,
        state: Mapping[str, Any] | None = None,
    ) -> Update:
        """Train a model.

        Args:
            model: the model it is sent.
            round: the round it draws the random numbers of.
            config: its settings, as ``ctx.config``.
            extra: more named arrays, as ``ctx.extra``.
            state: what it kept from earlier rounds.
        """
        update = self._ask("train", "train", model, round=round, config=config, extra=extra, state=state)
        assert isinstance(update, Update)
        return update

    def evaluate(
        self,
        model: Arrays | Mapping[str, Any],
        *,
        round: int = 1,
        config: Mapping[str, Any] | None = None,
        extra: Mapping[str, Arrays] | None = None,
        state: Mapping[str, Any] | None = None,
    ) -> Metrics:
        """Evaluate a model. Arguments as for `train`."""
        metrics = self._ask("evaluate", "evaluate", model, round=round, config=config, extra=extra, state=state)
        assert isinstance(metrics, Metrics)
        return metrics

    def query(
        self,
        name: str,
        model: Arrays | Mapping[str, Any] | None = None,
        *,
        round: int = 1,
        config: Mapping[str, Any] | None = None,
        extra: Mapping[str, Arrays] | None = None,
        state: Mapping[str, Any] | None = None,
    ) -> Update:
        """Ask the query called ``name``. Other arguments as for `train`."""
        update = self._ask("query", name, model, round=round, config=config, extra=extra, state=state)
        assert isinstance(update, Update)
        return update

    def _ask(  # as its callers have them
        self,
        kind: Kind,
        name: str,
        model: Any,
        *,
        round: int,
        config: Mapping[str, Any] | None,
        extra: Mapping[str, Arrays] | None,
        state: Mapping[str, Any] | None,
    ) -> Update | Metrics:
        if name not in self._app.names():
            raise HandlerMissing(
                f"the client app has no handler for {name!r}", advice=f"it has {', '.join(sorted(self._app.names()))}"
            )
        question = Question(
            kind=kind,
            name=name,
            seed=self._seed,
            round=whole(round, "round"),
            call=1,
            model=as_arrays("the model", model) if model is not None else None,
            config=config or {},
            extra=extra or {},
        )
        with self._place.running():
            return self._bench.ask(question, self._client, state or {})

    def __repr__(self) -> str:
        return f"OneClient({self._client.name!r})"


__all__ = ["OneClient"]
